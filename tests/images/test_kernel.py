"""The kernel distance against torchmetrics, a plain double loop, and its own expectation."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mpm_eval.images import kernel
from mpm_eval.images.kernel import kernel_distance


def draw(n: int, dim: int, seed: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, dim)) + shift


def by_hand(a_NC: np.ndarray, b_MC: np.ndarray) -> float:
    """Gretton et al. 2012, equation 3, with the kernel of KID, pair by pair."""

    def k(x_C: np.ndarray, y_C: np.ndarray) -> float:
        return float((x_C @ y_C / len(x_C) + 1) ** 3)

    n, m = len(a_NC), len(b_MC)
    within_a = sum(k(a_NC[i], a_NC[j]) for i in range(n) for j in range(n) if i != j)
    within_b = sum(k(b_MC[i], b_MC[j]) for i in range(m) for j in range(m) if i != j)
    across = sum(k(x_C, y_C) for x_C in a_NC for y_C in b_MC)
    return within_a / (n * (n - 1)) + within_b / (m * (m - 1)) - 2 * across / (n * m)


def test_one_subset_of_everything_is_the_estimate_by_hand() -> None:
    a_NC, b_NC = draw(9, 5, 0), draw(9, 5, 1, shift=0.4)
    found = kernel_distance(a_NC, b_NC, num_subsets=3, subset_size=9)
    assert found.value == pytest.approx(by_hand(a_NC, b_NC), rel=1e-12)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Metric `Kernel")
def test_it_equals_torchmetrics_on_the_same_features() -> None:
    from torchmetrics.image.kid import KernelInceptionDistance

    class Injected(torch.nn.Module):
        num_features = 12

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(len(x), -1).double()

    rng = np.random.default_rng(0)
    a_NC, b_NC = rng.random((60, 12)), rng.random((60, 12)) ** 2
    theirs = KernelInceptionDistance(
        feature=Injected(), subsets=2, subset_size=60, normalize=True
    ).set_dtype(torch.float64)
    for x_NC, real in ((a_NC, True), (b_NC, False)):
        theirs.update(torch.from_numpy(x_NC).reshape(-1, 3, 2, 2), real=real)
    expected = float(theirs.compute()[0])
    found = kernel_distance(b_NC, a_NC, num_subsets=2, subset_size=60)
    assert found.value == pytest.approx(expected, rel=1e-6)


@given(st.integers(2, 30), st.integers(2, 30), st.integers(2, 30), st.integers(0, 999))
@settings(max_examples=30, deadline=None)
def test_all_subsets_at_once_give_the_mean_of_each_by_itself(
    n: int, m: int, size: int, seed: int
) -> None:
    a_NC, b_MC = draw(n, 3, seed), draw(m, 3, seed + 1, shift=0.5)
    found = kernel_distance(a_NC, b_MC, num_subsets=4, subset_size=size, seed=seed)
    smaller = min(n, m, size)
    rng = np.random.Generator(np.random.PCG64(seed))
    in_a = [rng.permutation(n)[:smaller] for _ in range(4)]
    in_b = [rng.permutation(m)[:smaller] for _ in range(4)]
    each = [by_hand(a_NC[a], b_MC[b]) for a, b in zip(in_a, in_b, strict=True)]
    assert found.value == pytest.approx(np.mean(each), rel=1e-9, abs=1e-12)
    assert found.subset_size == smaller


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    a_NC, b_NC = draw(50, 4, 0), draw(60, 4, 1, shift=1)
    whole = kernel_distance(a_NC, b_NC, num_subsets=5, subset_size=20)
    monkeypatch.setattr(kernel, "_ROWS", 7)
    blocks = kernel_distance(a_NC, b_NC, num_subsets=5, subset_size=20)
    assert blocks.value == pytest.approx(whole.value, rel=1e-12)
    assert blocks.ci95 == pytest.approx(whole.ci95, rel=1e-10)


@pytest.mark.slow
def test_it_has_no_bias_where_the_sets_are_of_one_kind() -> None:
    values = [
        kernel_distance(draw(20, 4, 2 * seed), draw(20, 4, 2 * seed + 1), 1, 20).value
        for seed in range(400)
    ]
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    assert abs(np.mean(values)) < 3 * error
    assert min(values) < 0  # not cut at 0, or the mean would be too large


@pytest.mark.slow
def test_the_interval_is_as_wide_as_draws_of_pictures_differ() -> None:
    reference_NC = draw(800, 4, 0)
    values, errors = [], []
    for seed in range(60):
        found = kernel_distance(draw(150, 4, 100 + seed, shift=0.4), reference_NC, 20, 150)
        assert found.ci95 is not None and found.value is not None
        values.append(found.value)
        errors.append((found.ci95[1] - found.value) / 1.96)
    assert np.mean(errors) == pytest.approx(np.std(values, ddof=1), rel=0.3)


def test_a_subset_shrinks_to_the_smaller_set_and_says_so() -> None:
    found = kernel_distance(draw(30, 3, 0), draw(40, 3, 1))
    assert found.subset_size == 30
    assert found.note == "subsets of 1000 shrunk to 30, the smaller set"
    assert "subsets:100x30|seed:0" in found.method
    assert kernel_distance(draw(30, 3, 0), draw(40, 3, 1), subset_size=30).note == ""


def test_one_picture_cannot_decide() -> None:
    found = kernel_distance(draw(1, 3, 0), draw(40, 3, 1))
    assert (found.value, found.ci95) == (None, None)
    assert found.note == "cannot decide: 1 pictures, at least 2 are needed"


def test_the_same_seed_gives_the_same_subsets() -> None:
    a_NC, b_NC = draw(40, 3, 0), draw(40, 3, 1)
    first = kernel_distance(a_NC, b_NC, 5, 10, seed=1)
    assert first == kernel_distance(a_NC, b_NC, 5, 10, seed=1)
    assert first.value != kernel_distance(a_NC, b_NC, 5, 10, seed=2).value


@pytest.mark.parametrize(
    ("a", "b", "settings", "message"),
    [
        (np.zeros((3, 2)), np.zeros((3, 4)), {}, "2 and of 4 dimensions"),
        (np.zeros(3), np.zeros((3, 4)), {}, r"shape \(N, C\)"),
        (np.full((3, 2), np.nan), np.zeros((3, 2)), {}, "not finite"),
        (np.zeros((3, 2)), np.zeros((3, 2)), {"num_subsets": 0}, "0 subsets of 1000"),
        (np.zeros((3, 2)), np.zeros((3, 2)), {"subset_size": 1}, "100 subsets of 1 "),
    ],
)
def test_bad_features_are_refused(
    a: np.ndarray, b: np.ndarray, settings: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        kernel_distance(a, b, **settings)
