"""Ratios of two sums over the same items: relative score, retention.

Shapes: N items, C clusters.
"""

import math
from collections.abc import Hashable, Sequence

import numpy as np
from scipy.special import stdtrit

from mpm_eval.stats.intervals import (
    ALPHA,
    MIN_CLUSTERS,
    Estimate,
    bootstrap,
    check_level,
    cluster_sums,
    interval,
)


def ratio_of_means(
    x_N: np.ndarray,
    y_N: np.ndarray,
    clusters: Sequence[Hashable],
    *,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> Estimate:
    """Return sum x / sum y with its 95 % interval, both resampled on the same clusters.

    A ratio of sums, not a mean of ratios: an item with y = 0 is welcome. Percentile bootstrap;
    Fieller's interval below 30 clusters. Without a value where sum y is not above 0, without an
    interval where it may not be. Raises ValueError for no items or unequal lengths.
    """
    if len(x_N) != len(y_N):
        raise ValueError(f"stats: a ratio of {len(x_N)} items and {len(y_N)}")
    sums_C2 = cluster_sums(np.column_stack([x_N, y_N]), clusters)
    C = len(sums_C2)
    value = float(_ratio(sums_C2.sum(axis=0)))
    if math.isnan(value):
        return Estimate(None, None, "ci:none,undefined")
    if C < 2:
        return Estimate(value, None, "ci:none,one-cluster")
    closed = fieller(sums_C2[:, 0], sums_C2[:, 1])
    if closed is None:
        return Estimate(value, None, "ci:none,denominator-near-0")
    if closed[1] - closed[0] <= 1e-12 * abs(value):
        return Estimate(value, None, "ci:none,all-alike")
    if C < MIN_CLUSTERS:
        return Estimate(value, closed, f"ci:fieller|clusters:{C}")
    values_B = bootstrap(sums_C2, _ratio, num_resamples, seed)
    method = f"ci:bootstrap,percentile|resamples:{num_resamples}|seed:{seed}|clusters:{C}"
    undefined = int(np.isnan(values_B).sum())
    ci95 = interval(values_B)
    return Estimate(value, ci95, method if ci95 else "ci:none,resamples-undefined", undefined)


def fieller(x_C: np.ndarray, y_C: np.ndarray, alpha: float = ALPHA) -> tuple[float, float] | None:
    """Return Fieller's interval (1954) of sum x / sum y from sums per cluster.

    The ratios r at which the mean of x - r y is not told from 0 by Student's t with C - 1 degrees
    of freedom; exact for normal sums. None where the mean of y is not told from 0 or below it:
    then no end is sure. Raises ValueError for unequal lengths or fewer than two clusters.
    """
    check_level(alpha)
    C = len(x_C)
    if C < 2 or len(y_C) != C:
        raise ValueError(f"stats: Fieller's interval of {C} and {len(y_C)} clusters")
    x, y = float(np.mean(x_C)), float(np.mean(y_C))
    (vxx, vxy), (_, vyy) = (np.cov(x_C, y_C) / C).tolist()
    t2 = float(stdtrit(C - 1, 1 - alpha / 2)) ** 2
    # y² r² - 2 x y r + x² <= t² (vyy r² - 2 vxy r + vxx)
    square, linear, constant = y * y - t2 * vyy, x * y - t2 * vxy, x * x - t2 * vxx
    if y <= 0 or square <= 0:
        return None
    root = math.sqrt(max(0.0, linear * linear - square * constant))
    return (linear - root) / square, (linear + root) / square


def _ratio(totals: np.ndarray) -> np.ndarray:
    x, y = totals[..., 0], totals[..., 1]
    # A denominator at or below 0 makes a ratio meaningless.
    return np.divide(x, y, out=np.full(np.shape(y), np.nan), where=y > 0)
