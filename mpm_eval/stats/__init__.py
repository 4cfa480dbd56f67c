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
    clopper_pearson,
    cluster_sums,
    estimate,
    interval,
    paired,
    wilson,
)
from mpm_eval.stats.pairs import (
    NUM_PAIRED_RESAMPLES,
    Difference,
    Pair,
    difference,
    differences,
    rule_of_three,
)
from mpm_eval.stats.power import minimum_detectable, power_at, required_n
from mpm_eval.stats.ratios import fieller, ratio_of_means
from mpm_eval.stats.second_order import bca, studentised
from mpm_eval.stats.significance import holm, mcnemar, permutation_test

__all__ = [
    "ALPHA",
    "MIN_CLUSTERS",
    "NUM_PAIRED_RESAMPLES",
    "NUM_RESAMPLES",
    "Aggregate",
    "Difference",
    "Estimate",
    "Pair",
    "Paired",
    "bca",
    "bootstrap",
    "clopper_pearson",
    "cluster_sums",
    "difference",
    "differences",
    "estimate",
    "fieller",
    "holm",
    "interval",
    "mcnemar",
    "minimum_detectable",
    "paired",
    "permutation_test",
    "power_at",
    "ratio_of_means",
    "required_n",
    "rule_of_three",
    "studentised",
    "wilson",
]
