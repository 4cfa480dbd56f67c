"""Retrieval of translations by cosine: P@1, ranks, ratio margin, and their floors.

Texts that are equal share a group: nothing tells them apart, so each is right for the other.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from mpm_eval.probes.vectors import unit

NUM_NEIGHBOURS = 4  # k of the ratio margin, as in its paper
ROWS = 2048  # of a similarity matrix made at a time


def retrieve(
    x_ND: np.ndarray,
    y_ND: np.ndarray,
    x_groups: Sequence[int],
    y_groups: Sequence[int],
    *,
    centred: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Return hits_N2 (0 or 1) and nearest_2N of rows that translate each other, x to y, y to x.

    Similarity search of Artetxe & Schwenk 2019 (arXiv 1812.10464): a hit when the nearest
    neighbour by cosine, of equal ones the first, is the translation.
    """
    nearest_2N = _nearest(unit(x_ND, centred), unit(y_ND, centred))
    hits_N2 = np.zeros((len(x_ND), 2))
    for groups in (np.asarray(x_groups), np.asarray(y_groups)):
        hits_N2 = np.maximum(hits_N2, (groups[nearest_2N] == groups).T)
    return hits_N2, nearest_2N


def random_hits(
    nearest_2N: np.ndarray,
    x_groups: Sequence[int],
    y_groups: Sequence[int],
    pairing_PN: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the shares, each of P, of hits in the mean of both directions, and in both at once.

    The neighbours stay, the translations are shuffled: a model that finds no more than the 95th
    percentile has not been shown to align anything.
    """
    x, y = np.asarray(x_groups), np.asarray(y_groups)
    forth, back = nearest_2N
    N = len(forth)
    either, both = np.empty(len(pairing_PN)), np.empty(len(pairing_PN))
    for index, to_y in enumerate(pairing_PN):  # text i of x is paired with text to_y[i] of y
        to_x = np.empty_like(to_y)
        to_x[to_y] = np.arange(N)
        forth_hits = (y[forth] == y[to_y]) | (x[to_x[forth]] == x)
        back_hits = (x[back] == x[to_x]) | (y[to_y[back]] == y)
        either[index] = (forth_hits.mean() + back_hits.mean()) / 2
        both[index] = (forth_hits & back_hits[to_y]).mean()
    return either, both


def neighbourhood(x_ND: np.ndarray, y_ND: np.ndarray, k: int = NUM_NEIGHBOURS) -> np.ndarray:
    """Return the mean cosine (N,) of each row of x with its k nearest rows of y, both unit."""
    k = min(k, len(y_ND))
    parts = []
    for _, similar_RN in similarities(x_ND, y_ND):
        parts.append(np.partition(similar_RN, -k, axis=1)[:, -k:].mean(axis=1))
    return np.concatenate(parts)


def ratio_margin(
    x_ND: np.ndarray,
    y_ND: np.ndarray,
    x_groups: Sequence[int],
    y_groups: Sequence[int],
    pairing_PN: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the margin (N,) of each translation, and the mean margin (P,) of random pairings.

    cos(x, y) / (mean cosine of x with its k neighbours in y / 2 + the same for y / 2), k = 4
    (Artetxe & Schwenk 2019, arXiv 1811.01136, ratio). At 1 a translation is as near as the
    neighbours; the ratio forgives a space in which everything is near. Rows are unit vectors; rows
    of one group are one neighbour. NaN where the neighbours have no positive cosine.
    """
    near_x = neighbourhood(x_ND, y_ND[first_of(y_groups)])
    near_y = neighbourhood(y_ND, x_ND[first_of(x_groups)])

    def margins(to_y: np.ndarray) -> np.ndarray:
        scale_N = (near_x + near_y[to_y]) / 2
        cosine_N = np.einsum("nd,nd->n", x_ND, y_ND[to_y])
        return np.where(scale_N > 0, cosine_N / np.where(scale_N > 0, scale_N, 1), np.nan)

    random_P = np.array([_mean_defined(margins(to_y)) for to_y in pairing_PN])
    return margins(np.arange(len(x_ND))), random_P


def ranks(query_QD: np.ndarray, candidate_CD: np.ndarray, right_QC: np.ndarray) -> np.ndarray:
    """Return the rank (Q,), from 1, of the best right candidate of each query, by cosine.

    Of several right candidates the best rank counts (IGLUE, Bugliarello et al. 2022, arXiv
    2201.11732). A wrong candidate that is equally near stands before the right one, so that a
    model which gives all the same vector gets no credit. Rows are unit vectors. A query without a
    right candidate has rank C + 1.
    """
    parts = []
    for start, similar_RC in similarities(query_QD, candidate_CD):
        right_RC = right_QC[start : start + len(similar_RC)]
        best_R1 = np.where(right_RC, similar_RC, -np.inf).max(axis=1, keepdims=True)
        parts.append(1 + (~right_RC & (similar_RC >= best_R1)).sum(axis=1))
    return np.concatenate(parts)


def positions(query_QD: np.ndarray, candidate_CD: np.ndarray) -> np.ndarray:
    """Return position_QC, from 1, of every candidate by falling cosine; equal ones in order."""
    parts = []
    for _, similar_RC in similarities(query_QD, candidate_CD):
        order_RC = np.argsort(-similar_RC, axis=1, kind="stable")
        position_RC = np.empty_like(order_RC)
        np.put_along_axis(position_RC, order_RC, np.arange(1, order_RC.shape[1] + 1)[None], axis=1)
        parts.append(position_RC)
    return np.concatenate(parts)


def random_ranks(
    position_QC: np.ndarray, query_N: np.ndarray, candidate_N: np.ndarray, pairing_PN: np.ndarray
) -> np.ndarray:
    """Return rank_PN: per pair of a query and a candidate, the query's rank among random pairings.

    Pair i links query_N[i] with candidate_N[i]; its candidate goes to another pair by lot. Of a
    query in several pairs the best rank counts, as in `ranks`.
    """
    rank_PN = np.empty(pairing_PN.shape, dtype=np.int64)
    for index, to in enumerate(pairing_PN):
        best_Q = np.full(len(position_QC), position_QC.shape[1] + 1)
        np.minimum.at(best_Q, query_N, position_QC[query_N, candidate_N[to]])
        rank_PN[index] = best_Q[query_N]
    return rank_PN


def first_of(groups: Sequence[int]) -> np.ndarray:
    """Return the first row of each group, in order of the groups."""
    return np.unique(np.asarray(groups), return_index=True)[1]


def similarities(x_ND: np.ndarray, y_ND: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (first row, cosines of the next rows of x with all rows of y), both unit."""
    for start in range(0, len(x_ND), ROWS):
        yield start, x_ND[start : start + ROWS] @ y_ND.T


def _mean_defined(values_N: np.ndarray) -> float:
    defined = values_N[~np.isnan(values_N)]
    return float(defined.mean()) if len(defined) else float("nan")


def _nearest(x_ND: np.ndarray, y_ND: np.ndarray) -> np.ndarray:
    """Return nearest_2N, x to y and y to x, of equal ones the first; one product serves both."""
    forth: list[np.ndarray] = []
    best_N, back_N = np.full(len(y_ND), -np.inf), np.zeros(len(y_ND), dtype=np.int64)
    for start, similar_RN in similarities(x_ND, y_ND):
        forth.append(similar_RN.argmax(axis=1))
        rows_N = similar_RN.argmax(axis=0)
        found_N = similar_RN[rows_N, np.arange(len(y_ND))]
        better_N = found_N > best_N
        best_N[better_N], back_N[better_N] = found_N[better_N], start + rows_N[better_N]
    return np.stack([np.concatenate(forth), back_N])
