"""BCa and studentised intervals against scipy, a plain loop and simulated coverage."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats as scipy_stats

from mpm_eval.metrics.overlap import Bleu
from mpm_eval.stats import bca, bootstrap, interval, studentised

Interval = Callable[..., tuple[float, float] | None]


def mean(totals: np.ndarray) -> np.ndarray:
    return np.asarray(totals[..., 0] / totals[..., 1])


def rows(values: np.ndarray | list[float]) -> np.ndarray:
    return np.column_stack([np.asarray(values, float), np.ones(len(values))])


def ci(found: tuple[float, float] | None) -> tuple[float, float]:
    assert found is not None
    return found


def skewed(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).gamma(0.5, size=n)


def test_bca_is_scipys() -> None:
    values = skewed(60)
    oracle = scipy_stats.bootstrap(
        (values,), np.mean, n_resamples=40_000, method="BCa", rng=np.random.default_rng(1)
    ).confidence_interval
    found = ci(bca(rows(values), mean, num_resamples=40_000))
    assert found == pytest.approx(tuple(oracle), abs=0.03 * (oracle.high - oracle.low))


def test_bca_of_a_ratio_is_scipys() -> None:
    rng = np.random.default_rng(2)
    lengths = rng.integers(1, 20, 50).astype(float)
    hits = rng.binomial(lengths.astype(int), 0.2).astype(float)
    oracle = scipy_stats.bootstrap(
        (hits, lengths),
        lambda x, y, axis: x.sum(axis=axis) / y.sum(axis=axis),
        paired=True,
        n_resamples=40_000,
        method="BCa",
        rng=np.random.default_rng(1),
    ).confidence_interval
    found = ci(bca(np.column_stack([hits, lengths]), mean, num_resamples=40_000))
    assert found == pytest.approx(tuple(oracle), abs=0.03 * (oracle.high - oracle.low))


def test_bca_moves_the_percentiles_towards_the_tail() -> None:
    sums = rows(skewed(60))
    percentile = ci(interval(bootstrap(sums, mean, 10_000)))
    corrected = ci(bca(sums, mean))
    assert corrected[0] > percentile[0] and corrected[1] > percentile[1]


def test_the_studentised_interval_is_that_of_a_plain_loop() -> None:
    values = skewed(25)
    drawn = np.random.Generator(np.random.PCG64(3)).integers(0, 25, size=(800, 25))
    pivots = [
        (values[chosen].mean() - values.mean()) / (values[chosen].std() / 5) for chosen in drawn
    ]
    low, high = np.quantile(pivots, [0.025, 0.975])
    error = values.std() / 5
    expected = (values.mean() - high * error, values.mean() - low * error)
    found = ci(studentised(rows(values), mean, num_resamples=800, seed=3))
    assert found == pytest.approx(expected, rel=1e-6)


def test_the_studentised_interval_of_normal_values_is_students() -> None:
    values = np.random.default_rng(4).normal(5, 1, 15)
    oracle = scipy_stats.ttest_1samp(values, 0).confidence_interval()
    found = ci(studentised(rows(values), mean, num_resamples=40_000))
    assert found == pytest.approx(tuple(oracle), abs=0.12 * (oracle.high - oracle.low))
    percentile = ci(interval(bootstrap(rows(values), mean, 40_000)))
    assert found[1] - found[0] > 1.1 * (percentile[1] - percentile[0])


@pytest.mark.parametrize("method", [bca, studentised])
def test_they_work_on_a_corpus_metric(method: Interval) -> None:
    rng = np.random.default_rng(5)
    length = rng.integers(6, 16, 200)
    total = length[:, None] - np.arange(4)
    match = rng.binomial(total, rng.beta(4, 2, 200)[:, None] ** np.arange(1, 5))
    stats = np.column_stack([length, length + 1, match, total]).astype(float)
    found = ci(method(stats, Bleu().aggregate, num_resamples=2000))
    percentile = ci(interval(bootstrap(stats, Bleu().aggregate)))
    width = percentile[1] - percentile[0]
    assert found == pytest.approx(percentile, abs=0.15 * width)


def test_a_statistic_that_is_always_zero_does_no_harm() -> None:
    values = skewed(30)
    wide = np.column_stack([rows(values), np.zeros(30)])
    found = ci(studentised(wide, lambda t: mean(t) + t[..., 2] ** 2))
    assert found == pytest.approx(ci(studentised(rows(values), mean)), rel=1e-6)


@pytest.mark.parametrize("method", [bca, studentised])
def test_equal_clusters_and_a_single_one_give_no_interval(method: Interval) -> None:
    assert method(rows([0.5] * 40), mean) is None
    assert method(rows([0.5]), mean) is None


@pytest.mark.parametrize("method", [bca, studentised])
def test_with_over_five_percent_undefined_there_is_no_interval(method: Interval) -> None:
    sums = np.column_stack([skewed(40), np.zeros(40)])
    sums[:2, 1] = 1.0  # neither is drawn in 13 % of the resamples

    def share(totals: np.ndarray) -> np.ndarray:
        count = totals[..., 1]
        out = np.full(np.shape(count), np.nan)
        return np.divide(totals[..., 0], count, out=out, where=count > 0)

    assert method(sums, share) is None


@pytest.mark.parametrize("method", [bca, studentised])
def test_the_same_seed_gives_the_same_interval(method: Interval) -> None:
    sums = rows(skewed(40))
    assert method(sums, mean, seed=1) == method(sums, mean, seed=1) != method(sums, mean, seed=2)


@pytest.mark.parametrize("method", [bca, studentised])
def test_a_higher_level_gives_a_wider_interval(method: Interval) -> None:
    sums = rows(skewed(40))
    usual, wide = ci(method(sums, mean)), ci(method(sums, mean, alpha=0.01))
    assert wide[0] < usual[0] and wide[1] > usual[1]
    with pytest.raises(ValueError, match="level"):
        method(sums, mean, alpha=1.5)


def coverage(method: Interval, n: int) -> float:
    covered = 0
    for simulation in range(600):
        sums = rows(skewed(n, seed=simulation))
        low, high = ci(method(sums, mean))
        covered += low <= 0.5 <= high
    return covered / 600


@pytest.mark.slow
def test_of_few_skewed_values_only_the_studentised_interval_covers() -> None:
    def percentile(sums: np.ndarray, aggregate: Callable[[np.ndarray], np.ndarray]) -> object:
        return interval(bootstrap(sums, aggregate, 1000))

    def narrow(sums: np.ndarray, aggregate: Callable[[np.ndarray], np.ndarray]) -> object:
        return studentised(sums, aggregate, num_resamples=1000)

    assert coverage(percentile, 20) < 0.90  # type: ignore[arg-type]
    assert 0.93 <= coverage(narrow, 20) <= 0.97  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_bca_interval_of_many_skewed_values_covers_95_times_in_100() -> None:
    def corrected(sums: np.ndarray, aggregate: Callable[[np.ndarray], np.ndarray]) -> object:
        return bca(sums, aggregate, num_resamples=1000)

    assert 0.93 <= coverage(corrected, 200) <= 0.97  # type: ignore[arg-type]


def test_no_clusters_raise() -> None:
    for method in (bca, studentised):
        with pytest.raises(ValueError, match="C > 0"):
            method(np.zeros((0, 2)), mean)
    assert math.isfinite(ci(bca(rows(skewed(10)), mean))[0])
