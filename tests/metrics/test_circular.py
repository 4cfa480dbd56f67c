"""CircularEval: a question counts when all rotations of its options are answered right."""

import itertools

import numpy as np
import pytest

from mpm_eval.metrics import Item
from mpm_eval.metrics.circular import CircularAccuracy
from mpm_eval.schema import OptionScore


def item(cluster: str, right: bool) -> Item:
    scores = (OptionScore(-1.0, 1), OptionScore(-2.0, 1))
    return Item("", ("A",), "en", option_scores=scores, answer=0 if right else 1, cluster=cluster)


def value(items: list[Item]) -> float:
    metric = CircularAccuracy()
    return float(metric.aggregate(metric.statistics(items, "en").sum(axis=0)))


def test_one_wrong_rotation_makes_the_question_wrong() -> None:
    items = [item("q", True), item("q", True), item("q", False), item("r", True), item("r", True)]
    assert value(items) == pytest.approx(50.0)


def test_every_question_weighs_the_same_however_many_rotations_it_has() -> None:
    items = [*[item("q", True)] * 4, item("r", False), item("s", False)]
    assert value(items) == pytest.approx(100 / 3)


def test_it_is_the_naive_count_over_all_patterns() -> None:
    for pattern in itertools.product((True, False), repeat=5):
        items = [item("qqrrr"[i], right) for i, right in enumerate(pattern)]
        naive = 100 * (all(pattern[:2]) + all(pattern[2:])) / 2
        assert value(items) == pytest.approx(naive)


def test_a_resample_of_questions_is_the_mean_over_the_questions_drawn() -> None:
    metric = CircularAccuracy()
    rows = metric.statistics([item("q", True), item("q", True), item("r", False)], "en")
    drawn = np.array([2, 2, 1]) @ rows  # question q twice, r once
    assert float(metric.aggregate(drawn)) == pytest.approx(100 * 2 / 3)
