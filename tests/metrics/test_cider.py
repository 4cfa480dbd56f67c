"""CIDEr against pycocoevalcap."""

import pytest
from pycocoevalcap.cider.cider import Cider as CocoCider

from mpm_eval.metrics import Item
from mpm_eval.metrics.cider import Cider, tokenize

ROWS = [
    ("a brown dog runs on grass", ("a brown dog runs on the grass", "a dog running outside")),
    ("two kids play in water", ("two children are playing in the water",)),
    ("a red bus", ("a red bus in front of a house", "the bus is red", "a bus")),
    ("", ("an old man reads a newspaper",)),
]


def value(items: list[Item], language: str) -> float:
    return float(Cider().aggregate(Cider().statistics(items, language).sum(axis=0)))


def test_cider_equals_pycocoevalcap_on_tokenized_text() -> None:
    expected, each = CocoCider().compute_score(
        {k: list(references) for k, (_, references) in enumerate(ROWS)},
        {k: [output] for k, (output, _) in enumerate(ROWS)},
    )
    items = [Item(output, references, "en") for output, references in ROWS]
    assert Cider().statistics(items, "en")[:, 0] == pytest.approx(each)
    assert value(items, "en") == pytest.approx(expected)


def test_case_and_punctuation_do_not_matter() -> None:
    plain = [Item(output, references, "en") for output, references in ROWS]
    noisy = [Item(f"{output.upper()}!", references, "en") for output, references in ROWS]
    assert value(noisy, "en") == pytest.approx(value(plain, "en"))


def test_one_item_raises_instead_of_scoring_zero() -> None:
    with pytest.raises(ValueError, match="give at least two"):
        Cider().statistics([Item("a dog runs here", ("a dog runs here",), "en")], "en")


def test_references_without_any_word_raise() -> None:
    with pytest.raises(ValueError, match="no reference holds"):
        Cider().statistics([Item("dog", ("!",), "en")] * 2, "en")


def test_a_perfect_output_of_three_words_reaches_three_quarters() -> None:
    items = [Item("a red bus", ("a red bus",), "en"), Item("two old men", ("two old men",), "en")]
    assert value(items, "en") == pytest.approx(7.5)


def test_chinese_is_split_by_character_so_near_captions_score() -> None:
    items = [
        Item("一只棕色的狗在草地上奔跑", ("一只棕色的小狗在草地上跑",), "zh"),
        Item("两个孩子在水里玩", ("两个孩子正在水里玩耍",), "zh"),
    ]
    assert value(items, "zh") > 2
    assert value(items, "en") == 0  # unsegmented: each caption is one word


def test_tokens_by_language() -> None:
    assert tokenize("红苹果，好！", "zh") == "红 苹 果 好"
    assert tokenize("A dog's  tail.", "en") == "a dog s tail"
    assert tokenize("हिन्दी किताब", "hi") == "हिन्दी किताब"
