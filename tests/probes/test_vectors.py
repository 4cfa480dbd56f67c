"""Vectors: unit rows of any size; halves and pairings."""

import numpy as np
import pytest

from mpm_eval.probes.vectors import halves, pairings, scaled, unit


def test_rows_have_length_one_and_zeros_stay() -> None:
    found = unit(np.array([[3.0, 4.0], [0.0, 0.0]]))
    assert found.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0, 0]]


def test_the_mean_row_is_taken_away_before_the_length() -> None:
    found = unit(np.array([[101.0, 50.0], [99.0, 50.0]]), centred=True)
    np.testing.assert_allclose(found, [[1, 0], [-1, 0]], atol=1e-6)


@pytest.mark.parametrize("size", [1e-30, 1e38])
def test_the_edge_of_single_precision_does_not_overflow(size: float) -> None:
    x = np.array([[1.0, 2.0], [2.0, 1.0]], dtype=np.float32) * np.float32(size)
    np.testing.assert_allclose(unit(x), unit(x / np.float32(size)), rtol=1e-6)
    assert np.isfinite(scaled(x, centred=True)).all()


def test_half_precision_is_widened() -> None:
    assert unit(np.array([[60000, 60000]], dtype=np.float16)).tolist() == [
        [pytest.approx(2**-0.5)] * 2
    ]


def test_the_first_subset_is_all_and_the_others_are_halves_of_the_clusters() -> None:
    clusters = [f"c{i // 2}" for i in range(20)]
    mask_NM = halves(clusters, num_halves=50)
    assert mask_NM[:, 0].tolist() == [1] * 20
    assert mask_NM[:, 1:].sum(axis=0).tolist() == [10] * 50
    assert (mask_NM[::2] == mask_NM[1::2]).all(), "a cluster is in or out as a whole"
    assert len({tuple(column) for column in mask_NM.T.tolist()}) > 30


def test_halves_spread_a_mean_as_its_standard_error_says() -> None:
    x = np.random.default_rng(0).normal(size=400)
    mask_NM = halves(range(400), num_halves=2000)[:, 1:]
    spread = ((x @ mask_NM) / 200).std()
    assert spread == pytest.approx(x.std(ddof=1) / np.sqrt(400), rel=0.06)


def test_pairings_are_permutations_that_the_seed_fixes() -> None:
    found = pairings(30, 20)
    assert [sorted(row) for row in found.tolist()] == [list(range(30))] * 20
    assert (found == pairings(30, 20)).all() and (found != pairings(30, 20, seed=1)).any()
