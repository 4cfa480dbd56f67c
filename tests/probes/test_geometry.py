"""Isotropy and mean cosine: the five steps of the paper, known spaces, loops."""

import numpy as np
import pytest

from mpm_eval.probes.geometry import isotropy, mean_cosine


def all_of(x: np.ndarray) -> np.ndarray:
    return np.ones((len(x), 1))


def five_steps(x: np.ndarray) -> float:
    """Return IsoScore as algorithm 1 of Rudman et al. 2022 says it."""
    n = x.shape[1]
    variances = np.linalg.eigvalsh(np.cov(x.T))  # of the principal components
    normed = np.sqrt(n) * variances / np.linalg.norm(variances)
    defect = np.linalg.norm(normed - 1) / np.sqrt(2 * (n - np.sqrt(n)))
    fraction = (n - defect**2 * (n - np.sqrt(n))) ** 2 / n**2
    return float((n * fraction - 1) / (n - 1))


@pytest.mark.parametrize("seed", range(3))
def test_isotropy_equals_the_five_steps_of_its_paper(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(80, 6)) * rng.uniform(0.1, 5, 6) + 30
    assert isotropy(x, all_of(x))[0] == pytest.approx(five_steps(x), rel=1e-9)


def test_one_direction_scores_zero_and_equal_directions_one() -> None:
    line = np.outer(np.arange(10.0), [1, 2, 3])
    assert isotropy(line, all_of(line))[0] == pytest.approx(0, abs=1e-12)
    cross = np.concatenate([np.eye(4), -np.eye(4)])
    assert isotropy(cross, all_of(cross))[0] == pytest.approx(1)


def test_k_of_n_equal_directions_score_as_the_paper_says() -> None:
    # Rudman et al. 2022, section 4: (k - 1) / (n - 1)
    cross = np.concatenate([np.eye(9)[:3], -np.eye(9)[:3]])
    assert isotropy(cross, all_of(cross))[0] == pytest.approx(2 / 8)


def test_subsets_are_what_their_texts_alone_give() -> None:
    x = np.random.default_rng(0).normal(size=(30, 4)) * [1, 2, 3, 4] + 2
    mask = np.zeros((30, 1))
    mask[:12] = 1
    assert isotropy(x, mask)[0] == pytest.approx(five_steps(x[:12]), rel=1e-9)
    assert mean_cosine(x, mask)[0] == pytest.approx(mean_cosine(x[:12], np.ones((12, 1)))[0])


@pytest.mark.parametrize("x", [np.ones((5, 3)), np.zeros((5, 3)), np.arange(5.0)[:, None]])
def test_a_space_without_variance_or_of_one_dimension_has_no_isotropy(x: np.ndarray) -> None:
    assert np.isnan(isotropy(x, all_of(x))[0])


def test_the_mean_cosine_equals_a_loop_over_pairs() -> None:
    x = np.random.default_rng(1).normal(size=(15, 4)) + 1
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    pairs = [float(unit[i] @ unit[j]) for i in range(15) for j in range(15) if i != j]
    assert mean_cosine(x, all_of(x))[0] == pytest.approx(np.mean(pairs), rel=1e-9)


def test_the_mean_cosine_of_a_narrow_cone_is_near_one() -> None:
    x = np.random.default_rng(2).normal(size=(50, 8))
    assert mean_cosine(x + 100, all_of(x))[0] > 0.99
    assert abs(mean_cosine(x, all_of(x))[0]) < 0.1
