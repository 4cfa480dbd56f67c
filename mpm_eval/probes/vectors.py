"""Unit vectors from hidden states of any size, and subsets and pairings drawn from their rows."""

from collections.abc import Hashable, Sequence

import numpy as np

NUM_PAIRINGS = 1000  # random pairings of the floor of a per-text probe
NUM_MATRIX_PAIRINGS = 100  # the same where a pairing moves a whole matrix
NUM_HALVES = 200
QUANTILE = 0.95  # of the floors


def scaled(x_ND: np.ndarray, centred: bool, dtype: type = np.float32) -> np.ndarray:
    """Return x_ND divided by its largest value, less the mean row when `centred`."""
    x_ND = x_ND.astype(dtype)
    # The largest value first: squares of large activations overflow single precision.
    x_ND = x_ND / max(float(np.abs(x_ND).max()), 1e-30)
    if centred:
        x_ND = x_ND - x_ND.mean(axis=0, dtype=np.float64).astype(dtype)
    return x_ND


def unit(x_ND: np.ndarray, centred: bool = False, dtype: type = np.float32) -> np.ndarray:
    """Return rows of length 1, rows of zeros as they are; `centred` takes away the mean first.

    Taking away the mean of a language removes what says only the language (Libovický et al. 2020,
    arXiv 2004.05160).
    """
    x_ND = scaled(x_ND, centred, dtype)
    norms = np.linalg.norm(x_ND, axis=1, keepdims=True)
    unit_ND: np.ndarray = x_ND / np.where(norms > 0, norms, 1)
    return unit_ND


def pairings(num_texts: int, num_pairings: int, seed: int = 0) -> np.ndarray:
    """Return pairing_PN: in each row, text i of one side is paired with a random one of the other.

    The same numbers and seed give the same pairings, so layers share them.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    return np.stack([rng.permutation(num_texts) for _ in range(num_pairings)])


def halves(clusters: Sequence[Hashable], num_halves: int = NUM_HALVES, seed: int = 0) -> np.ndarray:
    """Return mask_NM of 0 and 1: every text first, then random halves of the clusters.

    A half drawn without replacement varies around the whole as the whole varies around the truth:
    (1 / (n/2) - 1 / n) s^2 = s^2 / n (delete-half jackknife, Shao & Wu 1989, Annals of Statistics
    17:1176). A bootstrap would draw texts twice, and a text compared with itself spoils a measure
    over pairs of texts.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    index = {name: i for i, name in enumerate(dict.fromkeys(clusters))}
    cluster_N = np.array([index[name] for name in clusters])
    size = len(index) // 2
    columns = [np.ones(len(cluster_N))]
    for _ in range(num_halves):
        chosen = np.zeros(len(index))
        chosen[rng.permutation(len(index))[:size]] = 1
        columns.append(chosen[cluster_N])
    return np.stack(columns, axis=1)
