"""Geometry of one language's vectors: how evenly they fill the space, if they point one way."""

import numpy as np

from mpm_eval.probes.vectors import scaled, unit


def isotropy(x_ND: np.ndarray, mask_NM: np.ndarray) -> np.ndarray:
    """Return IsoScore (M,): 1 when all directions vary alike, 0 when only one does.

    Rudman et al. 2022 (arXiv 2108.07344), centred by definition. With the participation ratio
    p = (sum of eigenvalues)^2 / sum of their squares of the covariance, its five steps come to
    (p - 1) / (D - 1). Too low when N is not well above D. NaN without any variance or for D = 1.
    """
    x_ND = scaled(x_ND, centred=True, dtype=np.float64)
    n_M, D = mask_NM.sum(axis=0), x_ND.shape[1]
    k_NN = x_ND @ x_ND.T
    k_NM = k_NN @ mask_NM
    total_M = (k_NM * mask_NM).sum(axis=0)
    # n trace(C) and n^2 |C|_F^2 of the covariance C, from the doubly centred kernel
    trace_M = np.diag(k_NN) @ mask_NM - total_M / n_M
    squares_M = ((k_NN**2 @ mask_NM) * mask_NM).sum(axis=0)
    squares_M = squares_M - 2 * (k_NM**2 * mask_NM).sum(axis=0) / n_M + (total_M / n_M) ** 2
    defined_M = squares_M > 1e-24
    ratio_M = trace_M**2 / np.where(defined_M, squares_M, 1)
    return np.where(defined_M & (D > 1), (ratio_M - 1) / max(D - 1, 1), np.nan)


def mean_cosine(x_ND: np.ndarray, mask_NM: np.ndarray) -> np.ndarray:
    """Return the mean cosine (M,) of two different texts: 0 when directions are spread evenly.

    Ethayarajh 2019 (arXiv 1909.00512), over all pairs and not a sample. Near 1 all vectors point
    one way, and raw cosines of translations mean nothing.
    """
    x_ND = unit(x_ND, dtype=np.float64)
    n_M = mask_NM.sum(axis=0)
    length_N = (x_ND**2).sum(axis=1)
    sums_M = ((x_ND.T @ mask_NM) ** 2).sum(axis=0) - length_N @ mask_NM
    return np.where(n_M > 1, sums_M / np.maximum(n_M * (n_M - 1), 1), np.nan)
