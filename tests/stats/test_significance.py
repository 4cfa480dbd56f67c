"""Holm, McNemar and permutations against statsmodels, scipy and enumeration."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats as scipy_stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests

from mpm_eval.metrics.overlap import Bleu
from mpm_eval.stats import holm, mcnemar, permutation_test


def percent(totals: np.ndarray) -> np.ndarray:
    return np.asarray(100 * totals[..., 0] / totals[..., 1])


def rows(values: np.ndarray | list[float]) -> np.ndarray:
    return np.column_stack([np.asarray(values, float), np.ones(len(values))])


# --- Holm


@pytest.mark.parametrize("seed", range(5))
def test_holm_equals_statsmodels(seed: int) -> None:
    p_values = np.random.default_rng(seed).beta(0.3, 1, 30)
    p_values[3] = p_values[7]  # ties
    assert holm(p_values.tolist()) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_holm_gives_the_textbook_values() -> None:
    # 3 * 0.01, 2 * 0.02, and the last is no smaller than the one before
    assert holm([0.02, 0.01, 0.03]) == pytest.approx([0.04, 0.03, 0.04])


def test_tests_that_were_not_made_are_kept_as_none_and_not_counted() -> None:
    assert holm([None, 0.01, None, 0.04]) == [None, 0.02, None, 0.04]
    assert holm([None, None]) == [None, None]
    assert holm([]) == []


def test_adjusted_values_stop_at_1() -> None:
    assert holm([0.6, 0.9, 1.0]) == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
def test_a_p_value_outside_0_to_1_raises(p: float) -> None:
    with pytest.raises(ValueError, match="p-value"):
        holm([0.5, p])


# --- McNemar


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (5, 0), (3, 11), (40, 40), (200, 260)])
def test_mcnemar_equals_statsmodels_and_the_binomial_test(only_a: int, only_b: int) -> None:
    oracle = statsmodels_mcnemar([[50, only_a], [only_b, 50]], exact=True).pvalue
    assert mcnemar(only_a, only_b) == pytest.approx(oracle if only_a + only_b else 1.0)
    if only_a + only_b:
        binomial = scipy_stats.binomtest(only_a, only_a + only_b).pvalue
        assert mcnemar(only_a, only_b) == pytest.approx(binomial)


def test_five_changes_one_way_are_not_significant_and_six_are() -> None:
    assert mcnemar(5, 0) == 0.0625 and mcnemar(0, 6) == 0.03125


def test_a_negative_number_of_items_raises() -> None:
    with pytest.raises(ValueError, match="-1"):
        mcnemar(-1, 4)


# --- permutations


@pytest.mark.parametrize(("better", "worse"), [(5, 0), (7, 2), (3, 3)])
def test_swapping_single_answers_is_mcnemars_test(better: int, worse: int) -> None:
    a = np.array([0.0] * better + [1.0] * worse + [1.0, 0.0] * 40)
    b = np.array([1.0] * better + [0.0] * worse + [1.0, 0.0] * 40)
    found = permutation_test(rows(a), rows(b), range(len(a)), percent)
    assert found == pytest.approx(mcnemar(better, worse))


def test_a_small_test_is_the_enumeration_of_all_swaps() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, 24), rng.normal(0.4, 1, 24)
    clusters = [i // 3 for i in range(24)]
    gaps = (b - a).reshape(8, 3).sum(axis=1)
    sums = [abs(np.dot(signs, gaps)) for signs in itertools.product((1, -1), repeat=8)]
    expected = np.mean([total >= abs(gaps.sum()) - 1e-9 for total in sums])
    assert permutation_test(rows(a), rows(b), clusters, percent) == expected


def test_a_small_test_equals_scipys_permutation_test() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(0, 1, 10), rng.normal(0.8, 1, 10)
    oracle = scipy_stats.permutation_test(
        (a, b),
        lambda x, y, axis: (y - x).mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
    )
    assert permutation_test(rows(a), rows(b), range(10), percent) == pytest.approx(oracle.pvalue)


def test_a_large_test_is_near_the_t_test() -> None:
    rng = np.random.default_rng(2)
    a = rng.normal(0, 1, 120)
    b = a + rng.normal(0.18, 1, 120)
    found = permutation_test(rows(a), rows(b), range(120), percent)
    assert found == pytest.approx(scipy_stats.ttest_rel(a, b).pvalue, abs=0.015)


def test_a_large_test_is_never_zero_and_the_same_with_the_same_seed() -> None:
    a = np.zeros(60)
    assert permutation_test(rows(a), rows(a + 1), range(60), percent) == pytest.approx(1 / 10_001)
    b = np.random.default_rng(3).normal(0.1, 1, 60)
    found = [permutation_test(rows(a), rows(b), range(60), percent, seed=s) for s in (5, 5, 6)]
    assert found[0] == found[1] != found[2]


def test_the_size_of_a_chunk_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    b = np.random.default_rng(4).normal(0.1, 1, 12)
    whole = permutation_test(rows(np.zeros(12)), rows(b), range(12), percent)
    monkeypatch.setattr("mpm_eval.stats.significance._CHUNK_CELLS", 12 * 7)
    assert permutation_test(rows(np.zeros(12)), rows(b), range(12), percent) == whole


def test_copies_in_a_cluster_change_nothing() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.normal(0, 1, 9), rng.normal(0.5, 1, 9)
    once = permutation_test(rows(a), rows(b), range(9), percent)
    four = [i // 4 for i in range(36)]
    assert permutation_test(rows(np.repeat(a, 4)), rows(np.repeat(b, 4)), four, percent) == once


def test_runs_that_are_alike_have_a_p_value_of_1() -> None:
    a = np.random.default_rng(6).normal(0, 1, 30)
    assert permutation_test(rows(a), rows(a), range(30), percent) == 1.0


def test_a_corpus_metric_is_permuted_as_a_corpus_metric() -> None:
    rng = np.random.default_rng(7)
    bleu = Bleu()
    length = rng.integers(6, 12, 8)
    total = length[:, None] - np.arange(4)
    a, b = (
        np.column_stack([length, length, rng.binomial(total, kept), total]).astype(float)
        for kept in (0.8, 0.65)
    )
    gaps = []
    for swaps in itertools.product((False, True), repeat=8):
        swap = np.array(swaps)[:, None]
        one, other = np.where(swap, b, a), np.where(swap, a, b)
        gaps.append(abs(bleu.aggregate(one.sum(axis=0)) - bleu.aggregate(other.sum(axis=0))))
    expected = np.mean([gap >= gaps[0] - 1e-9 for gap in gaps])
    assert permutation_test(a, b, range(8), bleu.aggregate) == expected


def test_under_no_difference_5_in_100_are_below_0_05() -> None:
    rng = np.random.default_rng(8)
    p_values = []
    for _ in range(400):
        a, b = rng.gamma(0.5, 1, 12), rng.gamma(0.5, 1, 12)
        p_values.append(permutation_test(rows(a), rows(b), range(12), percent))
    assert 0.03 <= np.mean(np.array(p_values) <= 0.05) <= 0.07


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (rows([1.0, 0.0]), rows([1.0]), "keep only the items that both have"),
        (np.zeros((2, 2)), rows([1.0, 0.0]), "without a value"),
    ],
)
def test_runs_that_cannot_be_swapped_raise(a: np.ndarray, b: np.ndarray, message: str) -> None:
    with np.errstate(invalid="ignore"), pytest.raises(ValueError, match=message):
        permutation_test(a, b, range(len(a)), percent)


def test_no_permutations_raise() -> None:
    with pytest.raises(ValueError, match="num_permutations"):
        permutation_test(rows([1.0]), rows([0.0]), [0], percent, num_permutations=0)
