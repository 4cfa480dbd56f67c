"""The Fréchet distance against torchmetrics, scipy's matrix root and closed forms."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from mpm_eval.images.frechet import estimate_frechet, frechet_distance, frechet_infinity
from mpm_eval.images.statistics import FeatureStatistics

of = FeatureStatistics.of


def correlated(n: int, dim: int, seed: int, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(dim).normal(size=(dim, dim)) / math.sqrt(dim)
    return rng.normal(size=(n, dim)) @ mixing + shift


def by_matrix_root(a_NC: np.ndarray, b_NC: np.ndarray) -> float:
    """What pytorch-fid and clean-fid compute."""
    a_CC, b_CC = np.cov(a_NC, rowvar=False), np.cov(b_NC, rowvar=False)
    apart_C = a_NC.mean(axis=0) - b_NC.mean(axis=0)
    return float(apart_C @ apart_C + np.trace(a_CC + b_CC - 2 * np.real(sqrtm(a_CC @ b_CC))))


@pytest.mark.parametrize("dim", [1, 2, 16, 64])
def test_it_equals_scipys_matrix_root(dim: int) -> None:
    a_NC, b_NC = correlated(300, dim, 1), correlated(250, dim, 2, shift=0.3) * 1.2
    a_NC, b_NC = a_NC.reshape(300, dim), b_NC.reshape(250, dim)
    found = frechet_distance(of(a_NC), of(b_NC))
    expected = by_matrix_root(a_NC, b_NC) if dim > 1 else one_dimension(a_NC, b_NC)
    assert found == pytest.approx(expected, rel=1e-10)


def one_dimension(a_N1: np.ndarray, b_N1: np.ndarray) -> float:
    apart = a_N1.mean() - b_N1.mean()
    return float(apart**2 + (a_N1.std(ddof=1) - b_N1.std(ddof=1)) ** 2)


@pytest.mark.slow
def test_it_equals_torchmetrics_on_the_same_features() -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Injected(torch.nn.Module):
        num_features = 12

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(len(x), -1).double()

    theirs = FrechetInceptionDistance(
        feature=Injected(), normalize=True, input_img_size=(3, 2, 2)
    ).set_dtype(torch.float64)  # fmt: skip
    rng = np.random.default_rng(0)
    a_NC, b_NC = rng.random((200, 12)), rng.random((150, 12)) ** 2
    for x_NC, real in ((a_NC, True), (b_NC, False)):
        theirs.update(torch.from_numpy(x_NC).reshape(-1, 3, 2, 2), real=real)
    assert frechet_distance(of(a_NC), of(b_NC)) == pytest.approx(float(theirs.compute()), rel=1e-6)


@pytest.mark.parametrize("n", [500, 20, 5])
def test_identical_sets_are_at_zero_whatever_their_rank(n: int) -> None:
    for seed in range(8):
        x_NC = correlated(n, 20, seed)
        scale = float(np.trace(of(x_NC).covariance_CC))
        assert 0 <= frechet_distance(of(x_NC), of(x_NC)) <= 1e-12 * scale


def test_a_dependent_dimension_adds_no_rounding_errors() -> None:
    # rounding makes every other such matrix positive definite: several are tried
    for seed in range(12):
        x_NC, b_NC = correlated(60, 10, seed), correlated(60, 11, seed, shift=1)
        a_NC = np.hstack([x_NC, x_NC.sum(axis=1, keepdims=True)])
        found = frechet_distance(of(a_NC), of(b_NC))
        assert found == pytest.approx(by_singular_values(a_NC, b_NC), rel=1e-12)


def by_singular_values(a_NC: np.ndarray, b_NC: np.ndarray) -> float:
    """Without a covariance: tr (AB)^(1/2) is the nuclear norm of the product of their roots."""
    a_XC = (a_NC - a_NC.mean(axis=0)) / math.sqrt(len(a_NC) - 1)
    b_XC = (b_NC - b_NC.mean(axis=0)) / math.sqrt(len(b_NC) - 1)
    nuclear = np.linalg.svd(a_XC @ b_XC.T, compute_uv=False).sum()
    apart_C = a_NC.mean(axis=0) - b_NC.mean(axis=0)
    return float(apart_C @ apart_C + (a_XC**2).sum() + (b_XC**2).sum() - 2 * nuclear)


def test_a_shift_alone_is_its_squared_length() -> None:
    x_NC = correlated(400, 8, 3)
    shift_C = np.linspace(-1, 2, 8)
    found = frechet_distance(of(x_NC), of(x_NC + shift_C))
    assert found == pytest.approx(shift_C @ shift_C, rel=1e-10)


def test_a_scale_alone_is_the_closed_form_of_commuting_covariances() -> None:
    x_NC = correlated(400, 8, 4)
    x_NC = x_NC - x_NC.mean(axis=0)
    expected = (3 - 1) ** 2 * np.trace(of(x_NC).covariance_CC)  # sum of (3 s - s)²
    assert frechet_distance(of(x_NC), of(3 * x_NC)) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("n", "m"), [(5, 5), (5, 400), (400, 5), (16, 16), (2, 2)])
def test_fewer_pictures_than_dimensions_give_a_real_number(n: int, m: int) -> None:
    a_NC, b_NC = correlated(n, 16, 5), correlated(m, 16, 6, shift=1)
    found = frechet_distance(of(a_NC), of(b_NC))
    assert isinstance(found, float)
    assert found == pytest.approx(by_singular_values(a_NC, b_NC), rel=1e-11)


@given(st.integers(2, 12), st.integers(2, 40), st.integers(2, 40), st.integers(0, 9999))
@settings(max_examples=60, deadline=None)
def test_it_is_symmetric_never_negative_and_blind_to_rotation(
    dim: int, n: int, m: int, seed: int
) -> None:
    a_NC, b_NC = correlated(n, dim, seed), correlated(m, dim, seed + 1, shift=0.5)
    found = frechet_distance(of(a_NC), of(b_NC))
    rotation_CC = np.linalg.qr(np.random.default_rng(seed).normal(size=(dim, dim)))[0]
    assert found >= 0
    assert frechet_distance(of(b_NC), of(a_NC)) == pytest.approx(found, rel=1e-6, abs=1e-6)
    turned = frechet_distance(of(a_NC @ rotation_CC), of(b_NC @ rotation_CC))
    assert turned == pytest.approx(found, rel=1e-5, abs=1e-5)


def test_different_dimensions_are_refused() -> None:
    with pytest.raises(ValueError, match="3 and of 2 dimensions"):
        frechet_distance(FeatureStatistics(3), FeatureStatistics(2))


def test_too_few_pictures_cannot_decide_but_show_the_biased_value() -> None:
    found = estimate_frechet(correlated(15, 16, 0), of(correlated(400, 16, 1)))
    assert found.value is None
    assert found.biased_value is not None and found.biased_value > 0
    assert found.reason == (
        "cannot decide: 15 pictures, at least 16 (the feature dimension) are needed"
    )
    assert found.note == "no extrapolation: 15 pictures, 48 are needed"


def test_a_small_reference_cannot_decide_either() -> None:
    found = estimate_frechet(correlated(400, 16, 0), of(correlated(15, 16, 1)))
    assert found.value is None
    assert found.reason.startswith("cannot decide: 15 pictures in the reference, at least 16")


def test_one_picture_has_no_distance() -> None:
    found = estimate_frechet(correlated(1, 4, 0), of(correlated(40, 4, 1)))
    assert (found.value, found.biased_value, found.ci95) == (None, None, None)
    assert found.reason.startswith("cannot decide: 1 pictures")


def test_statistics_alone_give_the_value_and_say_what_is_missing() -> None:
    a_NC, reference = correlated(100, 4, 0), of(correlated(100, 4, 1, shift=1))
    found = estimate_frechet(of(a_NC), reference)
    assert found.value == frechet_distance(of(a_NC), reference)
    assert (found.ci95, found.infinity) == (None, None)
    assert found.note == "no interval, no extrapolation: features not kept"


def test_the_same_seed_gives_the_same_estimate_and_the_method_names_it() -> None:
    a_NC, reference = correlated(100, 4, 0), of(correlated(100, 4, 1, shift=1))
    assert estimate_frechet(a_NC, reference, seed=3) == estimate_frechet(a_NC, reference, seed=3)
    found = estimate_frechet(a_NC, reference, seed=3)
    assert found.method == "ci:jackknife,normal|groups:50|seed:3|reference:fixed"
    bootstrap = estimate_frechet(a_NC, reference, interval="bootstrap", num_resamples=20)
    assert bootstrap.method == "ci:bootstrap,normal|resamples:20|seed:0|reference:fixed"
    with pytest.raises(ValueError, match="interval 'percentile'"):
        estimate_frechet(a_NC, reference, interval="percentile")


@pytest.mark.slow
@pytest.mark.parametrize("interval", ["jackknife", "bootstrap"])
def test_the_interval_is_as_wide_as_draws_of_pictures_differ(interval: str) -> None:
    reference = of(correlated(20_000, 6, 0))
    values, errors = [], []
    for seed in range(60):
        found = estimate_frechet(
            correlated(200, 6, 100 + seed, shift=0.3), reference, interval=interval,
            num_resamples=60,
        )  # fmt: skip
        assert found.ci95 is not None and found.value is not None
        values.append(found.value)
        errors.append((found.ci95[1] - found.value) / 1.96)
    # the standard deviation of 60 draws is itself known to 9 %
    assert np.mean(errors) == pytest.approx(np.std(values, ddof=1), rel=0.25)


@pytest.mark.slow
def test_a_subset_is_too_far_and_the_extrapolation_comes_back_to_the_truth() -> None:
    dim, shift = 8, 0.5
    truth = dim * shift**2
    rng = np.random.default_rng(0)
    reference = of(rng.normal(size=(200_000, dim)))
    small, large, extrapolated = [], [], []
    for _ in range(60):
        x_NC = rng.normal(size=(200, dim)) + shift
        small.append(frechet_distance(of(x_NC[:100]), reference))
        large.append(frechet_distance(of(x_NC), reference))
        extrapolated.append(frechet_infinity(x_NC, reference))
    bias_small, bias_large = np.mean(small) - truth, np.mean(large) - truth
    assert bias_small == pytest.approx(2 * bias_large, rel=0.25)  # as 1 / n
    assert abs(np.mean(extrapolated) - truth) < 0.3 * bias_large


def test_an_extrapolation_of_too_few_is_refused() -> None:
    with pytest.raises(ValueError, match="20 pictures, an extrapolation needs 24"):
        frechet_infinity(correlated(20, 8, 0), of(correlated(90, 8, 1)))
