"""Paired differences against closed forms, scipy, sacreBLEU and simulated coverage."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU
from scipy import stats as scipy_stats

from mpm_eval.metrics import Item
from mpm_eval.metrics.overlap import Bleu, Chrf, pad_references
from mpm_eval.stats import (
    Aggregate,
    Difference,
    Pair,
    bootstrap,
    cluster_sums,
    difference,
    differences,
    mcnemar,
    rule_of_three,
)


def percent(totals: np.ndarray) -> np.ndarray:
    count = totals[..., 1]
    share = np.divide(totals[..., 0], count, out=np.full(count.shape, np.nan), where=count != 0)
    return 100 * share


def rows(values: np.ndarray | list[float]) -> np.ndarray:
    return np.column_stack([np.asarray(values, float), np.ones(len(values))])


def compare(a: np.ndarray, b: np.ndarray, **options: int) -> Difference:
    return difference(rows(a), rows(b), range(len(a)), percent, **options)


def flips(n: int, better: int, worse: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two runs of n answers, half of them right, of which some change."""
    a = np.arange(n) % 2
    b = a.copy()
    b[np.flatnonzero(a == 0)[:better]] = 1
    b[np.flatnonzero(a == 1)[:worse]] = 0
    return a.astype(float), b.astype(float)


def ci(found: Difference) -> tuple[float, float]:
    assert found.ci95 is not None
    return found.ci95


def normal_pair(n: int, seed: int = 0, shift: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    a = rng.normal(2, 1, n)
    return a, a + rng.normal(shift, 1, n)


# --- closed forms


@pytest.mark.parametrize("n", [12, 30, 200])
def test_the_interval_and_p_value_are_those_of_a_paired_t_test(n: int) -> None:
    a, b = normal_pair(n)
    found, oracle = compare(a, b), scipy_stats.ttest_rel(b, a)
    low, high = (100 * end for end in oracle.confidence_interval())
    # wider by as much as two more clusters that differ
    widened = math.sqrt(1 + 2 / n) / math.sqrt(n / (n - 1))
    assert found.value == pytest.approx(100 * (b - a).mean())
    assert ci(found)[1] - ci(found)[0] == pytest.approx((high - low) * widened, rel=0.03)
    assert sum(ci(found)) / 2 == pytest.approx((low + high) / 2)
    assert found.p_value == pytest.approx(
        2 * scipy_stats.t.sf(abs(oracle.statistic) / widened, n - 1), rel=0.15
    )


def test_the_standard_error_of_shares_is_the_closed_form() -> None:
    a, b = flips(1000, better=90, worse=40)
    expected = 100 * math.sqrt((0.13 - 0.05**2) / 1000) * math.sqrt(1 + 2 / 130)
    assert compare(a, b).standard_error == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("worse", [3, 5, 6, 8])
def test_few_answers_that_all_change_for_the_worse_are_judged_like_the_exact_test(
    worse: int,
) -> None:
    a, b = flips(600, better=0, worse=worse)
    exact = mcnemar(worse, 0)
    assert 0.6 * exact < (compare(a, b).p_value or 0) < 1.6 * exact
    # a percentile bootstrap is wrong by a factor of up to six: e ** -5 for five answers
    values = bootstrap(np.column_stack([b - a, np.ones(600)]), percent, 10_000)
    assert 2 * float((values >= 0).mean()) < 0.8 * exact


def test_the_difference_of_copies_in_a_cluster_is_no_surer() -> None:
    a, b = normal_pair(40)
    names = [str(i) for i in range(40)]
    once = difference(rows(a), rows(b), names, percent)
    copied = difference(
        rows(np.repeat(a, 5)), rows(np.repeat(b, 5)), np.repeat(names, 5).tolist(), percent
    )
    assert copied.standard_error == pytest.approx(once.standard_error)
    assert (copied.n, copied.num_clusters) == (200, 40)


# --- bounds


@pytest.mark.parametrize("alpha", [0.025, 0.05, 0.05 / 50, 0.05 / 1000])
def test_bounds_at_any_level_are_the_quantiles_of_students_t(alpha: float) -> None:
    found = compare(*normal_pair(60))
    t = scipy_stats.t(59, loc=found.value, scale=found.standard_error)
    assert found.lower(alpha) == pytest.approx(t.ppf(alpha))
    assert found.upper(alpha) == pytest.approx(t.isf(alpha))


def test_the_interval_is_the_bounds_at_0_025() -> None:
    found = compare(*normal_pair(60))
    assert found.ci95 == (found.lower(0.025), found.upper(0.025))


@pytest.mark.parametrize("shift", [0.0, 0.2, 0.4, 1.0])
def test_the_p_value_is_the_level_at_which_the_interval_ends_at_zero(shift: float) -> None:
    found = compare(*normal_pair(80, shift=shift))
    assert found.p_value is not None and found.value is not None
    bound = found.lower if found.value > 0 else found.upper
    assert bound(found.p_value / 2) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, math.nan])
