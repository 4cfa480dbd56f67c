"""Tests that need no interval: Holm's correction, McNemar's exact test, swapping two runs.

Shapes: N items, S statistics, C clusters, P permutations.
"""

import math
from collections.abc import Hashable, Sequence

import numpy as np
from scipy.special import bdtr

from mpm_eval.stats.intervals import Aggregate, cluster_sums

_CHUNK_CELLS = 4_000_000  # of a matrix of swaps made at a time: 32 MB


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p-values adjusted for a family of tests (Holm 1979), in the order given.

    Compared with alpha, they keep the chance of any false alarm in the family below it, however
    the tests depend on each other. None, a test that was not made, stays None and is no member.
    Raises ValueError for a value outside 0 to 1.
    """
    known = [(p, i) for i, p in enumerate(p_values) if p is not None]
    for p, _ in known:
        if not 0 <= p <= 1:
            raise ValueError(f"stats: a p-value of {p}")
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(sorted(known)):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        adjusted[i] = largest
    return adjusted


def mcnemar(num_only_a: int, num_only_b: int) -> float:
    """Return the exact two-sided p-value that two runs are right equally often.

    `num_only_a` items only a has right, `num_only_b` only b; the others say nothing. The binomial
    form of McNemar's test (1947), for independent items. 1.0 where no item differs. Raises
    ValueError for a negative number.
    """
    if min(num_only_a, num_only_b) < 0:
        raise ValueError(f"stats: {num_only_a} and {num_only_b} items that differ")
    n = num_only_a + num_only_b
    return min(1.0, 2 * float(bdtr(min(num_only_a, num_only_b), n, 0.5)))


def permutation_test(
    stats_NS_a: np.ndarray,
    stats_NS_b: np.ndarray,
    clusters: Sequence[Hashable],
    aggregate: Aggregate,
    *,
    num_permutations: int = 10_000,
    seed: int = 0,
) -> float:
    """Return the two-sided p-value that it does not matter which run a cluster's outputs are from.

    Both runs are swapped within whole clusters at random (Noreen 1989's approximate
    randomisation); p is the share with a difference at least as large as the one seen. Exact, over
    all 2 ** m ways, where these are no more than `num_permutations`, m being the clusters that
    differ; else never below 1 / (num_permutations + 1). A swap that leaves no value counts as
    large. Raises ValueError for shapes that differ or a metric without a value.
    """
    if np.shape(stats_NS_a) != np.shape(stats_NS_b):
        raise ValueError(
            f"stats: paired statistics of shapes {np.shape(stats_NS_a)} and "
            f"{np.shape(stats_NS_b)}; keep only the items that both have"
        )
    if num_permutations < 1:
        raise ValueError(f"stats: num_permutations must be at least 1, got {num_permutations}")
    sums_CS_a, sums_CS_b = cluster_sums(stats_NS_a, clusters), cluster_sums(stats_NS_b, clusters)
    total_S_a, total_S_b = sums_CS_a.sum(axis=0), sums_CS_b.sum(axis=0)
    seen = abs(float(aggregate(total_S_b)) - float(aggregate(total_S_a)))
    if math.isnan(seen):
        raise ValueError("stats: a permutation test of a metric without a value")
    gaps_CS = sums_CS_b - sums_CS_a
    gaps_CS = gaps_CS[gaps_CS.any(axis=1)]
    C = len(gaps_CS)
    exact = num_permutations >= 2**C
    num = 2**C if exact else num_permutations
    rng = np.random.Generator(np.random.PCG64(seed))
    rows = max(1, _CHUNK_CELLS // max(C, 1))
    num_as_large = 0
    for start in range(0, num, rows):
        size = min(rows, num - start)
        if exact:
            swaps_PC = np.arange(start, start + size)[:, None] >> np.arange(C) & 1
        else:
            swaps_PC = rng.integers(0, 2, size=(size, C), dtype=np.uint8)
        moved_PS = swaps_PC.astype(np.float64) @ gaps_CS
        found_P = np.abs(aggregate(total_S_b - moved_PS) - aggregate(total_S_a + moved_PS))
        # Equal differences must not be told apart by rounding.
        num_as_large += size - int((found_P < seen * (1 - 1e-9) - 1e-12).sum())
    return num_as_large / num if exact else (num_as_large + 1) / (num + 1)
