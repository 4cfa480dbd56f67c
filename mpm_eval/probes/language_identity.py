"""Language identity: can a linear probe tell two languages apart from vectors of the same texts?"""

from collections.abc import Hashable, Sequence

import numpy as np

from mpm_eval.probes.vectors import scaled

RIDGE = 0.01  # of the mean variance of a dimension
NUM_FOLDS = 5
NUM_SWAPS = 100


def language_identity(
    x_ND: np.ndarray, y_ND: np.ndarray, clusters: Sequence[Hashable], seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return per text the share (N,) of its two members that were told apart, and a floor (P,).

    Ridge regression on the language (+1, -1), Hoerl & Kennard 1970, cross-validated in 5 folds;
    both members of a text and all of a cluster lie in one fold, so no meaning is seen twice. As in
    Libovický et al. 2020 (arXiv 2004.05160, section 4.1) a share near the chance of 0.5 means that
    the language is gone from the vectors. A tie counts half. The floor: shares when the languages
    of each text are swapped by lot before anything is fitted. NaN with a single cluster.
    """
    N = len(x_ND)
    rng = np.random.Generator(np.random.PCG64(seed))
    fold_N = _folds(clusters, rng)
    sign_NP = np.concatenate(
        [np.ones((N, 1)), rng.choice([-1.0, 1.0], size=(N, NUM_SWAPS))], axis=1
    )
    label_RP = np.concatenate([sign_NP, -sign_NP])
    if fold_N.max() == 0:
        return np.full(N, np.nan), np.full(NUM_SWAPS, np.nan)
    z_RD = scaled(np.concatenate([x_ND, y_ND]), centred=True, dtype=np.float64)
    fold_R = np.concatenate([fold_N, fold_N])
    right_RP = np.empty_like(label_RP)
    for fold in range(int(fold_N.max()) + 1):
        test_R = fold_R == fold
        found = _ridge(z_RD[~test_R], label_RP[~test_R], z_RD[test_R])
        right_RP[test_R] = np.heaviside(found * label_RP[test_R], 0.5)
    right_NP = (right_RP[:N] + right_RP[N:]) / 2
    return right_NP[:, 0], right_NP[:, 1:].mean(axis=0)


def _folds(clusters: Sequence[Hashable], rng: np.random.Generator) -> np.ndarray:
    names = list(dict.fromkeys(clusters))
    order = rng.permutation(len(names))
    fold = {name: int(order[i]) % NUM_FOLDS for i, name in enumerate(names)}
    return np.array([fold[name] for name in clusters])


def _ridge(train_RD: np.ndarray, label_RP: np.ndarray, test_SD: np.ndarray) -> np.ndarray:
    """Return predictions (S, P), by the smaller of the two systems of equations."""
    mean_D = train_RD.mean(axis=0)
    train_RD, test_SD = train_RD - mean_D, test_SD - mean_D
    R, D = train_RD.shape
    penalty = max(RIDGE * float((train_RD**2).sum()) / D, 1e-30)
    if D <= R:
        gram_DD = train_RD.T @ train_RD + penalty * np.eye(D)
        return test_SD @ np.linalg.solve(gram_DD, train_RD.T @ label_RP)
    gram_RR = train_RD @ train_RD.T + penalty * np.eye(R)
    return (test_SD @ train_RD.T) @ np.linalg.solve(gram_RR, label_RP)