def test_a_level_outside_0_to_1_raises(alpha: float) -> None:
    with pytest.raises(ValueError, match="level"):
        compare(*normal_pair(10)).lower(alpha)


def test_another_order_of_the_runs_turns_the_sign() -> None:
    a, b = normal_pair(50)
    one, other = compare(a, b), compare(b, a)
    assert other.value == -(one.value or 0)
    assert ci(other) == pytest.approx((-ci(one)[1], -ci(one)[0]))
    assert other.p_value == pytest.approx(one.p_value)


def test_the_order_of_the_items_changes_nothing() -> None:
    rng = np.random.default_rng(4)
    a, b = normal_pair(90)
    clusters = [f"image-{i}" for i in rng.integers(0, 20, 90)]
    order = rng.permutation(90)
    shuffled = [clusters[i] for i in order]
    assert difference(rows(a), rows(b), clusters, percent) == difference(
        rows(a[order]), rows(b[order]), shuffled, percent
    )


# --- nothing to resample


def test_runs_that_are_alike_have_a_difference_of_zero_without_an_interval() -> None:
    a, _ = normal_pair(40)
    found = compare(a, a)
    assert (found.value, found.standard_error, found.ci95) == (0.0, 0.0, None)
    assert (found.p_value, found.method) == (1.0, "ci:none,all-alike")
    assert found.lower(0.05) is None and found.upper(0.05) is None


def test_changes_that_cancel_in_every_cluster_are_alike() -> None:
    a, b = np.array([1.0, 0, 1, 0]), np.array([0.0, 1, 0, 1])
    found = difference(rows(a), rows(b), ["x", "x", "y", "y"], percent)
    assert (found.value, found.method) == (0.0, "ci:none,all-alike")


def test_rounding_is_no_difference() -> None:
    a = np.full(40, 0.1)
    assert compare(a, a + 1e-17 * np.arange(40)).method == "ci:none,all-alike"


def test_the_rule_of_three_is_the_exact_bound_of_none_in_n() -> None:
    for n in (1, 10, 500):
        oracle = scipy_stats.binomtest(0, n).proportion_ci(0.9, method="exact")
        assert rule_of_three(n) == pytest.approx(oracle.high)
    assert rule_of_three(1000) == pytest.approx(3 / 1000, rel=0.01)
    with pytest.raises(ValueError, match="0 clusters"):
        rule_of_three(0)


def test_all_right_against_all_wrong_is_as_sure_as_swapping_signs() -> None:
    found = compare(np.ones(12), np.zeros(12))
    assert (found.value, found.standard_error) == (-100.0, 0.0)
    assert found.method == "ci:rule-of-three|clusters:12|paired"
    assert found.p_value == 2.0**-11
    assert found.upper(2.0**-12) == pytest.approx(0, abs=1e-9)
    assert ci(found)[1] == pytest.approx(-100 + 200 * rule_of_three(12, 0.025))


def test_one_cluster_gives_a_value_alone() -> None:
    found = difference(rows([1.0, 0.0]), rows([1.0, 1.0]), ["x", "x"], percent)
    assert (found.value, found.ci95, found.p_value) == (50.0, None, None)
    assert found.method == "ci:none,one-cluster" and found.lower(0.05) is None


def test_an_undefined_run_gives_no_difference() -> None:
    found = difference(np.zeros((3, 2)), rows([1.0, 0, 1]), range(3), percent)
    assert (found.a, found.value, found.ci95, found.p_value) == (None, None, None, None)
    assert found.b == pytest.approx(200 / 3) and found.method == "ci:none,undefined"


def test_with_over_five_percent_of_resamples_undefined_there_is_no_interval() -> None:
    a = np.column_stack([np.arange(30.0), np.zeros(30)])
    a[0, 1] = 1.0  # the only cluster with a count: left out of 36 % of the resamples
    found = difference(a, a + np.array([1.0, 0.0]), range(30), percent)
    assert found.value is not None and found.ci95 is None and found.standard_error is None
    assert found.method == "ci:none,resamples-undefined"


