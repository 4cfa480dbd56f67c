"""The delete-a-group jackknife: intervals of distances, and of the gap of two that share pictures.

A bootstrap repeats pictures, which a covariance takes for less variety: near the reference its
intervals are twice too wide at n = 2 to 4 dimensions, these a third at most
(`benchmarks/image_metrics.py --coverage`).

Shapes: N pictures, G groups.
"""

import hashlib
import math
from collections.abc import Hashable, Sequence
from typing import Protocol

import numpy as np

NUM_GROUPS = 50
_Z95 = 1.959963984540054  # normal quantile


class Jackknifed(Protocol):
    """An estimate that kept its values without each group of pictures."""

    @property
    def value(self) -> float | None: ...
    @property
    def left_out(self) -> tuple[float, ...]: ...
    @property
    def pairing(self) -> str: ...


def groups(
    n: int, clusters: Sequence[Hashable] | None = None, num_groups: int = NUM_GROUPS, seed: int = 0
) -> np.ndarray:
    """Return group_N, 0 to G - 1: clusters dealt at random, as many to each group as to the others.

    G is the number of clusters where that is smaller. The same clusters and seed give the same
    groups. Raises ValueError for another number of clusters than pictures.
    """
    names = list(range(n)) if clusters is None else list(clusters)
    if len(names) != n:
        raise ValueError(f"images: {n} pictures and {len(names)} clusters")
    place = {name: index for index, name in enumerate(dict.fromkeys(names))}
    rng = np.random.Generator(np.random.PCG64(seed))
    dealt = rng.permutation(len(place)) % max(1, min(num_groups, len(place)))
    return np.array([dealt[place[name]] for name in names], dtype=np.int64)


def deviation(left_out_G: Sequence[float] | np.ndarray) -> float | None:
    """Return the standard error of a value from its values without each group; None for one group.

    Shao & Tu 1995, The Jackknife and Bootstrap, section 2.3.
    """
    left_out_G = np.asarray(left_out_G, dtype=np.float64)
    if len(left_out_G) < 2:
        return None
    return float(np.sqrt((len(left_out_G) - 1) * left_out_G.var()))


def around(value: float, error: float, low: float = -math.inf) -> tuple[float, float]:
    """Return the 95 % interval of a value with a standard error, cut at its smallest value."""
    return max(low, value - _Z95 * error), value + _Z95 * error


def pairing(group_N: np.ndarray, *reference: np.ndarray) -> str:
    """Return the hash of groups and reference: equal where pictures are paired."""
    digest = hashlib.sha256(group_N.astype("<i8").tobytes())
    for part in reference:
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def paired_gap(a: Jackknifed, b: Jackknifed) -> tuple[float | None, tuple[float, float] | None]:
    """Return a - b with its 95 % interval: two distances to one reference, of paired pictures.

    Picture i of both must be of the same item, so that what is hard for both cancels. None where a
    value or its jackknife is missing. Raises ValueError for other groups or another reference:
    those are no pairs.
    """
    if a.value is None or b.value is None:
        return None, None
    gap = a.value - b.value
    if not a.left_out or not b.left_out:
        return gap, None
    if a.pairing != b.pairing:
        raise ValueError("images: a gap of pictures that are not paired")
    error = deviation(np.subtract(a.left_out, b.left_out))
    return gap, None if error is None else around(gap, error)
