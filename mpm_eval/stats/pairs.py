"""The difference of two runs on the same items: its size, interval, p-value and bounds.

One distribution gives all of them, so they never contradict each other: Student's t with C - 1
degrees of freedom around the difference, scaled by the standard deviation of 10,000 paired
resamples of the clusters. It has a quantile at any level, where the k-th smallest of 10,000 is
noise (a family of 50 cells needs 0.0005), and covers with few clusters, where percentiles do not.

Shapes: N items, S statistics, C clusters, B resamples.
"""

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

from mpm_eval.stats.intervals import (
    ALPHA,
    MAX_UNDEFINED,
    Aggregate,
    check_level,
    cluster_sums,
    resample_counts,
)

NUM_PAIRED_RESAMPLES = 10_000
_EXACT_FLOAT32 = 2**24  # whole numbers below it are exact in single precision
_ROUNDING = 1e-12  # relative; differences below it are none


@dataclass(frozen=True, slots=True)
class Difference:
    """b - a on the same items, on the metric's own scale."""

    a: float | None
    b: float | None
    value: float | None  # b - a; None where a or b is undefined
    ci95: tuple[float, float] | None  # None with the reason in method
    p_value: float | None  # two-sided, that b - a is 0; below alpha where 1 - alpha leaves out 0
    standard_error: float | None  # of b - a; 0.0 where all clusters are alike
    n: int  # items
    num_clusters: int
    method: str  # for a signature, as in Estimate

    def lower(self, alpha: float) -> float | None:
        """Return what b - a is above with confidence 1 - alpha; None where there is no interval.

        lower(0.025) and upper(0.025) are the ends of ci95.
        """
        half = self._half(alpha)
        return None if half is None or self.value is None else self.value - half

    def upper(self, alpha: float) -> float | None:
        """Return what b - a is below with confidence 1 - alpha; None where there is no interval."""
        half = self._half(alpha)
        return None if half is None or self.value is None else self.value + half

    def _half(self, alpha: float) -> float | None:
        check_level(alpha)
        if self.ci95 is None or self.value is None or self.standard_error is None:
            return None
        return _half_width(self.value, self.standard_error, self.num_clusters, alpha)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two runs on the same items of one cell (metric, language, subset)."""

    stats_a: np.ndarray  # x_NS; row i of both is the same item
    stats_b: np.ndarray
    clusters: Sequence[Hashable]
    aggregate: Aggregate


def rule_of_three(num_clusters: int, alpha: float = ALPHA) -> float:
    """Return the largest share of clusters that differ which is compatible with seeing none.

    1 - alpha ** (1 / C), the exact one-sided bound of 0 in C, near 3 / C at 0.05 (Hanley &
    Lippman-Hand 1983). Raises ValueError for no clusters or a level outside 0 to 1.
    """
    check_level(alpha)
    if num_clusters < 1:
        raise ValueError(f"stats: {num_clusters} clusters, at least 1 expected")
    return float(-math.expm1(math.log(alpha) / num_clusters))


def difference(
    stats_NS_a: np.ndarray,
    stats_NS_b: np.ndarray,
    clusters: Sequence[Hashable],
    aggregate: Aggregate,
    *,
    num_resamples: int = NUM_PAIRED_RESAMPLES,
    seed: int = 0,
) -> Difference:
    """Return b - a, both resampled on the same clusters; see `differences`."""
    pair = Pair(stats_NS_a, stats_NS_b, clusters, aggregate)
    return differences([pair], num_resamples=num_resamples, seed=seed)[0]


def differences(
    pairs: Iterable[Pair], *, num_resamples: int = NUM_PAIRED_RESAMPLES, seed: int = 0
) -> list[Difference]:
    """Return b - a of each pair, in order; pairs with as many clusters share their resamples.

    The standard error is the bootstrap's, widened by sqrt(1 + 2 / m), m of the C clusters being
    those that differ at all: as if two more had differed, one each way (Bonett & Price 2012, for
    two proportions). Without it, five answers changed for the worse and none for the better would
    be significant at 0.05, which the exact test denies. Where all clusters differ alike the bounds
    are those of `rule_of_three` and p is that of swapping signs, 2 ** (1 - C). Without an interval
    the method says why: undefined, one-cluster, all-alike (b is a) or resamples-undefined (over
    5 %). Raises ValueError for no items, lengths or shapes that differ, and no resamples.
    """
    if num_resamples < 2:
        raise ValueError(f"stats: num_resamples must be at least 2, got {num_resamples}")
    cells = [_Cell.of(pair) for pair in pairs]
    by_size: dict[int, list[int]] = defaultdict(list)
    for i, cell in enumerate(cells):
        if cell.reason is None:
            by_size[len(cell.sums_a)].append(i)
    replicates: dict[int, np.ndarray] = {}
    for C, members in by_size.items():
        found = _resampled([cells[i] for i in members], C, num_resamples, seed)
        replicates.update(zip(members, found, strict=True))
    empty_B = np.empty(0)
    return [
        cell.difference(replicates.get(i, empty_B), num_resamples, seed)
        for i, cell in enumerate(cells)
    ]


@dataclass(frozen=True, slots=True)
class _Cell:
    sums_a: np.ndarray  # x_CS
    sums_b: np.ndarray
    aggregate: Aggregate
    n: int
    a: float | None
    b: float | None
    num_differing: int  # clusters
    reason: str | None  # why there is nothing to resample

    @classmethod
    def of(cls, pair: Pair) -> "_Cell":
        stats_a = np.asarray(pair.stats_a, dtype=np.float64)
        stats_b = np.asarray(pair.stats_b, dtype=np.float64)
        if stats_a.shape != stats_b.shape:
            raise ValueError(
                f"stats: paired statistics of shapes {stats_a.shape} and {stats_b.shape}; "
                "keep only the items that both have"
            )
        sums_a = cluster_sums(stats_a, pair.clusters)
        sums_b = cluster_sums(stats_b, pair.clusters)
        a, b = (float(pair.aggregate(sums.sum(axis=0))) for sums in (sums_a, sums_b))
        differing = int((sums_a != sums_b).any(axis=1).sum())
        reason = None
        if math.isnan(a) or math.isnan(b):
            reason = "undefined"
        elif np.array_equal(stats_a, stats_b):
            reason = "all-alike"
        elif len(sums_a) < 2:
            reason = "one-cluster"
        known = (None if math.isnan(a) else a), (None if math.isnan(b) else b)
        return cls(sums_a, sums_b, pair.aggregate, len(stats_a), *known, differing, reason)

    def difference(self, gaps_B: np.ndarray, num_resamples: int, seed: int) -> Difference:
        C = len(self.sums_a)
        value = None if self.a is None or self.b is None else self.b - self.a
        reason, error = self.reason, None
        if reason is None and value is not None:
            error = _spread(gaps_B, self.scale)
            if error is None:
                reason = "resamples-undefined"
            elif error == 0 and abs(value) <= self.scale:
                reason = "all-alike"
        known = (self.a, self.b, value)
        if reason is not None or value is None or error is None:
            p_value, error = (1.0, 0.0) if reason == "all-alike" else (None, None)
            return Difference(*known, None, p_value, error, self.n, C, f"ci:none,{reason}")
        error *= math.sqrt(1 + 2 / self.num_differing)
        method = f"ci:bootstrap,t|resamples:{num_resamples}|seed:{seed}|clusters:{C}|paired"
        if error == 0:
            method = f"ci:rule-of-three|clusters:{C}|paired"
        half = _half_width(value, error, C, ALPHA / 2)
        p_value = _p_value(value, error, C)
        return Difference(*known, (value - half, value + half), p_value, error, self.n, C, method)

    @property
    def scale(self) -> float:
        """Return below what a difference is rounding."""
        return _ROUNDING * max(abs(self.a or 0.0), abs(self.b or 0.0))


def _resampled(cells: Sequence[_Cell], C: int, num_resamples: int, seed: int) -> list[np.ndarray]:
    """Return gaps_B of each cell, all of C clusters: one matrix product for all of them."""
    columns_CK = np.concatenate([x for cell in cells for x in (cell.sums_a, cell.sums_b)], axis=1)
    whole = bool((columns_CK == np.rint(columns_CK)).all())
    exact = whole and C * float(np.abs(columns_CK).max()) < _EXACT_FLOAT32
    columns_CK = columns_CK.astype(np.float32 if exact else np.float64)
    gaps: list[list[np.ndarray]] = [[] for _ in cells]
    for counts_BC in resample_counts(C, num_resamples, seed):
        totals_BK = counts_BC.astype(columns_CK.dtype) @ columns_CK
        start = 0
        for cell, parts in zip(cells, gaps, strict=True):
            S = cell.sums_a.shape[1]
            totals_B2S = totals_BK[:, start : start + 2 * S].astype(np.float64).reshape(-1, 2, S)
            values_B2 = np.asarray(cell.aggregate(totals_B2S), dtype=np.float64)
            parts.append(values_B2[:, 1] - values_B2[:, 0])
            start += 2 * S
    return [np.concatenate(parts) for parts in gaps]


def _spread(gaps_B: np.ndarray, rounding: float) -> float | None:
    """Return the standard deviation; None where over 5 % of the resamples are undefined."""
    defined = gaps_B[~np.isnan(gaps_B)]
    if gaps_B.size - defined.size > MAX_UNDEFINED * gaps_B.size:
        return None
    return 0.0 if np.ptp(defined) <= rounding else float(defined.std())


def _half_width(value: float, standard_error: float, C: int, alpha: float) -> float:
    if standard_error == 0:
        # Every cluster differs alike. What was not seen is at worst as far on the other side.
        return 2 * abs(value) * rule_of_three(C, alpha)
    return -float(stdtrit(C - 1, alpha)) * standard_error


def _p_value(value: float, standard_error: float, C: int) -> float:
    if standard_error == 0:
        return float(2.0 ** (1 - C))
    return min(1.0, 2 * float(stdtr(C - 1, -abs(value) / standard_error)))
