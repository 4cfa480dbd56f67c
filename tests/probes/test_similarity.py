"""CKA and RSA: known values, invariances, loops and scipy as oracles, floors."""

from itertools import permutations

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from scipy.stats import ortho_group, pearsonr, spearmanr

from mpm_eval.probes.similarity import (
    cka,
    distance_ranks,
    hsic,
    linear_kernel,
    random_correlations,
    rsa,
    u_centred,
)
from mpm_eval.probes.vectors import pairings

ALL = np.ones((60, 1))


def some(seed: int, shape: tuple[int, int] = (60, 10)) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def value_of(x: np.ndarray, y: np.ndarray) -> float:
    return float(cka(linear_kernel(x), linear_kernel(y), np.ones((len(x), 1)))[0])


def test_the_unbiased_hsic_is_the_mean_over_all_quadruples() -> None:
    # Song et al. 2012: the U-statistic with kernel k_ij (l_ij + l_qr - 2 l_iq)
    k, m = linear_kernel(some(0, (7, 3))), linear_kernel(some(1, (7, 3)))
    terms = [
        k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q]) for i, j, q, r in permutations(range(7), 4)
    ]
    assert hsic(k, m, np.ones((7, 1)))[0] == pytest.approx(np.mean(terms), rel=1e-9)


def test_a_subset_is_what_its_texts_alone_give() -> None:
    x, y = some(0), some(1) + some(0)
    mask = np.ones((60, 2))
    mask[20:, 1] = 0
    whole = cka(linear_kernel(x), linear_kernel(y), mask)
    # the unbiased estimate does not depend on what was taken away as the mean, nor on the scale
    assert whole[1] == pytest.approx(value_of(x[:20], y[:20]), rel=1e-9)


def test_a_space_is_like_itself_rotated_scaled_and_moved() -> None:
    x = some(0)
    rotation = ortho_group.rvs(10, random_state=1)
    assert value_of(x, x) == pytest.approx(1)
    assert value_of(x, 7 * x @ rotation + 100) == pytest.approx(1)
    assert value_of(x, x * np.linspace(1, 9, 10)) < 0.99, "not under an unequal scale"


def test_unrelated_spaces_are_near_zero_even_when_the_dimension_is_above_the_number() -> None:
    values = [value_of(some(2 * s, (60, 300)), some(2 * s + 1, (60, 300))) for s in range(20)]
    assert abs(np.mean(values)) < 0.02

    def biased(x: np.ndarray, y: np.ndarray) -> float:
        x, y = x - x.mean(axis=0), y - y.mean(axis=0)
        norms = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
        return float(np.linalg.norm(y.T @ x) ** 2 / norms)

    assert biased(some(0, (60, 300)), some(1, (60, 300))) > 0.7, "the trap that debiasing avoids"


def test_with_many_texts_it_is_the_linear_cka_of_its_paper() -> None:
    x = some(0, (1500, 3)) * [1, 2, 3]
    y = x @ some(1, (3, 4)) + some(2, (1500, 4))
    a, b = x - x.mean(axis=0), y - y.mean(axis=0)
    # Kornblith et al. 2019, equation 5 for the linear kernel
    expected = np.linalg.norm(b.T @ a) ** 2 / (np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b))
    assert value_of(x, y) == pytest.approx(expected, abs=5e-3)


@pytest.mark.parametrize("x", [np.ones((60, 3)), np.zeros((60, 3))])
def test_a_space_without_variance_has_no_value(x: np.ndarray) -> None:
    assert np.isnan(value_of(x, some(0)))
    assert np.isnan(rsa(distance_ranks(x), distance_ranks(some(0)), ALL)[0])


def test_three_texts_are_too_few() -> None:
    assert np.isnan(value_of(some(0, (3, 2)), some(1, (3, 2))))


def test_rsa_is_spearman_of_scipy_on_the_distances_of_scipy() -> None:
    x, y = some(0), some(0) + some(1)
    expected = spearmanr(pdist(x, "cosine"), pdist(y, "cosine")).statistic
    found = rsa(distance_ranks(x), distance_ranks(y), ALL)[0]
    assert found == pytest.approx(expected, rel=1e-9)


def test_rsa_of_a_subset_correlates_the_ranks_among_all_texts() -> None:
    x, y = distance_ranks(some(0)), distance_ranks(some(0) + some(1))
    mask = np.zeros((60, 1))
    mask[:25] = 1
    above = np.triu_indices(25, 1)
    expected = pearsonr(x[:25, :25][above], y[:25, :25][above]).statistic
    assert rsa(x, y, mask)[0] == pytest.approx(expected, rel=1e-9)


def test_rsa_knows_order_only_and_opposite_order() -> None:
    # on a circle: distances grow with the angle, whatever the size of the steps
    angle = np.linspace(0.1, 1.5, 12)
    x = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    ranks = distance_ranks(x)
    assert rsa(ranks, ranks, np.ones((12, 1)))[0] == pytest.approx(1)
    assert rsa(ranks, -ranks, np.ones((12, 1)))[0] == pytest.approx(-1)


def test_equal_distances_share_their_rank() -> None:
    ranks = distance_ranks(np.eye(4))
    assert ranks.tolist() == np.zeros((4, 4)).tolist()


def test_the_real_pairing_gives_the_measure_itself() -> None:
    x, y = some(0), some(0) + some(1)
    real = np.arange(60)[None]
    k, m = linear_kernel(x), linear_kernel(y)
    assert random_correlations(u_centred(k), u_centred(m), real)[0] == pytest.approx(
        cka(k, m, ALL)[0], rel=1e-5
    )
    r, s = distance_ranks(x), distance_ranks(y)
    assert random_correlations(r, s, real)[0] == pytest.approx(rsa(r, s, ALL)[0], rel=1e-5)


def test_a_random_pairing_moves_rows_and_columns_together() -> None:
    x, y = some(0), some(0) + some(1)
    order = pairings(60, 1)
    found = random_correlations(distance_ranks(x), distance_ranks(y), order)[0]
    moved = rsa(distance_ranks(x), distance_ranks(y[order[0]]), ALL)[0]
    assert found == pytest.approx(moved, rel=1e-4)


def test_random_pairings_are_around_zero_and_undefined_without_variance() -> None:
    k = u_centred(linear_kernel(some(0)))
    found = random_correlations(k, k, pairings(60, 200))
    assert abs(found.mean()) < 0.03 and np.quantile(found, 0.95) < 0.2
    assert np.isnan(random_correlations(k, np.zeros_like(k), pairings(60, 2))).all()
