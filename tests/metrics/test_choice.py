"""Accuracy against three lines of Python, and chance taken out."""

import math
import random

import pytest

from mpm_eval.metrics import Item
from mpm_eval.metrics.choice import Accuracy, AccuracyAboveChance
from mpm_eval.schema import OptionScore


def item(scores: list[tuple[float, int]], answer: int) -> Item:
    return Item("", ("x",), "en", tuple(OptionScore(s, n) for s, n in scores), answer)


def value(metric: Accuracy, items: list[Item]) -> float:
    return float(metric.aggregate(metric.statistics(items, "en").sum(axis=0)))


def test_accuracy_equals_three_lines_of_python() -> None:
    rng = random.Random(0)
    items = [
        item([(-rng.random() * 9, rng.randint(1, 5)) for _ in range(4)], rng.randrange(4))
        for _ in range(200)
    ]
    per_token = [[s.logprob / s.num_tokens for s in i.option_scores] for i in items]
    right = [p.index(max(p)) == i.answer for p, i in zip(per_token, items, strict=True)]
    assert value(Accuracy(), items) == pytest.approx(100 * sum(right) / len(right))


def test_scores_are_compared_per_token_so_long_options_are_not_punished() -> None:
    assert value(Accuracy(), [item([(-3.0, 1), (-4.0, 4)], answer=1)]) == 100


def test_of_equal_options_the_first_is_chosen() -> None:
    assert value(Accuracy(), [item([(-1.0, 1), (-2.0, 2)], answer=0)]) == 100
    assert value(Accuracy(), [item([(-1.0, 1), (-2.0, 2)], answer=1)]) == 0


@pytest.mark.parametrize(
    ("right", "wrong", "expected"),
    # four options: chance is a quarter
    [(4, 0, 100.0), (1, 3, 0.0), (0, 4, -100 / 3), (2, 2, 100 / 3)],
)
def test_above_chance_is_0_for_guessing_and_100_for_all_right(
    right: int, wrong: int, expected: float
) -> None:
    options = [(-1.0, 1), (-2.0, 1), (-3.0, 1), (-4.0, 1)]
    items = [item(options, 0)] * right + [item(options, 3)] * wrong
    assert value(AccuracyAboveChance(), items) == pytest.approx(expected)


def test_above_chance_mixes_items_with_different_numbers_of_options() -> None:
    two, five = [(-1.0, 1), (-2.0, 1)], [(-float(k), 1) for k in range(1, 6)]
    # (1 right - (1/2 + 1/5)) / (2 - (1/2 + 1/5))
    items = [item(two, 0), item(five, 3)]
    assert value(AccuracyAboveChance(), items) == pytest.approx(100 * 0.3 / 1.3)


def test_above_chance_of_questions_with_one_option_is_undefined() -> None:
    assert math.isnan(value(AccuracyAboveChance(), [item([(-1.0, 1)], 0)]))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_raises(bad: float) -> None:
    with pytest.raises(ValueError, match="option 1 has log-probability"):
        Accuracy().statistics([item([(-1.0, 1), (bad, 1)], 0)], "en")


def test_an_option_without_tokens_raises() -> None:
    with pytest.raises(ValueError, match="over 0 tokens"):
        Accuracy().statistics([item([(0.0, 0), (-1.0, 1)], 0)], "en")


@pytest.mark.parametrize("answer", [-1, 2])
def test_an_answer_that_is_not_an_option_raises(answer: int) -> None:
    with pytest.raises(ValueError, match="not one of 2 options"):
        Accuracy().statistics([item([(-1.0, 1), (-2.0, 1)], answer)], "en")


def test_an_item_without_option_scores_raises_and_is_not_left_out() -> None:
    assert Accuracy().applies(item([], 0))
    with pytest.raises(ValueError, match="no option scores"):
        Accuracy().statistics([item([], 0)], "en")
