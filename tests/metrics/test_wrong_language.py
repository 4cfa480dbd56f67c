"""Outputs in the pivot language, mixed outputs, and content given the right language."""

import math

import pytest

from mpm_eval.metrics import Item, load_metric


def item(output: str, language: str, reference: str = "?", closed: bool = True) -> Item:
    return Item(output, (reference,), language, closed=closed)


def hits(metric: str, items: list[Item], language: str) -> list[float]:
    return [float(row[0]) for row in load_metric(metric).statistics(items, language)]


def value(metric: str, items: list[Item], language: str) -> float:
    loaded = load_metric(metric)
    return float(loaded.aggregate(loaded.statistics(items, language).sum(axis=0)))


@pytest.mark.parametrize(
    ("output", "language", "expected"),
    [
        ("A brown dog runs over the grass.", "zh", 1.0),
        ("A brown dog runs over the grass.", "de", 1.0),
        ("The children are playing in the water together.", "es", 1.0),
        ("Ein brauner Hund läuft über die Wiese.", "de", 0.0),
        ("一只棕色的狗在草地上奔跑", "zh", 0.0),
        ("Собака бежит по траве.", "de", 0.0),  # a third language
        ("", "de", 0.0),
        ("42", "de", 0.0),
    ],
)
def test_in_pivot_sees_english_in_place_of_the_language(
    output: str, language: str, expected: float
) -> None:
    assert hits("in_pivot", [item(output, language)], language) == [expected]


def test_an_english_word_that_is_also_a_reference_is_not_in_pivot() -> None:
    assert hits("in_pivot", [item("Computer", "de", "Computer")], "de") == [0.0]


@pytest.mark.parametrize("metric", ["in_pivot", "code_switching"])
def test_the_pivot_language_cannot_miss_itself(metric: str) -> None:
    assert not load_metric(metric).supports("en")


@pytest.mark.parametrize(
    ("output", "language", "expected"),
    [
        ("这是一只 dog 在跑", "zh", 1.0),
        ("Это большая dog бежит", "ru", 1.0),
        ("これは犬です", "ja", 0.0),  # kana and Chinese characters are both Japanese
        ("这是一只狗", "zh", 0.0),
        ("This is a brown dog", "zh", 0.0),  # not mixed: all English
        ("Ein brauner Hund läuft über die Wiese. The dog is running over the grass.", "de", 1.0),
        ("Ein brauner Hund läuft über die Wiese. Er ist sehr schnell unterwegs.", "de", 0.0),
        ("Ein Hund. Oh no!", "de", 0.0),  # too short to tell
        ("", "zh", 0.0),
    ],
)
def test_code_switching_sees_two_scripts_or_two_sentences(
    output: str, language: str, expected: float
) -> None:
    assert hits("code_switching", [item(output, language)], language) == [expected]


def test_a_script_that_the_reference_uses_may_be_used() -> None:
    assert hits("code_switching", [item("一件 T 恤", "zh", "T恤")], "zh") == [0.0]


def test_content_in_language_counts_only_answers_in_the_language() -> None:
    items = [
        item("ein Hund", "de", "Hund"),  # right
        item("eine Katze", "de", "Maus"),  # wrong, in German
        item("a brown dog on the grass", "de", "Vogel"),  # English
    ]
    assert hits("fidelity", items, "de") == [1.0, 1.0, 0.0]
    assert value("exact_match_in_language", items, "de") == pytest.approx(50.0)
    assert value("exact_match", items, "de") == pytest.approx(100 / 3)


def test_content_in_language_is_undefined_where_nothing_is_in_the_language() -> None:
    items = [item("a brown dog on the grass", "zh", "狗")]
    assert math.isnan(value("exact_match_in_language", items, "zh"))
    assert math.isnan(value("meaning_in_language", items, "zh"))


def test_meaning_in_language_is_the_mean_over_answers_in_the_language() -> None:
    german = item("ein brauner Hund läuft über die Wiese", "de", "ein Hund rennt im Gras")
    english = item("a brown dog runs on the grass", "de", "ein Hund rennt im Gras")
    alone = value("meaning", [german], "de")
    assert value("meaning_in_language", [german, english], "de") == pytest.approx(alone, abs=1e-4)
