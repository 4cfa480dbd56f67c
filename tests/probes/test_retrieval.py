"""Retrieval: hits, ranks and margins against slow oracles, groups, ties, floors."""

import numpy as np
import pytest

from mpm_eval.probes.retrieval import (
    first_of,
    positions,
    random_hits,
    random_ranks,
    ranks,
    ratio_margin,
    retrieve,
)
from mpm_eval.probes.vectors import pairings, unit


def slow_hits(x_ND: np.ndarray, y_ND: np.ndarray) -> list[float]:
    """Return hits from x to y by three lines of Python."""

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.sqrt((a @ a) * (b @ b)))

    found = [max(range(len(y_ND)), key=lambda j: cosine(x, y_ND[j])) for x in x_ND]
    return [float(j == i) for i, j in enumerate(found)]


@pytest.mark.parametrize("centred", [False, True])
def test_hits_in_both_directions_equal_a_slow_oracle(centred: bool) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 8)) + 3
    y = x + 0.8 * rng.normal(size=(50, 8)) - 5
    hits_N2, _ = retrieve(x, y, range(50), range(50), centred=centred)
    if centred:
        x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    assert hits_N2[:, 0].tolist() == slow_hits(x, y)
    assert hits_N2[:, 1].tolist() == slow_hits(y, x)
    assert 0 < hits_N2.mean() < 1


def test_a_hub_is_a_hit_in_one_direction_only() -> None:
    # both x find the first y; each y finds its own x
    x = np.array([[1.0, 0.0], [0.8, 0.6]])
    y = np.array([[0.95, 0.31], [0.0, 1.0]])
    hits_N2, nearest_2N = retrieve(x, y, range(2), range(2))
    assert nearest_2N.tolist() == [[0, 0], [0, 1]]
    assert hits_N2.T.tolist() == [[1, 0], [1, 1]]


def test_three_texts_give_the_value_counted_by_hand() -> None:
    # x to y finds 0, 0, 2 (two right), y to x finds 0, 2, 2 (two right): 4 of 6
    x = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    y = np.array([[1.0, 0.0], [0.4, 0.6], [0.0, 1.0]])
    hits_N2, nearest_2N = retrieve(x, y, range(3), range(3))
    assert nearest_2N.tolist() == [[0, 0, 2], [0, 2, 2]]
    assert 100 * hits_N2.mean() == pytest.approx(200 / 3)


def test_random_vectors_stay_near_one_in_n_and_planted_translations_are_all_found() -> None:
    rng = np.random.default_rng(6)
    x = rng.normal(size=(300, 32))
    planted, _ = retrieve(x, x + 0.05 * rng.normal(size=x.shape), range(300), range(300))
    assert planted.mean() == 1
    hits_N2, nearest_2N = retrieve(x, rng.normal(size=x.shape), range(300), range(300))
    either_P, _ = random_hits(nearest_2N, range(300), range(300), pairings(300, 1000))
    assert hits_N2.mean() <= np.quantile(either_P, 0.95) < 0.02


def test_of_equal_neighbours_the_first_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mpm_eval.probes.retrieval.ROWS", 1)
    same = np.ones((4, 2))
    assert retrieve(same, same, range(4), range(4))[1].tolist() == [[0] * 4] * 2


def test_equal_texts_in_either_language_are_hits_for_each_other() -> None:
    x = np.eye(3)
    y = np.eye(3)[[1, 0, 2]]  # the first two are swapped
    assert retrieve(x, y, range(3), range(3))[0].mean(axis=1).tolist() == [0, 0, 1]
    assert retrieve(x, y, (0, 0, 2), range(3))[0].mean() == 1
    assert retrieve(x, y, range(3), (0, 0, 2))[0].mean() == 1


def test_centring_undoes_a_shift_by_language() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(60, 8))
    y = x + 100 * rng.normal(size=8)
    uncentred, _ = retrieve(x, y, range(60), range(60))
    centred, _ = retrieve(x, y, range(60), range(60), centred=True)
    assert uncentred.mean() < 0.5
    assert centred.mean() == 1


