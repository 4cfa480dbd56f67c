"""Bring short answers to a common form, so that an exact comparison forgives only surface.

The steps, in order: typographic apostrophes become ', compatibility characters their plain form
(NFKC), letters lose case, punctuation and symbols go at both ends (not inside), white space
collapses, and one leading article of that language goes. Chinese and Japanese lose inner spaces.
"""

import re
import unicodedata
from functools import lru_cache

# written without spaces between words, or (Korean) with particles joined to the word
UNSPACED = frozenset({"zh", "ja", "th", "ko"})
_NO_INNER_SPACE = frozenset({"zh", "ja"})
_ARTICLES: dict[str, tuple[str, ...]] = {
    "en": ("the", "a", "an"),
    "de": (
        *("der", "die", "das", "den", "dem", "des"),
        *("ein", "eine", "einen", "einem", "einer", "eines"),
    ),
    "fr": ("le", "la", "les", "un", "une", "des", "du", "l'"),
    "es": ("el", "la", "los", "las", "lo", "un", "una", "unos", "unas"),
    "it": ("il", "lo", "la", "i", "gli", "le", "un", "uno", "una", "l'", "un'"),
    "pt": ("o", "a", "os", "as", "um", "uma", "uns", "umas"),
    "nl": ("de", "het", "een", "'t"),
}
_APOSTROPHES = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "`": "'"})
_TURKISH = str.maketrans({"İ": "i", "I": "ı"})
_DECIMAL = re.compile(r"\d+(?:[.,]\d+)*")


def base_language(language: str) -> str:
    """Return the primary subtag in lower case: "zh-Hant" gives "zh"."""
    return language.replace("_", "-").split("-")[0].lower()


@lru_cache(maxsize=65536)
def normalise(text: str, language: str) -> str:
    """Return the form of `text` used for exact comparison; "" only for blank text.

    A text of nothing but punctuation or symbols (an emoji, "+") is kept: else every such answer
    would equal an empty one. A sign directly before a digit is kept: "-5" is not "5".
    """
    base = base_language(language)
    folded = fold(text, base)
    bare = _strip_ends(folded)
    if not bare:
        return " ".join(folded.split())
    bare = _strip_article(" ".join(bare.split()), base)
    return bare.replace(" ", "") if base in _NO_INNER_SPACE else bare


def fold(text: str, language: str) -> str:
    """Return `text` in compatibility form (NFKC) without case; Turkish keeps i and ı apart."""
    plain = unicodedata.normalize("NFKC", text.translate(_APOSTROPHES))
    if base_language(language) == "tr":
        plain = plain.translate(_TURKISH)
    return unicodedata.normalize("NFKC", plain.casefold())


def words(text: str, language: str) -> list[str]:
    """Return the folded words of `text`: runs of letters, marks and digits; "3.5" is one word.

    Combining marks count as letters: `\\w` does not match the vowel signs of Hindi or Thai and
    would cut their words to pieces.
    """
    folded = fold(text, language)
    found: list[str] = []
    start = position = 0
    while position < len(folded):
        number = _DECIMAL.match(folded, position)
        if number:
            position = number.end()
        elif is_word_character(folded[position]):
            position += 1
        else:
            if position > start:
                found.append(folded[start:position])
            position += 1
            start = position
    if position > start:
        found.append(folded[start:position])
    return found


def characters(text: str, language: str) -> list[str]:
    """Return the letters and digits of `text` one by one, each with its combining marks."""
    found: list[str] = []
    for word in words(text, language):
        for char in word:
            if unicodedata.category(char)[0] == "M" and found:
                found[-1] += char
            else:
                found.append(char)
    return found


@lru_cache(maxsize=8192)
def is_word_character(char: str) -> bool:
    """Return whether `char` is a letter, a combining mark or a digit."""
    return unicodedata.category(char)[0] in "LMN"


def _strip_ends(text: str) -> str:
    first, last = 0, len(text)
    while first < last and not is_word_character(text[first]):
        if text[first] in "+-−" and text[first + 1 : first + 2].isdigit():
            break
        first += 1
    while last > first and not is_word_character(text[last - 1]):
        last -= 1
    return text[first:last]


def _strip_article(text: str, language: str) -> str:
    for article in _ARTICLES.get(language, ()):
        prefix = article if article.endswith("'") else f"{article} "
        # "'t" has lost its apostrophe with the punctuation
        prefix = prefix.removeprefix("'")
        if text.startswith(prefix):
            # never empty: `text` ends in a word character, the prefix does not
            return _strip_ends(text.removeprefix(prefix))
    return text
