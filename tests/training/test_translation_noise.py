"""Damaged translations: what each kind may do to a text, and that more is never less."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.translation_noise import KINDS, damaged

TEXTS = st.lists(st.text(string.ascii_lowercase, min_size=1, max_size=6), min_size=1, max_size=8)


def damage(text: str, kind: str, share: float, language: str = "de") -> str:
    return damaged(text, language, kind, share, 0, lambda: "other")


@pytest.mark.parametrize("kind", KINDS)
@given(words=TEXTS)
def test_a_share_of_zero_changes_nothing_and_the_same_text_errs_in_the_same_way(
    kind: str, words: list[str]
) -> None:
    text = " ".join(words)
    assert damage(text, kind, 0.0) == text
    assert damage(text, kind, 0.5) == damage(text, kind, 0.5)


@given(words=TEXTS, share=st.floats(0, 1), more=st.floats(0, 1))
def test_a_larger_share_drops_what_a_smaller_one_drops(
    words: list[str], share: float, more: float
) -> None:
    few, many = sorted((share, more))
    numbered = " ".join(f"{word}{index}" for index, word in enumerate(words))
    kept = set(damage(numbered, "dropped", many).split())
    assert kept and kept <= set(damage(numbered, "dropped", few).split())


@given(words=TEXTS, share=st.floats(0, 1))
def test_swapping_keeps_the_words(words: list[str], share: float) -> None:
    assert sorted(damage(" ".join(words), "swapped", share).split()) == sorted(words)


def test_all_words_dropped_but_one_all_swapped_another_sense() -> None:
    assert len(damage("ein sehr kleiner Hund", "dropped", 1.0).split()) == 1
    assert damage("kleiner Hund", "swapped", 1.0) == "Hund kleiner"
    assert damage("kleiner Hund", "wrong_sense", 1.0) == "other"


def test_chinese_characters_are_its_words() -> None:
    assert damage("小狗", "swapped", 1.0, "zh") == "狗小"
    assert len(damage("小狗脸", "dropped", 1.0, "zh")) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_about_the_share_of_long_texts_is_damaged(kind: str) -> None:
    texts = [f"a{i} b{i}" for i in range(400)]
    share = sum(damage(text, kind, 0.25) != text for text in texts) / len(texts)
    expected = {"wrong_sense": 0.25, "swapped": 0.25, "dropped": 1 - 0.75**2}[kind]
    assert abs(share - expected) < 0.07