def test_the_length_of_vectors_does_not_matter_even_at_the_edge_of_single_precision() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(30, 8)).astype(np.float32)
    for scale in (1e-30, 1e30):
        hits_N2, _ = retrieve(x * np.float32(scale), x, range(30), range(30))
        assert hits_N2.mean() == 1


def test_a_vector_of_zeros_is_far_from_all_and_spoils_no_other() -> None:
    x, y = np.eye(3), np.eye(3)
    y[1] = 0
    hits_N2, _ = retrieve(x, y, range(3), range(3))
    assert hits_N2[:, 0].tolist() == [1, 0, 1]


def test_rows_may_be_compared_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(50, 4)), rng.normal(size=(50, 4))
    whole = retrieve(x, y, range(50), range(50))[1]
    monkeypatch.setattr("mpm_eval.probes.retrieval.ROWS", 7)
    np.testing.assert_array_equal(retrieve(x, y, range(50), range(50))[1], whole)


def test_random_pairings_hit_as_often_as_two_loops_count() -> None:
    rng = np.random.default_rng(5)
    nearest, x_groups, y_groups = (
        rng.integers(0, 60, (2, 60)),
        range(60),
        [i // 10 for i in range(60)],
    )
    pairing_PN = pairings(60, 30)
    either_P, both_P = random_hits(nearest, x_groups, y_groups, pairing_PN)
    for index, pairing in enumerate(pairing_PN.tolist()):
        there = [y_groups[nearest[0, i]] == y_groups[pairing[i]] for i in range(60)]
        back = [y_groups[pairing[nearest[1, j]]] == y_groups[j] for j in range(60)]
        assert either_P[index] == pytest.approx((np.mean(there) + np.mean(back)) / 2)
        both = [there[i] and back[pairing[i]] for i in range(60)]
        assert both_P[index] == pytest.approx(np.mean(both))
    # the languages change places, their neighbours too
    assert random_hits(nearest[::-1], [0] * 60, x_groups, pairing_PN)[0].tolist() == [1.0] * 30


def test_random_pairings_hit_one_in_n() -> None:
    rng = np.random.default_rng(4)
    nearest = np.stack([rng.integers(0, 100, 100), rng.integers(0, 100, 100)])
    either_P, both_P = random_hits(nearest, range(100), range(100), pairings(100, 1000))
    assert either_P.mean() == pytest.approx(0.01, abs=0.001)
    # each direction hits about Poisson(1) times in 100: the mean of two has its 95 % at 2 or 2.5
    assert 0.015 <= np.quantile(either_P, 0.95) <= 0.03
    assert both_P.max() <= either_P.max()


def slow_margin(x: np.ndarray, y: np.ndarray, i: int, j: int, k: int) -> float:
    """Return equation 3 of Artetxe & Schwenk 2019 by loops: cos / (sum over both NN_k) / 2k."""

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.sqrt((a @ a) * (b @ b)))

    forth = sorted((cosine(x[i], z) for z in y), reverse=True)[:k]
    back = sorted((cosine(y[j], z) for z in x), reverse=True)[:k]
    return cosine(x[i], y[j]) / (sum(forth) / (2 * k) + sum(back) / (2 * k))


