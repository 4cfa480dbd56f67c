"""Similarity of two whole spaces over the same texts: debiased linear CKA and RSA.

Both compare N x N matrices of the texts, so the spaces may have different dimensions. Matrices
have a diagonal of zeros: a text compared with itself says nothing.
"""

import numpy as np

from mpm_eval.probes.vectors import scaled, unit


def linear_kernel(x_ND: np.ndarray) -> np.ndarray:
    """Return k_NN, the dot products of centred rows with zeros on the diagonal."""
    x_ND = scaled(x_ND, centred=True, dtype=np.float64)
    return _without_diagonal(x_ND @ x_ND.T)


def hsic(k_NN: np.ndarray, l_NN: np.ndarray, mask_NM: np.ndarray) -> np.ndarray:
    """Return the unbiased HSIC (M,) of two kernels, on each subset of texts.

    Song et al. 2012, JMLR 13:1393, equation 5. NaN for subsets of fewer than 4 texts.
    """
    n_M = mask_NM.sum(axis=0)
    k_NM, l_NM = k_NN @ mask_NM, l_NN @ mask_NM
    trace_M = (((k_NN * l_NN) @ mask_NM) * mask_NM).sum(axis=0)
    total_M = (k_NM * mask_NM).sum(axis=0) * (l_NM * mask_NM).sum(axis=0)
    cross_M = (k_NM * l_NM * mask_NM).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        sum_M = trace_M + total_M / ((n_M - 1) * (n_M - 2)) - 2 * cross_M / (n_M - 2)
        return np.where(n_M > 3, sum_M / (n_M * (n_M - 3)), np.nan)


def cka(k_NN: np.ndarray, l_NN: np.ndarray, mask_NM: np.ndarray) -> np.ndarray:
    """Return the debiased linear CKA (M,) of two linear kernels, on each subset of texts.

    HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) (Kornblith et al. 2019, arXiv 1905.00414) with the
    unbiased HSIC (Nguyen et al. 2021, arXiv 2010.15327): the biased one nears 1 for any two spaces
    whose dimension is above the number of texts (Murphy et al. 2024, arXiv 2405.01012). 1 for equal
    spaces, also rotated or scaled; about 0, also below, for unrelated ones. NaN where it is
    undefined: a space without variance, fewer than 4 texts.
    """
    own_M = hsic(k_NN, k_NN, mask_NM) * hsic(l_NN, l_NN, mask_NM)
    return _ratio(hsic(k_NN, l_NN, mask_NM), own_M)


def distance_ranks(x_ND: np.ndarray) -> np.ndarray:
    """Return r_NN: ranks of the distances 1 - cosine of all pairs of texts, less their mean.

    Equal distances share their mean rank. Zeros on the diagonal.
    """
    from scipy.stats import rankdata

    x_ND = unit(x_ND, dtype=np.float64)
    above = np.triu_indices(len(x_ND), 1)
    # Rounding off the last bits: distances that are equal must tie on every processor.
    rank_P = rankdata(np.round(1 - (x_ND @ x_ND.T)[above], 12))
    r_NN = np.zeros((len(x_ND), len(x_ND)))
    r_NN[above] = rank_P - rank_P.mean() if len(rank_P) else rank_P
    return r_NN + r_NN.T


def rsa(r_NN: np.ndarray, s_NN: np.ndarray, mask_NM: np.ndarray) -> np.ndarray:
    """Return the RSA (M,): Spearman's correlation, -1 to 1, of two matrices of distances.

    Kriegeskorte et al. 2008, Frontiers in Systems Neuroscience 2:4; over the pairs above the
    diagonal. `r_NN` and `s_NN` are distance ranks among all texts; subsets keep those ranks. NaN
    where all distances are equal.
    """
    n_M = mask_NM.sum(axis=0)
    num_M = np.maximum(n_M * (n_M - 1), 1)  # both halves of the matrix

    def covariance(a_NN: np.ndarray, b_NN: np.ndarray) -> np.ndarray:
        sums = [
            ((m_NN @ mask_NM) * mask_NM).sum(axis=0) / num_M for m_NN in (a_NN * b_NN, a_NN, b_NN)
        ]
        covariance_M: np.ndarray = sums[0] - sums[1] * sums[2]
        return covariance_M

    own_M = covariance(r_NN, r_NN) * covariance(s_NN, s_NN)
    return _ratio(covariance(r_NN, s_NN), own_M)


def u_centred(k_NN: np.ndarray) -> np.ndarray:
    """Return the kernel whose sum of products with another is n (n - 3) times the unbiased HSIC.

    U-centring of Székely & Rizzo 2014, Annals of Statistics 42:2382, definition 2.
    """
    n = len(k_NN)
    if n < 4:
        return np.full_like(k_NN, np.nan)
    rows_N = k_NN.sum(axis=1) / (n - 2)
    whole = k_NN.sum() / ((n - 1) * (n - 2))
    return _without_diagonal(k_NN - rows_N[:, None] - rows_N[None, :] + whole)


def random_correlations(a_NN: np.ndarray, b_NN: np.ndarray, pairing_PN: np.ndarray) -> np.ndarray:
    """Return the correlation (P,) of two centred matrices when the texts are paired at random.

    Mantel 1967, Cancer Research 27:209: rows and columns move together. Of `u_centred` kernels it
    is the debiased CKA, of `distance_ranks` the RSA.
    """
    a_NN, b_NN = a_NN.astype(np.float32), b_NN.astype(np.float32)
    # float64 sums of float32 products would copy the matrices; pairwise sums are exact enough
    norm = np.sqrt(float(np.vdot(a_NN, a_NN)) * float(np.vdot(b_NN, b_NN)))
    if not norm > 0:
        return np.full(len(pairing_PN), np.nan)
    found = [np.vdot(a_NN, b_NN.take(to, axis=0).take(to, axis=1)) for to in pairing_PN]
    return np.array(found, dtype=np.float64) / norm


def _without_diagonal(k_NN: np.ndarray) -> np.ndarray:
    np.fill_diagonal(k_NN, 0)
    return k_NN


def _ratio(top_M: np.ndarray, square_M: np.ndarray) -> np.ndarray:
    # 1e-24: what rounding leaves of a variance of zero, values being at most about 1
    defined_M = square_M > 1e-24
    return np.where(defined_M, top_M / np.sqrt(np.where(defined_M, square_M, 1)), np.nan)
