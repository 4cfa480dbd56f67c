"""The kernel distance of two sets of features (KID on Inception features), with its interval.

Shapes: N and M pictures, C feature dimensions, S subsets.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from mpm_eval.images.jackknife import around, deviation, groups, pairing

_ROWS = 512  # of the kernel matrix made at a time


@dataclass(frozen=True, slots=True)
class KernelEstimate:
    """A kernel distance with what is needed to trust it; None where it cannot be had."""

    value: float | None  # None: fewer than two pictures on a side, `note` says so
    ci95: tuple[float, float] | None  # over draws of n pictures, the reference held fixed
    n: int
    n_reference: int
    num_subsets: int
    subset_size: int
    note: str = ""  # what differs from what was asked; "" when nothing does
    method: str = ""  # settings, for a signature
    left_out: tuple[float, ...] = ()  # of all pictures but those of each group
    pairing: str = ""  # equal for estimates whose pictures are paired, see `paired_gap`


def kernel_distance(
    a_NC: np.ndarray,
    b_MC: np.ndarray,
    num_subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 0,
    *,
    clusters: Sequence[Hashable] | None = None,
) -> KernelEstimate:
    """Return the mean over subsets of the unbiased squared maximum mean discrepancy.

    KID (Bińkowski et al. 2018, arXiv 1801.01401): kernel (x·y / C + 1)³, without bias at any number
    of pictures, so it may fall below 0. Subsets shrink to the smaller set. Interval: ± 1.96
    standard errors by groups of `clusters` of a (see `jackknife`), b the reference held fixed; the
    spread over subsets that others print is no interval. Raises ValueError for different
    dimensions, values that are not finite and fewer than one subset.
    """
    a_NC, b_MC = _checked(a_NC), _checked(b_MC)
    if a_NC.shape[1] != b_MC.shape[1]:
        raise ValueError(f"images: features of {a_NC.shape[1]} and of {b_MC.shape[1]} dimensions")
    if num_subsets < 1 or subset_size < 2:
        raise ValueError(f"images: {num_subsets} subsets of {subset_size} pictures")
    n, m, size = len(a_NC), len(b_MC), min(subset_size, len(a_NC), len(b_MC))
    if size < 2:
        reason = f"cannot decide: {size} pictures, at least 2 are needed"
        return KernelEstimate(None, None, n, m, 0, 0, reason)
    rng = np.random.Generator(np.random.PCG64(seed))
    group_N = groups(n, clusters, seed=seed)
    rest_NG = _all_but_one_group(group_N)
    in_a_NS = np.hstack([_subsets(rng, n, size, num_subsets), rest_NG])
    every_MG = np.ones((m, rest_NG.shape[1]))
    in_b_MS = np.hstack([_subsets(rng, m, size, num_subsets), every_MG])
    distance_S = _distances(a_NC, b_MC, in_a_NS, in_b_MS)
    value = float(distance_S[:num_subsets].mean())
    error = deviation(left_out := tuple(distance_S[num_subsets:].tolist()))
    if error is not None:  # not every subset was drawn
        error = (error**2 + float(distance_S[:num_subsets].var()) / num_subsets) ** 0.5
    return KernelEstimate(
        value,
        None if error is None else around(value, error),
        n,
        m,
        num_subsets,
        size,
        f"subsets of {subset_size} shrunk to {size}, the smaller set" if size < subset_size else "",
        f"kernel:(x·y/d+1)^3|subsets:{num_subsets}x{size}|seed:{seed}"
        f"|ci:jackknife,normal|groups:{len(left_out)}|reference:fixed",
        left_out,
        pairing(group_N, b_MC),
    )


def _all_but_one_group(group_N: np.ndarray) -> np.ndarray:
    """Return rest_NG: who is left without each group; no column where fewer than 2 would be."""
    rest_NG: np.ndarray = (group_N[:, None] != np.arange(group_N.max() + 1)).astype(np.float64)
    return rest_NG if rest_NG.sum(axis=0).min() >= 2 else rest_NG[:, :0]


def _subsets(rng: np.random.Generator, n: int, size: int, num_subsets: int) -> np.ndarray:
    """Return inside_NS of 0 and 1: which of n pictures are in each subset."""
    inside_NS = np.zeros((n, num_subsets))
    for column in range(num_subsets):
        inside_NS[rng.permutation(n)[:size], column] = 1.0
    return inside_NS


def _distances(
    a_NC: np.ndarray, b_MC: np.ndarray, in_a_NS: np.ndarray, in_b_MS: np.ndarray
) -> np.ndarray:
    """Return distance_S of subsets of both: each kernel value is computed once for all of them, and
    products with the matrices of 0 and 1 sum it over every subset."""
    a_NC, b_MC = a_NC.astype(np.float64), b_MC.astype(np.float64)
    across_S = np.zeros(in_a_NS.shape[1])
    for start in range(0, len(a_NC), _ROWS):
        rows = slice(start, start + _ROWS)
        across_S += _summed(in_a_NS[rows], _kernel(a_NC[rows], b_MC) @ in_b_MS)
    n_S, m_S = in_a_NS.sum(axis=0), in_b_MS.sum(axis=0)
    within_a_S = _pairs_within(a_NC, in_a_NS) / (n_S * (n_S - 1))
    within_b_S = _pairs_within(b_MC, in_b_MS) / (m_S * (m_S - 1))
    return np.asarray(within_a_S + within_b_S - 2 * across_S / (n_S * m_S))


def _pairs_within(x_NC: np.ndarray, inside_NS: np.ndarray) -> np.ndarray:
    """Return sum_S of the kernel over the ordered pairs of different pictures in each subset."""
    sum_S = np.zeros(inside_NS.shape[1])
    for start in range(0, len(x_NC), _ROWS):
        rows = slice(start, start + _ROWS)
        # the kernel is symmetric: what lies left of the block was counted twice already
        right_RN = _kernel(x_NC[rows], x_NC[start:])
        size = len(right_RN)
        np.fill_diagonal(right_RN, 0.0)
        right_RN[:, size:] *= 2
        sum_S += _summed(inside_NS[rows], right_RN @ inside_NS[start:])
    return sum_S


def _kernel(x_NC: np.ndarray, y_MC: np.ndarray) -> np.ndarray:
    value_NM = x_NC @ (y_MC.T)
    value_NM /= x_NC.shape[1]
    value_NM += 1
    square_NM = value_NM * value_NM
    value_NM *= square_NM
    return np.asarray(value_NM)


def _summed(inside_NS: np.ndarray, value_NS: np.ndarray) -> np.ndarray:
    return np.asarray(np.einsum("ns,ns->s", inside_NS, value_NS))


def _checked(features_NC: np.ndarray) -> np.ndarray:
    features_NC = np.asarray(features_NC)
    if features_NC.ndim != 2 or features_NC.shape[1] < 1:
        raise ValueError(f"images: features of shape (N, C) expected, got {features_NC.shape}")
    if not np.isfinite(features_NC).all():
        raise ValueError("images: a feature is not finite")
    return features_NC
