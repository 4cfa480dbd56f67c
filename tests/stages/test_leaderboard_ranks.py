"""Rank intervals: by hand, against the definition, and how often they are wrong in simulation."""

import numpy as np
import pytest

from mpm_eval.metrics import load_metric
from mpm_eval.stages.leaderboard.ranks import ci95, over_languages, rank, rank_intervals

METRIC = load_metric("exact_match")


def sums(hits: np.ndarray) -> np.ndarray:
    """Return x_C2 of exact_match for one item per cluster."""
    return np.stack([hits.astype(float), np.ones(len(hits))], axis=1)


@pytest.mark.parametrize(
    ("wins", "expected"),
    [
        ([], [(1, 3), (1, 3), (1, 3)]),
        ([(0, 1), (0, 2), (1, 2)], [(1, 1), (2, 2), (3, 3)]),
        ([(0, 2)], [(1, 2), (1, 3), (2, 3)]),  # the middle one is tied with both
        ([(2, 0), (2, 1)], [(2, 3), (2, 3), (1, 1)]),
    ],
)
def test_a_rank_is_between_those_better_and_those_worse(
    wins: list[tuple[int, int]], expected: list[tuple[int, int]]
) -> None:
    assert rank_intervals(3, wins) == expected


def test_far_apart_models_have_one_rank_each_in_either_direction() -> None:
    hits = [np.arange(200) < k for k in (180, 100, 20)]
    ranking = rank([sums(h) for h in hits], METRIC.aggregate, True)
    assert ranking.ranks == ((1, 1), (2, 2), (3, 3))
    assert rank([sums(h) for h in hits], METRIC.aggregate, False).ranks == ((3, 3), (2, 2), (1, 1))


def test_equal_models_are_tied_and_nothing_can_be_detected_from_them() -> None:
    hits = sums(np.arange(100) % 2)
    ranking = rank([hits, hits, hits], METRIC.aggregate, True)
    assert ranking.ranks == ((1, 3),) * 3
    assert ranking.detectable is None


def test_pairs_that_would_be_significant_alone_are_not_among_many() -> None:
    # one pair differs in 9 of 400 items, all one way: p = 0.02 alone, and 45 pairs are compared
    base = np.arange(400) % 2 == 0
    better = base | np.isin(np.arange(400), range(1, 19, 2))
    assert rank([sums(better), sums(base)], METRIC.aggregate, True).ranks == ((1, 1), (2, 2))
    many = [sums(better), *9 * [sums(base)]]
    assert rank(many, METRIC.aggregate, True).ranks == ((1, 10),) * 10


def test_a_cluster_counts_once_however_many_items_it_has() -> None:
    # ten pictures: a model that is right on two more of them is not significantly better,
    # though each has a hundred questions
    better = np.array([[100.0 * (i < 6), 100.0] for i in range(10)])
    worse = np.array([[100.0 * (i < 4), 100.0] for i in range(10)])
    assert rank([better, worse], METRIC.aggregate, True).ranks == ((1, 2), (1, 2))


def test_the_detectable_difference_is_that_of_independent_proportions() -> None:
    # 2.80 standard errors of a difference of two independent shares of a half, n = 1000
    rng = np.random.default_rng(0)
    a, b = (sums(rng.random(1000) < 0.5) for _ in range(2))
    ranking = rank([a, b], METRIC.aggregate, True)
    assert ranking.detectable == pytest.approx(2.80 * 100 * np.sqrt(2 * 0.25 / 1000), rel=0.05)
    alone = rank([a], METRIC.aggregate, True)
    assert alone.ranks == ((1, 1),)
    assert alone.detectable == pytest.approx(2.80 * 100 * np.sqrt(2 * 0.25 / 1000), rel=0.05)


def test_mean_and_worst_are_taken_of_the_values_of_the_languages() -> None:
    rng = np.random.default_rng(1)
    parts = [sums(rng.random(50) < share) for share in (0.2, 0.9)]
    values = [float(METRIC.aggregate(part.sum(axis=0))) for part in parts]
    total = np.concatenate(parts, axis=1).sum(axis=0)
    for reduce, expected in ((np.mean, np.mean(values)), (np.min, min(values))):
        aggregate = over_languages(METRIC.aggregate, 2, reduce)
        assert float(aggregate(total)) == pytest.approx(expected)
        stacked = aggregate(np.stack([total, total]))
        assert stacked.tolist() == pytest.approx([expected, expected])


def test_the_interval_of_a_mean_is_narrower_where_languages_share_no_luck() -> None:
    rng = np.random.default_rng(2)
    a, b = (rng.random(400) < 0.5 for _ in range(2))
    aggregate = over_languages(METRIC.aggregate, 2, np.mean)
    apart = ci95(np.concatenate([sums(a), sums(b)], axis=1), aggregate)
    together = ci95(np.concatenate([sums(a), sums(a)], axis=1), aggregate)
    assert apart is not None and together is not None
    widths = [high - low for low, high in (apart, together)]
    assert widths[0] / widths[1] == pytest.approx(np.sqrt(0.5), rel=0.1)


def test_without_spread_there_is_no_interval() -> None:
    assert ci95(sums(np.ones(50)), METRIC.aggregate) is None
    assert ci95(sums(np.ones(1)), METRIC.aggregate) is None
    assert rank([sums(np.ones(1))], METRIC.aggregate, True).detectable is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shares", "true"),
    [
        ((0.5, 0.5, 0.5, 0.5, 0.5), [(1, 5)] * 5),  # any rank is right where all are equal
        ((0.6, 0.5, 0.5, 0.5, 0.4), [(1, 1), (2, 4), (2, 4), (2, 4), (5, 5)]),
    ],
)
def test_all_intervals_hold_the_true_ranks_in_19_of_20_leaderboards(
    shares: tuple[float, ...], true: list[tuple[int, int]]
) -> None:
    rng = np.random.default_rng(3)
    num_boards, num_wrong = 150, 0
    for _ in range(num_boards):
        difficulty = rng.normal(0, 0.15, 150)  # shared by all models
        models = [sums(rng.random(150) < np.clip(p + difficulty, 0, 1)) for p in shares]
        found = rank(models, METRIC.aggregate, True).ranks
        num_wrong += not all(
            low <= first and last <= high
            for (low, high), (first, last) in zip(found, true, strict=True)
        )
    # 5 % of the boards and three standard deviations of that number
    assert num_wrong <= num_boards * 0.05 + 3 * np.sqrt(num_boards * 0.05 * 0.95)
