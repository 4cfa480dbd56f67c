"""The Fréchet distance of two sets of features, with interval, bias and a guard on their number.

Shapes: N pictures, C feature dimensions, R rank, G groups of pictures, K sizes of subsets.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from mpm_eval.images.jackknife import around, deviation, groups, pairing
from mpm_eval.images.statistics import FeatureStatistics

INTERVALS = ("jackknife", "bootstrap")
NUM_RESAMPLES = 200  # of the bootstrap
NUM_SIZES = 15  # of subsets in the extrapolation, as in the paper
MIN_PER_DIM = 3  # pictures per dimension, below which the extrapolation is no straight line
_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, slots=True)
class FrechetEstimate:
    """A Fréchet distance with what is needed to trust it; None where it cannot be had."""

    value: float | None  # None: cannot decide, `reason` says why
    biased_value: float | None  # at this n whatever the guard says; larger the fewer the pictures
    ci95: tuple[float, float] | None  # of `biased_value`, over draws of n pictures
    infinity: float | None  # extrapolated to unlimited pictures
    n: int
    n_reference: int
    dim: int
    reason: str = ""  # "" or "cannot decide: …"
    note: str = ""  # what is missing besides, and why; "" when nothing is
    method: str = "ci:none"  # of the interval, for a signature
    left_out: tuple[float, ...] = ()  # the distance without each group of pictures
    pairing: str = ""  # equal for estimates whose pictures are paired, see `paired_gap`


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """Return |mean_a - mean_b|² + tr(A + B - 2 (A B)^(1/2)), 0 or more, of covariances A and B.

    Dowson & Landau 1982; on Inception features the FID (Heusel et al. 2017, arXiv 1706.08500). With
    A = L Lᵀ the last trace is the sum of the square roots of the eigenvalues of Lᵀ B L, which is
    symmetric: no complex number can arise. Raises ValueError for different dimensions and fewer
    than two features on a side.
    """
    if a.dim != b.dim:
        raise ValueError(f"images: features of {a.dim} and of {b.dim} dimensions")
    # The smaller set has the smaller rank, and what lies outside it must not add rounding errors.
    a, b = (a, b) if a.n <= b.n else (b, a)
    a_CC, b_CC = a.covariance_CC, b.covariance_CC
    apart_C = a.mean_C - b.mean_C
    spread = float(np.trace(a_CC) + np.trace(b_CC)) - 2 * _trace_of_root(a_CC, b_CC)
    return max(0.0, float(apart_C @ apart_C) + spread)


def estimate_frechet(
    features: np.ndarray | FeatureStatistics,
    reference: FeatureStatistics,
    *,
    clusters: Sequence[Hashable] | None = None,
    interval: str = "jackknife",
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> FrechetEstimate:
    """Return the distance of features_NC (or of their statistics alone) to a reference.

    Value: None unless both sets have at least C pictures, since a covariance of fewer has no full
    rank. Interval: ± 1.96 standard errors over draws of N pictures, the reference held fixed; it
    says nothing of the bias. `interval` is "jackknife" (by groups of `clusters`, see `jackknife`)
    or "bootstrap" (of pictures). Extrapolation: `frechet_infinity`. Both need the features. Raises
    ValueError for different dimensions.
    """
    if interval not in INTERVALS:
        raise ValueError(f"images: interval '{interval}', one of {INTERVALS} expected")
    gathered = features if isinstance(features, FeatureStatistics) else None
    statistics = gathered or FeatureStatistics.of(np.asarray(features))
    n, dim = statistics.n, statistics.dim
    sizes = n, reference.n, dim, (reason := _too_few(n, reference.n, dim))
    if min(n, reference.n) < 2:
        return FrechetEstimate(None, None, None, None, *sizes)
    distance = frechet_distance(statistics, reference)
    if gathered is not None:
        note = "no interval, no extrapolation: features not kept"
        return FrechetEstimate(None if reason else distance, distance, None, None, *sizes, note)
    features_NC, left_out, pairs = np.asarray(features), tuple[float, ...](), ""
    if interval == "jackknife":
        group_N = groups(n, clusters, seed=seed)
        left_out = _left_out(features_NC, group_N, statistics, reference)
        pairs = pairing(group_N, reference.mean_C, reference.covariance_CC)
        error, how = deviation(left_out), f"groups:{len(left_out)}"
    else:
        how = f"resamples:{num_resamples}"
        error = _bootstrap_deviation(features_NC, reference, num_resamples, seed)
    enough = n >= MIN_PER_DIM * dim
    return FrechetEstimate(
        None if reason else distance,
        distance,
        None if error is None else around(distance, error, low=0.0),
        frechet_infinity(features_NC, reference, seed=seed) if enough else None,
        *sizes,
        "" if enough else f"no extrapolation: {n} pictures, {MIN_PER_DIM * dim} are needed",
        f"ci:{interval},normal|{how}|seed:{seed}|reference:fixed",
        left_out,
        pairs,
    )


def frechet_infinity(
    features_NC: np.ndarray,
    reference: FeatureStatistics,
    *,
    num_sizes: int = NUM_SIZES,
    seed: int = 0,
) -> float:
    """Return the distance extrapolated to unlimited pictures; it may fall below 0 by chance.

    Chong & Forsyth 2020 (arXiv 1911.07023): the distances of random subsets of K sizes, here N / 2
    to N, lie on a straight line in 1 / size, whose end at 0 is returned. The bias of the reference
    stays: compare under one reference only. At 3 C pictures the line bends still: an eighth more
    than the bias is taken away (`benchmarks/image_metrics.py --coverage`). Raises ValueError for
    fewer.
    """
    n, dim = features_NC.shape
    if n < MIN_PER_DIM * dim:
        raise ValueError(f"images: {n} pictures, an extrapolation needs {MIN_PER_DIM * dim}")
    rng = np.random.Generator(np.random.PCG64(seed))
    size_K = np.linspace(n // 2, n, num_sizes).astype(int)
    distance_K = [
        frechet_distance(FeatureStatistics.of(features_NC[rng.permutation(n)[:size]]), reference)
        for size in size_K
    ]
    return float(np.polyfit(1 / size_K, distance_K, 1)[1])


def _too_few(n: int, n_reference: int, dim: int) -> str:
    for number, where in ((n, ""), (n_reference, " in the reference")):
        if number < max(dim, 2):
            return (
                f"cannot decide: {number} pictures{where}, at least {max(dim, 2)} (the feature "
                "dimension) are needed"
            )
    return ""


def _left_out(
    features_NC: np.ndarray,
    group_N: np.ndarray,
    statistics: FeatureStatistics,
    reference: FeatureStatistics,
) -> tuple[float, ...]:
    """Return distance_G without each group; () for groups that leave fewer than two pictures."""
    distances: list[float] = []
    for group in range(int(group_N.max()) + 1):
        rest = statistics.without(FeatureStatistics.of(features_NC[group_N == group]))
        if rest.n < 2:
            return ()
        distances.append(frechet_distance(rest, reference))
    return tuple(distances)


def _bootstrap_deviation(
    features_NC: np.ndarray, reference: FeatureStatistics, num_resamples: int, seed: int
) -> float:
    """Return the standard deviation of the distance over resamples of the pictures.

    Not its percentiles: a resample repeats pictures, which makes its distance too large.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    n = len(features_NC)
    distances = [
        frechet_distance(FeatureStatistics.of(features_NC[rng.integers(0, n, n)]), reference)
        for _ in range(num_resamples)
    ]
    return float(np.std(distances, ddof=1))


