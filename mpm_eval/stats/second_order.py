"""Bootstrap intervals that correct for skew and few clusters: BCa and studentised.

Shapes: S statistics, C clusters, B resamples, M = S * S second moments.
"""

import numpy as np
from scipy.special import ndtr, ndtri

from mpm_eval.stats.intervals import (
    ALPHA,
    MAX_UNDEFINED,
    Aggregate,
    bootstrap,
    check_level,
    checked,
    resample_counts,
)

_STEP = 1e-4  # of the size of a sum, for slopes


def bca(
    sums_CS: np.ndarray,
    aggregate: Aggregate,
    *,
    alpha: float = ALPHA,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Return the bias-corrected and accelerated interval (Efron 1987), clusters as units.

    It shifts the percentiles for bias and skew (from leaving out one cluster at a time), and
    keeps within the metric's range. It matters for skewed values, shares near 0 or 100 and
    metrics that are no mean; it does not widen for few clusters. None where over 5 % of the
    resamples are undefined, all are alike, or leaving a cluster out leaves no value.
    """
    check_level(alpha)
    sums_CS = checked(sums_CS)
    value = float(aggregate(sums_CS.sum(axis=0)))
    values_B = _defined(bootstrap(sums_CS, aggregate, num_resamples, seed), num_resamples)
    if values_B is None or np.ptp(values_B) == 0 or len(sums_CS) < 2:
        return None
    left_out_C = np.asarray(aggregate(sums_CS.sum(axis=0) - sums_CS), dtype=np.float64)
    deviations_C = left_out_C.mean() - left_out_C
    squares = float((deviations_C**2).sum())
    if not squares > 0:
        return None
    acceleration = float((deviations_C**3).sum()) / (6 * squares**1.5)
    # Resamples equal to the value count half, which matters where values are coarse.
    below = float((values_B < value).mean() + (values_B <= value).mean()) / 2
    if not 0 < below < 1:
        return None
    bias = float(ndtri(below))
    shifted = bias + ndtri(np.array([alpha / 2, 1 - alpha / 2]))
    levels = ndtr(bias + shifted / (1 - acceleration * shifted))
    low, high = np.quantile(values_B, levels)
    return float(low), float(high)


def studentised(
    sums_CS: np.ndarray,
    aggregate: Aggregate,
    *,
    alpha: float = ALPHA,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Return the bootstrap-t interval (Efron & Tibshirani 1993, 12.5), clusters as units.

    Each resample is divided by its own standard error (delta method), so the interval widens for
    few clusters as Student's does and follows skew. It matters below about 30 clusters of values
    with long tails; it may leave the metric's range. None where over 5 % of the resamples have no
    value or no standard error, as for a share of few clusters: use Wilson's there.
    """
    check_level(alpha)
    sums_CS = checked(sums_CS)
    C = len(sums_CS)
    outer_CM = (sums_CS[:, :, None] * sums_CS[:, None, :]).reshape(C, -1)
    both = np.concatenate([sums_CS, outer_CM], axis=1)
    value, error = _with_error(both.sum(axis=0)[None], sums_CS.shape[1], C, aggregate)
    pivots = []
    for counts_BC in resample_counts(C, num_resamples, seed):
        totals = counts_BC.astype(np.float64) @ both
        values_B, errors_B = _with_error(totals, sums_CS.shape[1], C, aggregate)
        with np.errstate(divide="ignore", invalid="ignore"):
            pivots.append(np.where(errors_B > 1e-9 * error, (values_B - value) / errors_B, np.nan))
    pivots_B = _defined(np.concatenate(pivots), num_resamples)
    if pivots_B is None or not error[0] > 0:
        return None
    # The upper tail of the pivot makes the lower end.
    low, high = np.quantile(pivots_B, [alpha / 2, 1 - alpha / 2])
    return float(value[0] - high * error[0]), float(value[0] - low * error[0])


def _with_error(
    totals: np.ndarray, S: int, C: int, aggregate: Aggregate
) -> tuple[np.ndarray, np.ndarray]:
    """Return values_B and their standard errors from sums and sums of products."""
    totals_BS, products_BSS = totals[:, :S], totals[:, S:].reshape(-1, S, S)
    spread_BSS = products_BSS - totals_BS[:, :, None] * totals_BS[:, None, :] / C
    sizes_BS = np.sqrt(np.diagonal(products_BSS, axis1=1, axis2=2))
    slopes_BS = np.zeros_like(totals_BS)
    for s in range(S):
        step_BS = np.zeros_like(totals_BS)
        step_BS[:, s] = _STEP * sizes_BS[:, s]
        rise_B = aggregate(totals_BS + step_BS) - aggregate(totals_BS - step_BS)
        # A statistic that is 0 in every cluster has no spread either.
        moved_B = step_BS[:, s] > 0
        slopes_BS[moved_B, s] = rise_B[moved_B] / (2 * step_BS[moved_B, s])
    variance_B = np.einsum("bs,bst,bt->b", slopes_BS, spread_BSS, slopes_BS)
    values_B = np.asarray(aggregate(totals_BS), dtype=np.float64)
    return values_B, np.sqrt(np.maximum(variance_B, 0.0))


def _defined(values_B: np.ndarray, num_resamples: int) -> np.ndarray | None:
    defined = values_B[~np.isnan(values_B)]
    return None if num_resamples - defined.size > MAX_UNDEFINED * num_resamples else defined
