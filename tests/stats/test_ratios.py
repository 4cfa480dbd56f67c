"""Ratios of means against Fieller's closed form, scipy and simulated coverage."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from mpm_eval.stats import fieller, ratio_of_means


def ci(found: tuple[float, float] | None) -> tuple[float, float]:
    assert found is not None
    return found


def scores(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.gamma(4, 1, n)
    return 0.8 * y + rng.normal(0, 1, n), y


def test_the_value_is_a_ratio_of_sums_and_no_mean_of_ratios() -> None:
    found = ratio_of_means(np.array([1.0, 1, 4]), np.array([2.0, 0, 4]), ["a", "b", "c"])
    assert found.value == 1.0


def test_the_ends_of_fiellers_interval_are_where_a_t_test_ends() -> None:
    x, y = scores(20)
    for end in ci(fieller(x, y)):
        assert scipy_stats.ttest_1samp(x - end * y, 0).pvalue == pytest.approx(0.05)


def test_fiellers_interval_is_that_of_its_published_formula() -> None:
    # Finney 1978: (r - g vxy / vyy ± t / y sqrt(vxx - 2 r vxy + r² vyy - g (vxx - vxy² / vyy)))
    # / (1 - g), g = t² vyy / y²
    x, y = scores(30, seed=1)
    (vxx, vxy), (_, vyy) = np.cov(x, y) / 30
    t, r = scipy_stats.t.ppf(0.975, 29), x.mean() / y.mean()
    g = t**2 * vyy / y.mean() ** 2
    root = np.sqrt(vxx - 2 * r * vxy + r * r * vyy - g * (vxx - vxy**2 / vyy))
    ends = [(r - g * vxy / vyy + sign * t / y.mean() * root) / (1 - g) for sign in (-1, 1)]
    assert fieller(x, y) == pytest.approx(tuple(ends))


@pytest.mark.parametrize("n", [100, 400])
def test_the_bootstrap_interval_is_near_fiellers(n: int) -> None:
    x, y = scores(n)
    found = ratio_of_means(x, y, range(n))
    low, high = ci(fieller(x, y))
    assert ci(found.ci95) == pytest.approx((low, high), abs=0.08 * (high - low))
    assert found.method.startswith("ci:bootstrap,percentile|resamples:10000")


def test_the_bootstrap_interval_is_scipys() -> None:
    x, y = scores(100)
    oracle = scipy_stats.bootstrap(
        (x, y),
        lambda x, y, axis: x.sum(axis=axis) / y.sum(axis=axis),
        paired=True,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    found = ci(ratio_of_means(x, y, range(100)).ci95)
    assert found == pytest.approx(tuple(oracle), abs=0.05 * (oracle.high - oracle.low))


def test_few_clusters_get_fiellers_interval() -> None:
    x, y = scores(20)
    found = ratio_of_means(x, y, range(20))
    assert found.ci95 == fieller(x, y) and found.method == "ci:fieller|clusters:20"


def test_copies_in_a_cluster_add_no_evidence() -> None:
    x, y = scores(50)
    copied = ratio_of_means(np.repeat(x, 4), np.repeat(y, 4), [i // 4 for i in range(200)])
    assert ci(copied.ci95) == pytest.approx(ci(ratio_of_means(x, y, range(50)).ci95))


@pytest.mark.parametrize("n", [10, 60])
def test_a_denominator_that_may_be_zero_gives_no_interval(n: int) -> None:
    rng = np.random.default_rng(2)
    y = rng.normal(0, 1, n)
    found = ratio_of_means(rng.normal(1, 1, n), y - y.mean() + 0.05, range(n))
    assert found.value is not None and found.ci95 is None
    assert found.method == "ci:none,denominator-near-0"


def test_a_denominator_at_or_below_zero_gives_no_value() -> None:
    for y in (np.zeros(5), -np.ones(5)):
        found = ratio_of_means(np.ones(5), y, range(5))
        assert (found.value, found.ci95, found.method) == (None, None, "ci:none,undefined")


def test_a_constant_ratio_has_no_interval_of_width_zero() -> None:
    _, y = scores(40)
    found = ratio_of_means(0.8 * y, y, range(40))
    assert found.value == pytest.approx(0.8) and found.ci95 is None
    assert found.method == "ci:none,all-alike"


def test_one_cluster_gives_a_value_alone() -> None:
    found = ratio_of_means(np.ones(3), np.ones(3) * 2, ["a"] * 3)
    assert (found.value, found.ci95, found.method) == (0.5, None, "ci:none,one-cluster")


def test_unequal_lengths_and_empty_sets_raise() -> None:
    with pytest.raises(ValueError, match="3 items and 2"):
        ratio_of_means(np.ones(3), np.ones(2), range(3))
    with pytest.raises(ValueError, match="3 items and 2 clusters"):
        ratio_of_means(np.ones(3), np.ones(3), range(2))
    with pytest.raises(ValueError, match="N > 0"):
        ratio_of_means(np.ones(0), np.ones(0), [])
    with pytest.raises(ValueError, match="1 and 1 clusters"):
        fieller(np.ones(1), np.ones(1))


@pytest.mark.slow
@pytest.mark.parametrize("n", [12, 60])
def test_the_interval_covers_95_times_in_100(n: int) -> None:
    covered = 0
    for simulation in range(600):
        x, y = scores(n, seed=1000 + simulation)
        low, high = ci(ratio_of_means(x, y, range(n), num_resamples=1000).ci95)
        covered += low <= 0.8 <= high
    assert 0.93 <= covered / 600 <= 0.97
