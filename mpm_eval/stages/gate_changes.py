"""What a gate computes from the items of a score: change, bound, smallest drop found, n needed."""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

from mpm_eval.metrics import PROBE_METRICS, load_metric
from mpm_eval.stages.pairing import PairedCell

if TYPE_CHECKING:
    from mpm_eval.stats import Difference

ALPHA = 0.05
# What is said to be found 8 times in 10 is planned a little larger: for 0.8 and the true standard
# error, the simulations of benchmarks/gate_characteristics.py found it in 75 to 81 %.
POWER = 0.85


@dataclass(frozen=True, slots=True)
class Change:
    """A difference turned so that positive is better."""

    a: float | None
    b: float | None
    value: float | None
    lower: float | None  # one-sided bound at ALPHA
    p_value: float | None  # one-sided, of a drop; None: no test was possible
    error: float | None  # standard error; 0.0 where all statistics are alike
    num_clusters: int
    method: str  # says why there is no bound

    @classmethod
    def of(cls, found: "Difference", higher_is_better: bool, worst: float | None) -> "Change":
        """Return a difference turned; `worst` is the largest possible drop, None without a bound.

        Where no statistic differs, what was not seen is bounded by the rule of three: a share of
        the clusters that may have changed unseen, each by the worst drop.
        """
        from mpm_eval.stats import rule_of_three

        value, p_value = found.value, found.p_value
        bound = found.lower(ALPHA) if higher_is_better else found.upper(ALPHA)
        if not higher_is_better:
            value = None if value is None else -value
            bound = None if bound is None else -bound
        if bound is None and found.standard_error == 0 and worst is not None:
            bound = -worst * rule_of_three(found.num_clusters, ALPHA)
        if p_value is not None and value is not None:
            p_value = p_value / 2 if value < 0 else 1 - p_value / 2
        about = (found.standard_error, found.num_clusters, found.method)
        return cls(found.a, found.b, value, bound, p_value, *about)


def clusters_needed(change: Change, margin: float, worst: float | None) -> int:
    """Return how many clusters show that an unchanged score is above the margin, 8 times in 10."""
    from mpm_eval.stats import required_n

    if change.error:
        num = change.num_clusters
        return required_n(margin, change.error, num, alpha=ALPHA, power=POWER, sides=1)
    share = margin / worst if worst else 1.0
    return math.ceil(math.log(ALPHA) / math.log1p(-share)) if share < 1 else 1


def detectable(error: float | None, margin: float | None, num_cells: int) -> float | None:
    """Return the smallest drop that turns out a regression 8 times in 10.

    It must be significant among all cells, by Holm's first step, and reach beyond the margin.
    """
    from mpm_eval.stats import minimum_detectable

    if not error or margin is None:
        return None
    significant = minimum_detectable(error, alpha=ALPHA / num_cells, power=POWER, sides=1)
    z = NormalDist()
    beyond = margin + (z.inv_cdf(POWER) - z.inv_cdf(1 - ALPHA)) * error
    return float(max(significant, beyond))


def reach(cell: PairedCell) -> float:
    """Return the largest drop there can be: a margin of half of it would allow nearly all.

    Of a metric without bounds (another program's), the span of the values that both runs hold.
    """
    import numpy as np

    worst = worst_drop(cell)
    if worst is not None:
        return worst
    values_N = load_metric(cell.metric).aggregate(np.concatenate((cell.a, cell.b)))
    return float(np.ptp(values_N[np.isfinite(values_N)])) if np.isfinite(values_N).any() else 0.0


def worst_drop(cell: PairedCell) -> float | None:
    """Return the largest possible drop of a metric; None where it has no bounds.

    A metric with an upper bound alone counts hits above chance: its worst is no hit at all.
    """
    metric = load_metric(cell.metric)
    probe = PROBE_METRICS.get(cell.metric)
    low, high = probe.range if probe else metric.range
    if math.isinf(high):
        return None
    if math.isinf(low):
        totals_S = cell.a.sum(axis=0)
        totals_S[0] = 0.0
        low = float(metric.aggregate(totals_S))
    return high - low
