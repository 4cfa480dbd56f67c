"""Statistics for scores: intervals, tests, power. One place, no model, no text.

Everything works on rows of per-sample statistics, summed per cluster, and a metric's `aggregate`.
"""

from mpm_eval.stats.intervals import (
    ALPHA,
    MIN_CLUSTERS,
    NUM_RESAMPLES,
    Aggregate,
    Estimate,
    Paired,
    bootstrap,
    cluster_sums,
    estimate,
    interval,
    paired,
    wilson,
)

__all__ = [
    "ALPHA",
    "MIN_CLUSTERS",
    "NUM_RESAMPLES",
    "Aggregate",
    "Estimate",
    "Paired",
    "bootstrap",
    "cluster_sums",
    "estimate",
    "interval",
    "paired",
    "wilson",
]
