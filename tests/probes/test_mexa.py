"""MEXA: a matrix counted by hand, loops, ties, equal texts."""

import numpy as np
import pytest

from mpm_eval.probes.mexa import mexa_hits
from mpm_eval.probes.vectors import unit


def with_cosines(c_NN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return unit rows x and y whose cosines are c_NN: x is the first axes, y has the rest."""
    N = len(c_NN)
    rest = np.sqrt(1 - (c_NN**2).sum(axis=0))
    return np.eye(2 * N)[:N], np.concatenate([c_NN.T, np.diag(rest)], axis=1)


def test_three_pairs_counted_by_hand() -> None:
    # pair 0: .6 is above its row (.2, .1) and its column (.3, .2): 1
    # pair 1: .5 is above its row (.3, .4), but not above .55 in its column: 0
    # pair 2: .3 is below .55 in its row: 0
    c = np.array([[0.6, 0.2, 0.1], [0.3, 0.5, 0.4], [0.2, 0.55, 0.3]])
    x, y = with_cosines(c)
    np.testing.assert_allclose(unit(x) @ unit(y).T, c, atol=1e-6)
    assert mexa_hits(x, y, range(3), range(3)).tolist() == [1, 0, 0]


def test_hits_equal_the_definition_by_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 6))
    y = x + rng.normal(size=(40, 6))
    c = unit(x) @ unit(y).T
    expected = [
        float(all(c[i, i] > c[i, j] and c[i, i] > c[j, i] for j in range(40) if j != i))
        for i in range(40)
    ]
    assert 0 < sum(expected) < 40
    monkeypatch.setattr("mpm_eval.probes.retrieval.ROWS", 7)
    assert mexa_hits(x, y, range(40), range(40)).tolist() == expected


def test_one_vector_for_everything_scores_nothing() -> None:
    assert mexa_hits(np.ones((5, 3)), np.ones((5, 3)), range(5), range(5)).sum() == 0


def test_a_pair_with_the_same_text_does_not_count_against() -> None:
    x = np.array([[1.0, 0.0, 0.0], [0.9, 0.1, 0.0], [0.0, 0.0, 1.0]])
    y = np.eye(3)[[0, 0, 2]]  # two texts of y are equal
    assert mexa_hits(x, y, range(3), range(3)).tolist() == [0, 0, 1]
    assert mexa_hits(x, y, range(3), (0, 0, 2)).tolist() == [1, 1, 1]