@pytest.mark.parametrize(
    ("a", "b", "clusters", "message"),
    [
        (rows([1.0, 0.0]), rows([1.0]), ["x", "y"], "keep only the items that both have"),
        (rows([1.0]), rows([0.0]), ["x", "y"], "1 items and 2 clusters"),
        (np.zeros((0, 2)), np.zeros((0, 2)), [], "N > 0"),
    ],
)
def test_items_that_do_not_match_raise(
    a: np.ndarray, b: np.ndarray, clusters: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        difference(a, b, clusters, percent)


@pytest.mark.parametrize("num_resamples", [1, 0, -5])
def test_too_few_resamples_raise(num_resamples: int) -> None:
    with pytest.raises(ValueError, match="num_resamples"):
        compare(*normal_pair(10), num_resamples=num_resamples)


# --- many cells


def test_many_cells_at_once_give_what_each_gives_alone() -> None:
    pairs = []
    for i, n in enumerate([25, 40, 25, 40, 25]):
        a, b = normal_pair(n, seed=i) if i % 2 else flips(n, 3, 5)
        pairs.append(Pair(rows(a), rows(b), range(n), percent))
    pairs.append(Pair(rows(np.ones(40)), rows(np.ones(40)), range(40), percent))
    together = differences(pairs)
    for pair, found in zip(pairs, together, strict=True):
        alone = difference(pair.stats_a, pair.stats_b, pair.clusters, pair.aggregate)
        assert found.ci95 == (None if alone.ci95 is None else pytest.approx(alone.ci95))
        assert found.method == alone.method and found.value == alone.value


def test_single_precision_changes_no_bit_of_counts() -> None:
    a, b = flips(300, 30, 20)
    with_halves = np.column_stack([rows(a), np.full(300, 0.5)])  # kept in double precision
    counts = compare(a, b)
    halves = difference(
        with_halves,
        np.column_stack([rows(b), np.full(300, 0.5)]),
        range(300),
        lambda totals: percent(totals[..., :2]),
    )
    assert halves == counts


@pytest.mark.parametrize(("level", "step"), [(1e9, 1.0), (0.7, 1e-7)])
def test_sums_that_single_precision_would_round_are_kept(level: float, step: float) -> None:
    rng = np.random.default_rng(1)
    gaps = rng.integers(0, 3, 50) * step
    a = np.full(50, level)
    expected = 100 * gaps.std() / math.sqrt(50) * math.sqrt(1 + 2 / np.count_nonzero(gaps))
    assert compare(a, a + gaps).standard_error == pytest.approx(expected, rel=0.03)


def test_the_same_seed_gives_the_same_difference_and_another_seed_another() -> None:
    a, b = normal_pair(50)
    assert compare(a, b, seed=3) == compare(a, b, seed=3)
    assert compare(a, b, seed=3).standard_error != compare(a, b, seed=4).standard_error


def test_no_cells_give_no_differences() -> None:
    assert differences([]) == []


# --- corpus metrics

WORDS = ["a", "the", "dog", "cat", "runs", "sits", "on", "in", "red", "park", "grass", "old", "man"]


def corpus(n: int, seed: int) -> tuple[list[str], list[str], list[str]]:
    rng = np.random.default_rng(seed)
    references = [" ".join(rng.choice(WORDS, rng.integers(6, 12))) for _ in range(n)]
    runs = [
        [
            " ".join(w if rng.random() < kept else str(rng.choice(WORDS)) for w in text.split())
            for text in references
        ]
        for kept in (0.9, 0.75)
    ]
    return references, runs[0], runs[1]


def test_a_bleu_from_resampled_statistics_is_the_bleu_of_resampled_texts() -> None:
    references, run_a, run_b = corpus(40, seed=0)
    clusters = [f"{i // 2:02}" for i in range(40)]  # two captions a picture
    bleu = Bleu()
    both = []
    for run in (run_a, run_b):
        items = [Item(o, (r,), "en") for o, r in zip(run, references, strict=True)]
        both.append(cluster_sums(bleu.statistics(items, "en"), clusters))

    def gap(totals: np.ndarray) -> np.ndarray:
        return bleu.aggregate(totals[..., 10:]) - bleu.aggregate(totals[..., :10])

    found = bootstrap(np.concatenate(both, axis=1), gap, num_resamples=5, seed=0)
    drawn = np.random.Generator(np.random.PCG64(0)).integers(0, 20, size=(5, 20))
    for value, pictures in zip(found, drawn, strict=True):
        chosen = [i for picture in pictures for i in (2 * picture, 2 * picture + 1)]
        scores = [
            BLEU().corpus_score([run[i] for i in chosen], [[references[i] for i in chosen]]).score
            for run in (run_a, run_b)
        ]
        assert value == pytest.approx(scores[1] - scores[0], abs=1e-9)


@pytest.mark.parametrize("metric", [Bleu(), Chrf()], ids=lambda m: m.name)
def test_the_standard_error_of_a_corpus_metric_is_that_of_rescoring_texts(
    metric: Bleu | Chrf,
) -> None:
    references, run_a, run_b = corpus(40, seed=1)
    stats = [
        metric.statistics([Item(o, (r,), "en") for o, r in zip(run, references, strict=True)], "en")
        for run in (run_a, run_b)
    ]
    found = difference(stats[0], stats[1], range(40), metric.aggregate)
    rng = np.random.default_rng(0)
    gaps = []
    for chosen in rng.integers(0, 40, size=(1000, 40)):
        a, b = (metric.aggregate(run[chosen].sum(axis=0)) for run in stats)
        gaps.append(float(b - a))
    widened = math.sqrt(1 + 2 / 40)
    assert found.standard_error == pytest.approx(np.std(gaps) * widened, rel=0.08)
    assert found.value is not None and found.value < 0 and (found.p_value or 1) < 0.01


def test_sacrebleus_corpus_scores_are_the_values_of_both_runs() -> None:
    references, run_a, run_b = corpus(40, seed=2)
    items = [
        [Item(o, (r,), "en") for o, r in zip(run, references, strict=True)]
        for run in (run_a, run_b)
    ]
    metric = Bleu()
    found = difference(
        metric.statistics(items[0], "en"),
        metric.statistics(items[1], "en"),
        range(40),
        metric.aggregate,
    )
    for value, run, side in ((found.a, run_a, items[0]), (found.b, run_b, items[1])):
        assert value == pytest.approx(BLEU().corpus_score(run, pad_references(side)).score)


# --- coverage

Draw = Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray, list[int]]]