def _trace_of_root(a_CC: np.ndarray, b_CC: np.ndarray) -> float:
    """Return tr((A B)^(1/2)) of two covariances."""
    from scipy.linalg import eigh
    from scipy.linalg.lapack import dpotrf, dsygst

    factor_CC, info = dpotrf(a_CC, lower=1, clean=0)
    pivot_C = np.diagonal(factor_CC) ** 2
    # Rounding can let a singular matrix through: its last pivots are then pure noise.
    if info == 0 and pivot_C.min() > 100 * len(a_CC) * _EPS * pivot_C.max():
        product, _ = dsygst(b_CC, factor_CC, itype=2, lower=1)  # LᵀBL in half the operations
    else:
        factor_CR = _root_of_singular(a_CC)
        product = factor_CR.T @ b_CC @ factor_CR
    if not product.size:
        return 0.0
    value_R = eigh(product, lower=True, eigvals_only=True, driver="evd", check_finite=False)
    return float(np.sqrt(np.clip(value_R, 0.0, None)).sum())


def _root_of_singular(a_CC: np.ndarray) -> np.ndarray:
    """Return factor_CR with A = F Fᵀ, of as many columns as A has rank."""
    from scipy.linalg import eigh

    value_C, vector_CC = eigh(a_CC, driver="evd", check_finite=False)
    inside = value_C > len(a_CC) * _EPS * max(value_C[-1], 0.0)
    factor_CR: np.ndarray = vector_CC[:, inside] * np.sqrt(value_C[inside])
    return factor_CR
