"""MEXA: is each translation pair nearer than every other text of either language?"""

from collections.abc import Sequence

import numpy as np

from mpm_eval.probes.retrieval import similarities
from mpm_eval.probes.vectors import unit


def mexa_hits(
    x_ND: np.ndarray, y_ND: np.ndarray, x_groups: Sequence[int], y_groups: Sequence[int]
) -> np.ndarray:
    """Return hits (N,) of 0 and 1: 1 where c_ii is above every c_ij and every c_ji, j != i.

    c are cosines; the mean of the hits is MEXA in one layer, its mean over the layers the pooled
    value (Kargaran et al. 2025, arXiv 2410.05873, equation 1). Strictly above: a model that gives
    all texts one vector scores 0. Pairs that share a text with pair i do not count against it.
    """
    x_ND, y_ND = unit(x_ND), unit(y_ND)
    x, y = np.asarray(x_groups), np.asarray(y_groups)
    forth, back = _nearest_is_right(x_ND, y_ND, x, y), _nearest_is_right(y_ND, x_ND, y, x)
    return (forth & back).astype(np.float64)


def _nearest_is_right(
    x_ND: np.ndarray, y_ND: np.ndarray, x: np.ndarray, y: np.ndarray
) -> np.ndarray:
    parts = []
    for start, similar_RN in similarities(x_ND, y_ND):
        rows = slice(start, start + len(similar_RN))
        same_RN = (x[rows, None] == x) | (y[rows, None] == y)
        right_R = np.where(same_RN, similar_RN, -np.inf).max(axis=1)
        wrong_R = np.where(same_RN, -np.inf, similar_RN).max(axis=1)
        parts.append(right_R > wrong_R)
    return np.concatenate(parts)
