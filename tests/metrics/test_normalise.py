"""What an exact comparison forgives, and what it does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpm_eval.normalise import characters, normalise, words


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("  The Dog. ", "en", "dog"),
        ("an  apple", "en", "apple"),
        ("„Der Hund“!", "de", "hund"),
        ("Straße", "de", "strasse"),
        ("L’homme", "fr", "homme"),
        ("l'homme.", "fr", "homme"),
        ("Une  pomme", "fr", "pomme"),
        ("¿El perro?", "es", "perro"),
        ("l’acqua", "it", "acqua"),
        ("O cão", "pt", "cão"),
        ("'t huis", "nl", "huis"),
        ("Ｄｏｇ", "en", "dog"),
        ("红 苹果。", "zh", "红苹果"),
        ("「赤い りんご」", "ja", "赤いりんご"),
        ("빨간 사과", "ko", "빨간 사과"),
        ("IŞIK", "tr", "ışık"),
        ("İstanbul", "tr", "istanbul"),
        ("हिन्दी।", "hi", "हिन्दी"),
        ("the the dog", "en", "the dog"),
        ("- dog", "en", "dog"),
        ("**dog**", "en", "dog"),
        ("_dog_", "en", "dog"),
        ("50 %", "en", "50"),
    ],
)
def test_surface_is_forgiven(text: str, language: str, expected: str) -> None:
    assert normalise(text, language) == expected


@pytest.mark.parametrize(
    ("one", "other", "language"),
    [
        ("-5", "5", "en"),
        ("😀", "", "en"),
        ("+", "-", "en"),
        ("the", "", "en"),
        ("die", "", "de"),
        ("schon", "schön", "de"),
        ("3.5", "35", "en"),
        ("der hund", "hund", "en"),  # another language's article
        ("le dog", "dog", "en"),
        ("theory", "ory", "en"),
        ("a b", "ab", "en"),
    ],
)
def test_content_is_not_forgiven(one: str, other: str, language: str) -> None:
    assert normalise(one, language) != normalise(other, language)


@given(st.text(max_size=20), st.sampled_from(["en", "de", "fr", "zh", "tr", "hi"]))
def test_only_blank_text_becomes_blank(text: str, language: str) -> None:
    assert bool(normalise(text, language)) or not text.strip()


@given(st.text(max_size=20), st.sampled_from(["en", "zh", "tr"]))
def test_ends_and_spaces_do_not_matter(text: str, language: str) -> None:
    bare = normalise(text, language)
    assert bare == bare.strip()
    assert "  " not in bare


def test_words_keep_combining_marks_and_decimals() -> None:
    assert words("हिन्दी किताब, 3.5 kg!", "hi") == ["हिन्दी", "किताब", "3.5", "kg"]
    assert words("l'homme a 2 chats.", "fr") == ["l", "homme", "a", "2", "chats"]
    assert words("", "en") == words(" ?! ", "en") == []


def test_characters_keep_their_marks_and_drop_punctuation() -> None:
    assert characters("红苹果，A！", "zh") == ["红", "苹", "果", "a"]
    assert characters("ที่", "th") == ["ที่"]
