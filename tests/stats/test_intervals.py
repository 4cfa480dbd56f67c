"""Intervals against closed forms, scipy and simulated coverage."""

import math

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from mpm_eval.stats import (
    Aggregate,
    bootstrap,
    clopper_pearson,
    cluster_sums,
    estimate,
    interval,
    paired,
    wilson,
)


def mean(totals: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(totals[..., 0] / totals[..., 1])


def percent(totals: np.ndarray) -> np.ndarray:
    return 100 * mean(totals)


def rows(values: np.ndarray | list[float]) -> np.ndarray:
    return np.column_stack([np.asarray(values, float), np.ones(len(values))])


def normal(n: int, seed: int, location: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(location, 1.0, n)


def ci(found: tuple[float, float] | None) -> tuple[float, float]:
    assert found is not None
    return found


# --- clusters


def test_statistics_are_summed_by_cluster_in_sorted_order() -> None:
    sums = cluster_sums(np.array([[1.0, 1], [2, 1], [4, 1]]), ["b", "a", "b"])
    assert sums.tolist() == [[2, 1], [5, 2]]


def test_the_order_of_items_changes_no_bit() -> None:
    rng = np.random.default_rng(0)
    stats = rng.normal(size=(300, 3)) * 10.0 ** rng.integers(-8, 8, size=(300, 1))
    clusters = [f"image-{i}" for i in rng.integers(0, 20, 300)]
    order = rng.permutation(300)
    shuffled = cluster_sums(stats[order], [clusters[i] for i in order])
    assert np.array_equal(cluster_sums(stats, clusters), shuffled)


@pytest.mark.parametrize(
    ("stats", "clusters", "message"),
    [
        (np.zeros((0, 2)), [], "N > 0"),
        (np.zeros(3), ["a"] * 3, "shape"),
        (np.zeros((3, 2)), ["a"] * 2, "3 items and 2 clusters"),
        (np.zeros((2, 2)), ["a"] * 3, "2 items and 3 clusters"),
    ],
)
def test_empty_sets_and_unequal_lengths_raise(
    stats: np.ndarray, clusters: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        cluster_sums(stats, clusters)


# --- bootstrap


def test_the_standard_error_of_a_mean_is_the_closed_form() -> None:
    values = normal(400, seed=1)
    replicates = bootstrap(rows(values), mean, num_resamples=20_000, seed=3)
    expected = values.std() / math.sqrt(len(values))  # not divided by the root of resamples
    assert replicates.std() == pytest.approx(expected, rel=0.02)
    assert replicates.mean() == pytest.approx(values.mean(), abs=3 * expected / math.sqrt(20_000))


def test_the_interval_of_a_normal_mean_is_the_closed_form() -> None:
    values = normal(400, seed=2)
    low, high = ci(interval(bootstrap(rows(values), mean, num_resamples=20_000)))
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert low == pytest.approx(values.mean() - half, abs=0.05 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.05 * half)


def test_the_interval_is_scipys() -> None:
    from scipy import stats as scipy_stats

    values = np.random.default_rng(5).gamma(2.0, size=150)
    found = scipy_stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    low, high = ci(interval(bootstrap(rows(values), mean, num_resamples=20_000)))
    width = found.high - found.low
    assert low == pytest.approx(found.low, abs=0.03 * width)
    assert high == pytest.approx(found.high, abs=0.03 * width)


def test_a_ratio_of_sums_is_resampled_as_a_ratio_of_sums() -> None:
    from scipy import stats as scipy_stats

    rng = np.random.default_rng(6)
    lengths = rng.integers(1, 9, 120).astype(float)
    matches = rng.binomial(lengths.astype(int), 0.4).astype(float)
    found = scipy_stats.bootstrap(
        (matches, lengths),
        lambda m, n, axis: m.sum(axis=axis) / n.sum(axis=axis),
        n_resamples=10_000,
        method="percentile",
        paired=True,
        rng=np.random.default_rng(0),
    ).confidence_interval
    low, high = ci(
        interval(bootstrap(np.column_stack([matches, lengths]), mean, num_resamples=10_000))
    )
    width = found.high - found.low
    assert (low, high) == pytest.approx((found.low, found.high), abs=0.04 * width)


def test_copies_in_a_cluster_add_no_evidence() -> None:
    values = normal(60, seed=4)
    once = estimate(rows(values), [str(i) for i in range(60)], mean)
    copied = estimate(
        rows(np.repeat(values, 10)), [str(i) for i in range(60) for _ in range(10)], mean
    )
    assert copied.ci95 == pytest.approx(ci(once.ci95), abs=1e-12)
    taken_apart = estimate(rows(np.repeat(values, 10)), [str(i) for i in range(600)], mean)
    wide, narrow = (high - low for low, high in (ci(once.ci95), ci(taken_apart.ci95)))
    assert narrow == pytest.approx(wide / math.sqrt(10), rel=0.1)


def test_the_same_seed_gives_the_same_values_and_another_seed_others() -> None:
    sums = rows(normal(50, seed=0))
    assert np.array_equal(bootstrap(sums, mean, seed=7), bootstrap(sums, mean, seed=7))
    assert not np.array_equal(bootstrap(sums, mean, seed=7), bootstrap(sums, mean, seed=8))


def test_the_size_of_a_chunk_changes_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    sums = rows(normal(50, seed=0))
    whole = bootstrap(sums, mean, num_resamples=501, seed=11)
    monkeypatch.setattr("mpm_eval.stats.intervals._CHUNK_CELLS", 50 * 7)
    monkeypatch.setattr("mpm_eval.stats.intervals._CACHED_CELLS", 0)
    in_parts = bootstrap(sums, mean, num_resamples=501, seed=11)
    # a product of another shape may add in another order
    np.testing.assert_allclose(in_parts, whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("num_resamples", [0, -1])
def test_a_bootstrap_without_resamples_raises(num_resamples: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        bootstrap(rows([1.0, 2.0]), mean, num_resamples=num_resamples)


def test_a_bootstrap_of_nothing_raises() -> None:
    with pytest.raises(ValueError, match="C > 0"):
        bootstrap(np.zeros((0, 2)), mean)


# --- undefined resamples


def test_few_undefined_resamples_are_dropped_and_counted() -> None:
    # without one of three marked clusters the value is undefined: about (97/100)^100 = 4.8 %
    marks = np.zeros(100)
    marks[:3] = 1.0
    values = normal(100, seed=9)
    sums = np.column_stack([values, np.ones(100), marks])

    def needs_a_mark(totals: np.ndarray) -> np.ndarray:
        return np.where(totals[..., 2] > 0, mean(totals), np.nan)

    found = estimate(sums, [f"{i:03}" for i in range(100)], needs_a_mark, seed=1)
    assert 0 < found.num_undefined <= 100
    assert found.ci95 is not None and all(math.isfinite(end) for end in found.ci95)


def test_with_over_five_percent_undefined_there_is_no_interval() -> None:
    values = np.arange(100, dtype=float)
    values[:6] = np.nan
    assert interval(values) is None
    values[5] = 5
    assert interval(values) is not None


def test_a_value_that_is_undefined_is_none_and_not_nan() -> None:
    found = estimate(np.zeros((3, 2)), ["a", "b", "c"], mean)
    assert (found.value, found.ci95) == (None, None)
    assert "undefined" in found.method


def test_an_interval_of_no_values_raises() -> None:
    with pytest.raises(ValueError, match="no values"):
        interval(np.array([]))


# --- proportions


@pytest.mark.parametrize(
    ("k", "n", "expected"),
    [
        # Wilson 1927 without continuity correction; Newcombe 1998, table I, method 3
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
    ],
)
def test_wilson_gives_published_values(k: int, n: int, expected: tuple[float, float]) -> None:
    assert wilson(k, n) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize("k", [0, 3, 40, 50])
def test_wilson_equals_scipy(k: int) -> None:
    from scipy.stats import binomtest

    found = binomtest(k, 50).proportion_ci(method="wilson")
    assert wilson(k, 50) == pytest.approx((found.low, found.high), abs=1e-12)


@pytest.mark.parametrize("k", [0, 3, 40, 50])
@pytest.mark.parametrize("alpha", [0.05, 0.001])
def test_exact_and_score_intervals_equal_statsmodels(k: int, alpha: float) -> None:
    exact = proportion_confint(k, 50, alpha, method="beta")
    assert clopper_pearson(k, 50, alpha) == pytest.approx(exact, abs=1e-12)
    score = proportion_confint(k, 50, alpha, method="wilson")
    assert wilson(k, 50, alpha) == pytest.approx(score, abs=1e-12)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.37, 0.5])
@pytest.mark.parametrize("n", [8, 30, 100])
def test_the_exact_interval_never_covers_less_than_it_says(share: float, n: int) -> None:
    from scipy.stats import binom

    covers = [low <= share <= high for low, high in (clopper_pearson(k, n) for k in range(n + 1))]
    assert binom.pmf(np.arange(n + 1), n, share)[covers].sum() >= 0.95


@pytest.mark.parametrize(("k", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_an_interval_of_impossible_counts_raises(k: int, n: int) -> None:
    with pytest.raises(ValueError, match="hits"):
        wilson(k, n)
    with pytest.raises(ValueError, match="hits"):
        clopper_pearson(k, n)


@pytest.mark.parametrize("hit", [0.0, 1.0])
def test_all_right_or_all_wrong_still_has_a_width(hit: float) -> None:
    found = estimate(rows([hit] * 200), [str(i) for i in range(200)], percent)
    low, high = (100 * end for end in wilson(200 * hit, 200))
    assert found.ci95 == pytest.approx((low, high))
    assert "ci:wilson" in found.method


def test_items_of_one_cluster_count_as_one_trial_where_all_are_alike() -> None:
    found = estimate(rows([1.0] * 200), [str(i % 10) for i in range(200)], percent)
    assert found.ci95 == pytest.approx((100 * wilson(10, 10)[0], 100.0))


def test_a_small_proportion_gets_wilsons_interval_and_a_large_one_the_bootstraps() -> None:
    few = estimate(rows([1.0] * 5 + [0.0] * 15), [str(i) for i in range(20)], percent)
    low, high = wilson(5, 20)
    assert few.ci95 == pytest.approx((100 * low, 100 * high))
    many = estimate(rows([1.0] * 50 + [0.0] * 150), [str(i) for i in range(200)], percent)
    assert "ci:bootstrap" in many.method


def test_above_chance_maps_the_interval_of_the_share() -> None:
    stats = np.column_stack([[1.0] * 40, [0.25] * 40, [1.0] * 40])

    def above_chance(totals: np.ndarray) -> np.ndarray:
        return np.asarray(
            100 * (totals[..., 0] - totals[..., 1]) / (totals[..., 2] - totals[..., 1])
        )

    found = estimate(stats, [str(i) for i in range(40)], above_chance)
    low = wilson(40, 40)[0]
    assert found.ci95 == pytest.approx((100 * (low - 0.25) / 0.75, 100.0))


def test_a_mean_of_zeros_and_ones_on_another_scale_is_no_proportion() -> None:
    # CIDEr ends at 10, cosines may happen to be 0: Wilson would invent a scale
    assert "wilson" not in estimate(rows([0.0] * 9), list("abcdefghi"), mean).method


def test_one_cluster_gives_no_interval_unless_it_is_a_proportion_of_one() -> None:
    assert estimate(rows([0.3, 0.4]), ["a", "a"], mean).ci95 is None
    assert estimate(rows([1.0]), ["a"], percent).ci95 == pytest.approx((20.65, 100), abs=0.01)


# --- pairs


def pair(a: np.ndarray, b: np.ndarray, aggregate: Aggregate = mean, seed: int = 0) -> dict:  # type: ignore[type-arg]
    return dict(paired(rows(a), rows(b), aggregate, seed=seed))


def test_a_constant_gap_has_no_width_since_both_share_their_clusters() -> None:
    a = normal(80, seed=3, location=5)
    found = pair(a, a - 0.5)
    assert found["gap"].value == pytest.approx(0.5)
    assert found["gap"].ci95 == pytest.approx((0.5, 0.5))
    wide = found["a"].ci95[1] - found["a"].ci95[0]
    assert wide > 0.3


def test_the_gap_has_the_interval_of_the_mean_difference() -> None:
    a, b = normal(200, seed=1, location=3), normal(200, seed=2, location=2)
    found = pair(a, b)
    half = 1.96 * (a - b).std() / math.sqrt(200)
    middle = (a - b).mean()
    assert found["gap"].ci95 == pytest.approx((middle - half, middle + half), abs=0.15 * half)
    assert found["num_clusters"] == 200


def test_retention_is_b_over_a_with_its_own_interval() -> None:
    a = normal(200, seed=1, location=10)
    found = pair(a, 0.8 * a)
    assert found["retention"].value == pytest.approx(0.8)
    assert found["retention"].ci95 == pytest.approx((0.8, 0.8))


@pytest.mark.parametrize("location", [0.0, -3.0, 0.05])
def test_retention_of_a_pivot_that_is_not_above_zero_is_none(location: float) -> None:
    a = normal(100, seed=8)
    found = pair(a - a.mean() + location, normal(100, seed=9, location=4))
    assert found["retention"].value is None and found["retention"].ci95 is None
    assert found["gap"].value is not None


def test_equal_systems_have_a_p_value_of_1() -> None:
    a = normal(50, seed=0)
    assert pair(a, a)["p_value"] == 1.0


def test_a_pair_whose_clusters_are_all_alike_has_no_interval_of_width_zero() -> None:
    right, wrong = np.tile([1.0, 1.0], (40, 1)), np.tile([0.0, 1.0], (40, 1))
    found = paired(right, wrong, lambda totals: 100 * totals[..., 0] / totals[..., 1])
    assert (found["gap"].value, found["gap"].ci95) == (100.0, None)
    assert (found["retention"].value, found["retention"].ci95) == (0.0, None)
    assert found["gap"].method == "ci:none,all-alike"


def test_the_p_value_is_near_that_of_a_paired_t_test() -> None:
    from scipy.stats import ttest_rel

    a = normal(150, seed=1)
    b = a - 0.17 + normal(150, seed=2)
    assert pair(a, b)["p_value"] == pytest.approx(ttest_rel(a, b).pvalue, abs=0.02)


def test_a_p_value_is_never_zero() -> None:
    a = normal(50, seed=0, location=9)
    assert pair(a, a - 5)["p_value"] == pytest.approx(2 / 2001)


def test_pairing_different_clusters_raises() -> None:
    with pytest.raises(ValueError, match="keep only the clusters that both have"):
        paired(rows([1.0, 2.0]), rows([1.0]), mean)


def test_one_shared_cluster_gives_values_without_intervals() -> None:
    found = pair(np.array([2.0]), np.array([1.0]))
    assert found["gap"].value == 1 and found["gap"].ci95 is None
    assert found["p_value"] is None and found["retention"].value is None


# --- coverage


def coverage(draw: "object", truth: float, num_simulations: int = 500) -> float:
    covered = 0
    for simulation in range(num_simulations):
        stats, clusters = draw(np.random.default_rng(simulation))  # type: ignore[operator]
        low, high = ci(estimate(stats, clusters, mean, num_resamples=1000).ci95)
        covered += low <= truth <= high
    return covered / num_simulations


@pytest.mark.slow
def test_the_interval_of_independent_items_covers_the_truth_95_times_in_100() -> None:
    def draw(rng: np.random.Generator) -> tuple[np.ndarray, list[int]]:
        return rows(rng.gamma(2.0, size=200)), list(range(200))

    assert 0.93 <= coverage(draw, truth=2.0) <= 0.97


@pytest.mark.slow
def test_the_interval_of_clustered_items_covers_only_when_clusters_are_known() -> None:
    def draw(rng: np.random.Generator) -> tuple[np.ndarray, list[int]]:
        effects = np.repeat(rng.normal(0, 1, 150), 8)
        return rows(effects + rng.normal(0, 0.5, 1200)), [i // 8 for i in range(1200)]

    def forget_clusters(rng: np.random.Generator) -> tuple[np.ndarray, list[int]]:
        return draw(rng)[0], list(range(1200))

    assert 0.93 <= coverage(draw, truth=0.0) <= 0.97
    assert coverage(forget_clusters, truth=0.0, num_simulations=100) < 0.75
