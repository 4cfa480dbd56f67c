"""Exact match and references inside a longer output."""

import pytest

from mpm_eval.metrics import Item
from mpm_eval.metrics.text import Contains, ExactMatch, ExactMatchRaw, contains


def exact(output: str, *references: str, language: str = "en") -> float:
    items = [Item(output, references, language)]
    return float(ExactMatch().aggregate(ExactMatch().statistics(items, language))[0])


def test_any_reference_will_do() -> None:
    assert exact("The car.", "automobile", "car") == 100
    assert exact("bus", "automobile", "car") == 0


def test_an_answer_inside_a_sentence_is_not_an_exact_match() -> None:
    assert exact("it is a car", "car") == 0


@pytest.mark.parametrize("blank", ["", "  ", "\n"])
def test_a_blank_output_matches_nothing_not_even_a_symbol_or_a_blank(blank: str) -> None:
    assert exact(blank, "😀", "!", "") == 0


def test_exact_match_counts_closed_items_and_contains_open_ones() -> None:
    closed, open_ = Item("x", ("x",), "en"), Item("x", ("x",), "en", closed=False)
    assert ExactMatch().applies(closed) and not ExactMatch().applies(open_)
    assert Contains().applies(open_) and not Contains().applies(closed)


def test_contains_is_the_share_of_references_found() -> None:
    item = Item("A dog and a cat on a mat.", ("dog", "the cat", "bird", "mat"), "en", closed=False)
    statistics = Contains().statistics([item], "en")
    assert statistics.tolist() == [[0.75, 1.0]]
    assert float(Contains().aggregate(statistics)[0]) == 75


@pytest.mark.parametrize(
    ("output", "reference", "language", "expected"),
    [
        ("I notice a dog", "no", "en", False),
        ("No, it is not", "no", "en", True),
        ("a hot dog stand", "hot dog", "en", True),
        ("a hot, dog stand", "dog hot", "en", False),
        ("C'est l’homme", "l'homme", "fr", True),
        ("l'homme est là", "un homme", "fr", True),
        ("5.5 metres", "5", "en", False),
        ("图片里有一个红苹果。", "红 苹果", "zh", True),
        ("图片里有一个红苹果。", "狗", "zh", False),
        ("一共有15个", "5", "zh", False),
        ("一共有5个", "5", "zh", True),
        ("고양이가 있다", "고양이", "ko", True),
        ("猫がいます", "猫", "ja", True),
        ("यह किताब है", "किताब", "hi", True),
        ("यह किताबें है", "किताब", "hi", False),
        ("what a day 😀 is", "😀", "en", True),
        ("anything", "", "en", False),
        ("", "dog", "en", False),
    ],
)
def test_references_are_found_as_whole_words(
    output: str, reference: str, language: str, expected: bool
) -> None:
    assert contains(output, reference, language) is expected


def test_raw_exact_match_forgives_nothing() -> None:
    metric = ExactMatchRaw()
    outputs = ("yes", "Yes", "yes ", "yes.", "computer mouse", "")
    items = [Item(output, ("yes", "computer mouse"), "de") for output in outputs]
    assert metric.statistics(items, "de")[:, 0].tolist() == [1, 0, 0, 0, 1, 0]
    assert metric.applies(Item("x", ("y",), "de"))
