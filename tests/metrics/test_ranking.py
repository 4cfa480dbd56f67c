"""Recall at k, against naive loops."""

import random

import pytest

from mpm_eval.metrics import Item, load_metric

METRICS = {k: load_metric(f"recall_at_{k}") for k in (1, 5, 10)}


def item(ranking: tuple[str, ...], *references: str) -> Item:
    return Item(ranking[0] if ranking else "", references, "en", ranking=ranking)


def value(items: list[Item], k: int) -> float:
    metric = METRICS[k]
    return float(metric.aggregate(metric.statistics(items, "en").sum(axis=0)))


def iglue(items: list[Item], k: int) -> float:
    """Return R@k as eval_retrieval.py has it: ranks from 0, the best of the right candidates."""
    ranks = []
    for one in items:
        best = len(one.ranking)
        for rank, candidate in enumerate(one.ranking):
            for reference in one.references:
                if candidate == reference and rank < best:
                    best = rank
        ranks.append(best)
    return 100.0 * len([rank for rank in ranks if rank < k]) / len(ranks)


@pytest.mark.parametrize("k", METRICS)
@pytest.mark.parametrize("seed", range(5))
def test_recall_is_that_of_a_naive_loop(k: int, seed: int) -> None:
    draw = random.Random(seed)
    ids = [f"c{i}" for i in range(40)]
    items = [
        item(tuple(draw.sample(ids, draw.randint(10, 40))), *draw.sample(ids, draw.randint(1, 3)))
        for _ in range(25)
    ]
    assert value(items, k) == pytest.approx(iglue(items, k), abs=1e-12)


def test_the_last_place_that_counts_is_k() -> None:
    ranking = tuple("abcdefghijkl")
    assert [value([item(ranking, "e")], k) for k in METRICS] == [0.0, 100.0, 100.0]
    assert [value([item(ranking, "f")], k) for k in METRICS] == [0.0, 0.0, 100.0]
    assert [value([item(ranking, "k")], k) for k in METRICS] == [0.0, 0.0, 0.0]


def test_several_right_candidates_count_once() -> None:
    assert value([item(tuple("abc"), "a", "b"), item(tuple("abc"), "z")], 5) == 50.0