def test_the_ratio_margin_equals_the_formula_of_its_paper() -> None:
    rng = np.random.default_rng(7)
    x = rng.normal(size=(20, 6)) + 2
    y = x + rng.normal(size=(20, 6))
    order = pairings(20, 2)
    found, random_P = ratio_margin(unit(x), unit(y), range(20), range(20), order)
    expected = [slow_margin(x, y, i, i, 4) for i in range(20)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    for mean, to_y in zip(random_P, order.tolist(), strict=True):
        shuffled = [slow_margin(x, y, i, j, 4) for i, j in enumerate(to_y)]
        assert mean == pytest.approx(np.mean(shuffled), rel=1e-5)


def test_equal_vectors_have_the_margin_one_and_a_random_pairing_too() -> None:
    same = unit(np.ones((6, 3)))
    found, random_P = ratio_margin(same, same, range(6), range(6), pairings(6, 5))
    np.testing.assert_allclose(found, 1, rtol=1e-6)
    np.testing.assert_allclose(random_P, 1, rtol=1e-6)


def test_a_repeated_text_is_one_neighbour() -> None:
    rng = np.random.default_rng(8)
    x, y = unit(rng.normal(size=(8, 4)) + 2), unit(rng.normal(size=(8, 4)) + 2)
    once, _ = ratio_margin(x, y, range(8), range(8), pairings(8, 2))
    twice, _ = ratio_margin(
        np.repeat(x, 2, axis=0),
        np.repeat(y, 2, axis=0),
        np.repeat(range(8), 2).tolist(),
        np.repeat(range(8), 2).tolist(),
        pairings(16, 2),
    )
    np.testing.assert_allclose(twice[::2], once, rtol=1e-6)


def test_a_margin_of_neighbours_that_point_away_is_undefined() -> None:
    x, y = np.array([[1.0, 0.0]] * 2), np.array([[-1.0, 0.0]] * 2)
    found, random_P = ratio_margin(x, y, range(2), range(2), pairings(2, 2))
    assert np.isnan(found).all() and np.isnan(random_P).all()


def test_ranks_are_counted_by_hand() -> None:
    query = np.array([[1.0, 0.0], [0.0, 1.0]])
    candidates = unit(np.array([[1.0, 0.1], [1.0, 0.5], [0.5, 1.0]]))
    right = np.array([[False, True, False], [True, False, True]])
    # the first finds its own second; the second has two right ones, the nearer counts
    assert ranks(query, candidates, right).tolist() == [2, 1]


def test_a_collapsed_space_gets_the_last_rank_and_no_credit() -> None:
    same = np.ones((5, 2)) / np.sqrt(2)
    assert ranks(same, same, np.eye(5, dtype=bool)).tolist() == [5] * 5


def test_a_query_without_a_right_candidate_is_never_found() -> None:
    assert ranks(np.eye(2), np.eye(2), np.zeros((2, 2), dtype=bool)).tolist() == [3, 3]


def test_ranks_equal_a_sort_of_the_cosines(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(9)
    x, y = unit(rng.normal(size=(30, 5))), unit(rng.normal(size=(40, 5)))
    right = rng.random((30, 40)) < 0.1
    right[:, 0] = True
    monkeypatch.setattr("mpm_eval.probes.retrieval.ROWS", 7)
    expected = []
    for i in range(30):
        order = sorted(range(40), key=lambda j: -float(x[i] @ y[j]))
        expected.append(1 + min(order.index(j) for j in range(40) if right[i, j]))
    assert ranks(x, y, right).tolist() == expected
    position = positions(x, y)
    assert [sorted(row) for row in position.tolist()] == [list(range(1, 41))] * 30
    assert [position[i][right[i]].min() for i in range(30)] == expected


def test_random_ranks_are_those_of_the_pictures_that_the_lot_gives() -> None:
    position = np.array([[1, 2, 3], [2, 1, 3], [3, 1, 2]])
    pairing = np.array([[0, 1, 2], [1, 2, 0]])
    found = random_ranks(position, np.arange(3), np.arange(3), pairing)
    assert found.tolist() == [[1, 1, 2], [2, 3, 3]]
    # a query in two pairs keeps the better rank
    twice = random_ranks(position, np.array([0, 0, 1]), np.arange(3), pairing)
    assert twice.tolist() == [[1, 1, 3], [2, 2, 2]]


def test_the_first_row_of_each_group() -> None:
    assert first_of([0, 0, 2, 2, 4]).tolist() == [0, 2, 4]
