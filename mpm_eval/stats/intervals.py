"""Honest intervals: the percentile bootstrap over clusters, Wilson's interval, paired differences.

Everything works on sums of statistics per cluster and a metric's `aggregate`; no text is read
again. The same seed and the same clusters give the same resamples, in any order of the items.

Shapes: N items, S statistics, C clusters, B resamples.
"""

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypedDict

import numpy as np

Aggregate = Callable[[np.ndarray], np.ndarray]  # (…, S) to (…), NaN where undefined

NUM_RESAMPLES = 2000
ALPHA = 0.05
MAX_UNDEFINED = 0.05  # share of resamples without a value, above which there is no interval
MIN_CLUSTERS = 30  # below it a percentile interval of a proportion is too narrow
_ALIKE = "ci:none,all-alike"  # method where every resample gives the same value
_CHUNK_CELLS = 4_000_000  # cells of a weight matrix made at a time: 32 MB
_CACHED_CELLS = 20_000_000  # of a weight matrix that is kept, two bytes each


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its interval, on the metric's own scale."""

    value: float | None  # None: undefined
    ci95: tuple[float, float] | None  # None: cannot be had, the method says why
    method: str  # for a signature, e.g. ci:bootstrap|resamples:2000|seed:0|clusters:500
    num_undefined: int = 0  # resamples left out because they had no value


class Paired(TypedDict):
    """Two systems, or two languages, on the same clusters."""

    a: Estimate
    b: Estimate
    gap: Estimate  # a - b
    retention: Estimate  # b / a; None unless a is above 0 with its whole interval
    p_value: float | None  # two-sided, that the gap is 0; never below 2 / (resamples + 1)
    num_clusters: int


def cluster_sums(stats_NS: np.ndarray, clusters: Sequence[Hashable]) -> np.ndarray:
    """Return sums_CS: the statistics summed within each cluster, clusters in sorted order.

    The order of the items changes no bit of it. Raises ValueError for no items, for lengths
    that differ and for a shape other than (N, S).
    """
    stats_NS = np.asarray(stats_NS, dtype=np.float64)
    if stats_NS.ndim != 2 or len(stats_NS) == 0:
        raise ValueError(f"stats: statistics of shape (N, S), N > 0, expected, {stats_NS.shape}")
    if len(stats_NS) != len(clusters):
        raise ValueError(f"stats: {len(stats_NS)} items and {len(clusters)} clusters")
    index = {name: i for i, name in enumerate(sorted(set(clusters)))}  # type: ignore[type-var]
    cluster_N = np.array([index[name] for name in clusters])
    # Sorted by content too: floating-point sums depend on the order of what is added.
    order = np.lexsort((*stats_NS.T[::-1], cluster_N))
    starts = np.searchsorted(cluster_N[order], np.arange(len(index)))
    sums_CS: np.ndarray = np.add.reduceat(stats_NS[order], starts, axis=0)
    return sums_CS