def coverage(draw: Draw, truth: float, aggregate: Aggregate = percent) -> float:
    covered = 0
    for simulation in range(600):
        a, b, clusters = draw(np.random.default_rng([7, simulation]))
        low, high = ci(difference(a, b, clusters, aggregate, num_resamples=1000))
        covered += low <= truth <= high
    return covered / 600


@pytest.mark.slow
@pytest.mark.parametrize("n", [10, 30])
def test_the_interval_of_a_difference_of_means_covers_95_times_in_100(n: int) -> None:
    def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list[int]]:
        a = rng.normal(0, 1, n)
        return rows(a), rows(a + rng.normal(0.2, 1, n)), list(range(n))

    assert 0.93 <= coverage(draw, truth=20.0) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("num_clusters", [30, 100])
def test_the_interval_of_a_difference_of_clustered_shares_covers_95_times_in_100(
    num_clusters: int,
) -> None:
    def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list[int]]:
        pictures = np.repeat(np.arange(num_clusters), rng.integers(1, 16, num_clusters))
        a = rng.random(len(pictures)) < rng.beta(0.9, 0.6, num_clusters)[pictures]
        lost = rng.random(len(pictures)) < rng.beta(1, 9, num_clusters)[pictures]
        gained = rng.random(len(pictures)) < rng.beta(1, 19, num_clusters)[pictures]
        return rows(a), rows((a & ~lost) | (~a & gained)), pictures.tolist()

    assert 0.93 <= coverage(draw, truth=-4.0) <= 0.97


@pytest.mark.slow
def test_two_runs_that_do_not_differ_are_told_apart_5_times_in_100_or_less() -> None:
    found = 0
    for simulation in range(600):
        rng = np.random.default_rng([8, simulation])
        change = rng.random(200)
        a = np.where(change < 0.02, 0, np.where(change < 0.04, 1, rng.random(200) < 0.5))
        b = np.where(change < 0.04, 1 - a, a)
        found += (compare(a, b, num_resamples=1000).p_value or 0) <= 0.05
    assert found / 600 <= 0.05
