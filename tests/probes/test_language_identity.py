"""The language-identity probe: told apart, not told apart, folds, a classifier by hand."""

import numpy as np
import pytest

from mpm_eval.probes.language_identity import NUM_FOLDS, _folds, _ridge, language_identity


def meanings(number: int = 120, dimension: int = 8) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(number, dimension))


def test_a_shift_by_language_is_found_and_stands_above_the_floor() -> None:
    x = meanings()
    right_N, floor_P = language_identity(x, x + 5, range(120))
    assert right_N.mean() == 1
    assert np.quantile(floor_P, 0.95) < 0.65


def test_the_same_vectors_cannot_be_told_apart() -> None:
    x = meanings()
    right_N, _ = language_identity(x, x.copy(), range(120))
    assert right_N.mean() == pytest.approx(0.5)


def test_unrelated_noise_stays_at_chance() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(300, 8)), rng.normal(size=(300, 8))
    right_N, floor_P = language_identity(x, y, range(300))
    assert abs(right_N.mean() - 0.5) < 0.06
    assert floor_P.mean() == pytest.approx(0.5, abs=0.01)


def test_vectors_without_variance_are_ties() -> None:
    right_N, _ = language_identity(np.ones((20, 3)), np.ones((20, 3)), range(20))
    assert right_N.tolist() == [0.5] * 20


def test_a_cluster_that_is_learned_by_heart_does_not_help() -> None:
    # the language is a coin for each cluster: only a fold that splits clusters could know it
    rng = np.random.default_rng(2)
    cluster = np.arange(200) // 10
    sign = rng.choice([-1.0, 1.0], 20)[cluster]
    own = np.eye(20)[cluster]
    x, y = own * sign[:, None], -own * sign[:, None]
    whole, _ = language_identity(x, y, cluster.tolist())
    split, _ = language_identity(x, y, range(200))
    assert split.mean() > 0.9 and whole.mean() == 0.5


def test_folds_keep_clusters_whole_and_have_like_sizes() -> None:
    clusters = [f"c{i // 3}" for i in range(60)]
    fold_N = _folds(clusters, np.random.default_rng(0))
    assert len({(c, int(f)) for c, f in zip(clusters, fold_N, strict=True)}) == 20
    assert np.bincount(fold_N).tolist() == [12] * NUM_FOLDS


def test_one_cluster_cannot_be_cross_validated() -> None:
    right_N, floor_P = language_identity(meanings(10), meanings(10), ["same"] * 10)
    assert np.isnan(right_N).all() and np.isnan(floor_P).all()


@pytest.mark.parametrize("shape", [(40, 5), (12, 30)])
def test_both_systems_of_equations_minimise_the_ridge_loss(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    train, label, test = (
        rng.normal(size=shape),
        rng.normal(size=(shape[0], 2)),
        rng.normal(size=(4, shape[1])),
    )
    centred = train - train.mean(axis=0)
    penalty = 0.01 * (centred**2).sum() / shape[1]
    # the penalty as extra rows of an ordinary least-squares problem
    rows = np.concatenate([centred, np.sqrt(penalty) * np.eye(shape[1])])
    weights = np.linalg.lstsq(rows, np.concatenate([label, np.zeros((shape[1], 2))]), rcond=None)[0]
    np.testing.assert_allclose(
        _ridge(train, label, test), (test - train.mean(axis=0)) @ weights, rtol=1e-6
    )