def bootstrap(
    sums_CS: np.ndarray,
    aggregate: Aggregate,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> np.ndarray:
    """Return values_B: the metric on resamples of C clusters drawn with replacement.

    Efron & Tibshirani 1993, chapter 6, with clusters as units. NaN where a resample has no value.
    The draws depend on C, `num_resamples` and `seed` alone, so equal calls share their resamples.
    """
    sums_CS = checked(sums_CS)
    if num_resamples < 1:
        raise ValueError(f"stats: num_resamples must be at least 1, got {num_resamples}")
    values = [
        np.asarray(aggregate(counts_BC.astype(np.float64) @ sums_CS), dtype=np.float64)
        for counts_BC in resample_counts(len(sums_CS), num_resamples, seed)
    ]
    return np.concatenate(values)


def resample_counts(C: int, num_resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield counts_BC, how often each cluster is in each resample, some of the B at a time."""
    rows = max(1, _CHUNK_CELLS // C)
    kept = num_resamples * C <= _CACHED_CELLS
    counts_BC = _cached_counts(C, num_resamples, seed) if kept else None
    rng = np.random.Generator(np.random.PCG64(seed))
    for start in range(0, num_resamples, rows):
        size = min(rows, num_resamples - start)
        yield _draw(rng, size, C) if counts_BC is None else counts_BC[start : start + size]


def interval(values_B: np.ndarray, alpha: float = ALPHA) -> tuple[float, float] | None:
    """Return the percentile interval of level 1 - alpha; None when over 5 % are undefined (NaN).

    Raises ValueError for no values.
    """
    values_B = np.asarray(values_B, dtype=np.float64)
    if values_B.size == 0:
        raise ValueError("stats: an interval of no values")
    defined = values_B[~np.isnan(values_B)]
    if values_B.size - defined.size > MAX_UNDEFINED * values_B.size:
        return None
    low, high = np.quantile(defined, [alpha / 2, 1 - alpha / 2])
    return float(low), float(high)


def wilson(k: float, n: int, alpha: float = ALPHA) -> tuple[float, float]:
    """Return Wilson's score interval (1927) for k hits in n independent trials, as shares 0 to 1.

    Unlike a bootstrap it has a width when all or none are hits. Raises ValueError unless
    0 <= k <= n and n > 0.
    """
    if n < 1 or not 0 <= k <= n:
        raise ValueError(f"stats: {k} hits in {n} trials")
    from statistics import NormalDist

    z = NormalDist().inv_cdf(1 - alpha / 2)
    share, shrink = k / n, 1 + z * z / n
    centre = (share + z * z / (2 * n)) / shrink
    half = z / shrink * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # Rounding may leave 1e-17 where the ends are exact.
    low = 0.0 if k == 0 else max(0.0, centre - half)
    high = 1.0 if k == n else min(1.0, centre + half)
    return low, high


def clopper_pearson(k: int, n: int, alpha: float = ALPHA) -> tuple[float, float]:
    """Return the exact interval (1934) for k hits in n independent trials, as shares 0 to 1.

    Never covers less than 1 - alpha, so it is wider than Wilson's. Raises ValueError unless
    0 <= k <= n and n > 0.
    """
    if n < 1 or not 0 <= k <= n:
        raise ValueError(f"stats: {k} hits in {n} trials")
    check_level(alpha)
    from scipy.special import betaincinv

    low = 0.0 if k == 0 else float(betaincinv(k, n - k + 1, alpha / 2))
    high = 1.0 if k == n else float(betaincinv(k + 1, n - k, 1 - alpha / 2))
    return low, high


def estimate(
    stats_NS: np.ndarray,
    clusters: Sequence[Hashable],
    aggregate: Aggregate,
    *,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Return the value over all items with its 95 % interval.

    The interval is the bootstrap's, but Wilson's for a proportion (each item counts 0 or 1) when
    the bootstrap fails: all items alike, or fewer than 30 clusters of one item each. There the
    number of trials is the number of clusters. One cluster alone gives no other interval.
    """
    stats_NS = np.asarray(stats_NS, dtype=np.float64)
    sums_CS = cluster_sums(stats_NS, clusters)
    C = len(sums_CS)
    value = _value(sums_CS, aggregate)
    if value is None:
        return Estimate(None, None, "ci:none,undefined")
    share = _share(stats_NS, aggregate)
    alike = share is not None and share in (0.0, 1.0)
    few = share is not None and len(stats_NS) == C < MIN_CLUSTERS
    if share is not None and (alike or few):
        total_S = stats_NS.sum(axis=0)
        ends = []
        for end in wilson(share * C, C):
            moved_S = np.concatenate(([end * len(stats_NS)], total_S[1:]))
            ends.append(float(aggregate(moved_S)))
        return Estimate(value, (ends[0], ends[1]), f"ci:wilson|clusters:{C}")
    if C < 2:
        return Estimate(value, None, "ci:none,one-cluster")
    values_B = bootstrap(sums_CS, aggregate, num_resamples, seed)
    return _percentile(value, values_B, _method(num_resamples, seed, C))


def paired(
    sums_CS_a: np.ndarray,
    sums_CS_b: np.ndarray,
    aggregate: Aggregate,
    *,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Paired:
    """Return a, b, the gap a - b and the retention b / a, all from the same resampled clusters.

    Row c of both arrays must be the same cluster: pass `cluster_sums` of the same cluster names.
    Retention is None unless a and the lower end of its interval are above 0. The p-value is the
    bootstrap's own: twice the smaller share of resampled gaps on one side of 0 (but for one
    resample below 0.05 where the interval leaves 0 out). Raises ValueError for different shapes.
    """
    sums_CS_a, sums_CS_b = checked(sums_CS_a), checked(sums_CS_b)
    if sums_CS_a.shape != sums_CS_b.shape:
        raise ValueError(
            f"stats: paired sums of shapes {sums_CS_a.shape} and {sums_CS_b.shape}; "
            "keep only the clusters that both have"
        )
    C = len(sums_CS_a)
    method = _method(num_resamples, seed, C) + "|paired"
    a_B = bootstrap(sums_CS_a, aggregate, num_resamples, seed)
    b_B = bootstrap(sums_CS_b, aggregate, num_resamples, seed)
    a, b = _value(sums_CS_a, aggregate), _value(sums_CS_b, aggregate)
    known = a is not None and b is not None
    gap = a - b if a is not None and b is not None else None
    a_estimate = _paired_estimate(a, a_B, method, C)
    retained = _retained(a, b, a_estimate)
    with np.errstate(divide="ignore", invalid="ignore"):
        # A pivot at or below 0 makes a ratio meaningless: such resamples count as undefined.
        ratio_B = np.where(a_B > 0, b_B / a_B, np.nan)
    return {
        "a": a_estimate,
        "b": _paired_estimate(b, b_B, method, C),
        "gap": _paired_estimate(gap, a_B - b_B, method, C),
        "retention": _paired_estimate(retained, ratio_B, method, C),
        "p_value": _p_value(a_B - b_B) if known and C > 1 else None,
        "num_clusters": C,
    }


def check_level(alpha: float) -> None:
    """Raise ValueError unless 0 < alpha < 1."""
    if not 0 < alpha < 1:
        raise ValueError(f"stats: a level of {alpha}, between 0 and 1 expected")


def checked(sums_CS: np.ndarray) -> np.ndarray:
    """Return sums_CS as 64-bit floats; ValueError for another shape or no clusters."""
    sums_CS = np.asarray(sums_CS, dtype=np.float64)
    if sums_CS.ndim != 2 or len(sums_CS) == 0:
        raise ValueError(f"stats: sums of shape (C, S), C > 0, expected, got {sums_CS.shape}")
    return sums_CS


def _draw(rng: np.random.Generator, size: int, C: int) -> np.ndarray:
    """Return counts_BC: how often each of C clusters is in each of `size` resamples.

    Drawing C indices and counting them is the multinomial distribution, only faster.
    """
    drawn_BC = rng.integers(0, C, size=(size, C))
    drawn_BC += np.arange(size)[:, None] * C
    return np.bincount(drawn_BC.ravel(), minlength=size * C).reshape(size, C)


@lru_cache(maxsize=4)
def _cached_counts(C: int, num_resamples: int, seed: int) -> np.ndarray:
    # One run asks for the same resamples for every metric and language.
    rng = np.random.Generator(np.random.PCG64(seed))
    rows = max(1, _CHUNK_CELLS // C)
    parts = [
        _draw(rng, min(rows, num_resamples - start), C).astype(np.uint16)
        for start in range(0, num_resamples, rows)
    ]
    counts_BC = np.concatenate(parts)
    counts_BC.setflags(write=False)
    return counts_BC


def _value(sums_CS: np.ndarray, aggregate: Aggregate) -> float | None:
    value = float(aggregate(sums_CS.sum(axis=0)))
    return None if math.isnan(value) else value


def _share(stats_NS: np.ndarray, aggregate: Aggregate) -> float | None:
    """Return the share of items whose first statistic is 1; None unless that is a proportion.

    It is one when each item's first statistic is 0 or 1 and the metric is a straight, rising line
    in their sum, the other sums held, that ends at 100: the lengths in BLEU, say, make none.
    """
    first_N = stats_NS[:, 0]
    if not np.isin(first_N, (0.0, 1.0)).all():
        return None
    n = len(stats_NS)
    line_KS = np.repeat(stats_NS.sum(axis=0)[None, :], 5, axis=0)
    line_KS[:, 0] = n * np.linspace(0, 1, 5)
    values_K = np.asarray(aggregate(line_KS), dtype=np.float64)
    steps = np.diff(values_K)
    if np.isnan(values_K).any() or steps[0] <= 0 or not np.allclose(steps, steps[0], rtol=1e-9):
        return None
    return float(first_N.mean()) if math.isclose(values_K[-1], 100.0) else None


def _retained(a: float | None, b: float | None, pivot: Estimate) -> float | None:
    if a is None or b is None or a <= 0:
        return None
    if pivot.method != _ALIKE and (pivot.ci95 is None or pivot.ci95[0] <= 0):
        return None
    return b / a


def _paired_estimate(value: float | None, values_B: np.ndarray, method: str, C: int) -> Estimate:
    if value is None:
        return Estimate(None, None, "ci:none,undefined")
    if C < 2:
        return Estimate(value, None, "ci:none,one-cluster")
    if np.ptp(values_B) == 0:
        # An interval of width zero would claim certainty.
        return Estimate(value, None, _ALIKE)
    return _percentile(value, values_B, method)


def _percentile(value: float, values_B: np.ndarray, method: str) -> Estimate:
    undefined = int(np.isnan(values_B).sum())
    ci95 = interval(values_B)
    return Estimate(value, ci95, method if ci95 else "ci:none,resamples-undefined", undefined)


def _p_value(gaps_B: np.ndarray) -> float | None:
    defined = gaps_B[~np.isnan(gaps_B)]
    if gaps_B.size - defined.size > MAX_UNDEFINED * gaps_B.size:
        return None
    smaller = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    return min(1.0, 2 * (smaller + 1) / (defined.size + 1))


def _method(num_resamples: int, seed: int, C: int) -> str:
    return f"ci:bootstrap,percentile|resamples:{num_resamples}|seed:{seed}|clusters:{C}"
