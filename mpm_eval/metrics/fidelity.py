"""Language fidelity: whether an output is in the language that was asked for."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np

from mpm_eval.metrics import Item
from mpm_eval.metrics.mean import ratio, require_items, with_ones
from mpm_eval.normalise import base_language, normalise

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

# What a text is told apart from. Part of the signature: another list gives other numbers.
_CANDIDATES = (
    *("en", "zh", "de", "fr", "es", "pt", "it", "nl"),
    *("ja", "ko", "ru", "ar", "hi", "sw", "tr", "vi"),
)
# first word of a character's Unicode name -> script; one character of these is about one word
_WORD_SCRIPTS = {
    "CJK": "han",
    "IDEOGRAPHIC": "han",
    "HIRAGANA": "kana",
    "KATAKANA": "kana",
    "KATAKANA-HIRAGANA": "kana",
    "HANGUL": "hangul",
}
_SCRIPTS = {
    "han": ("zh",),
    "kana": ("ja",),
    "hangul": ("ko",),
    "cyrillic": ("ru", "uk", "bg", "sr", "mk", "be", "kk", "ky", "mn"),
    "arabic": ("ar", "fa", "ur", "ps", "ug"),
    "devanagari": ("hi", "mr", "ne"),
    "greek": ("el",),
    "hebrew": ("he",),
    "thai": ("th",),
    "bengali": ("bn", "as"),
    "tamil": ("ta",),
    "telugu": ("te",),
    "georgian": ("ka",),
    "armenian": ("hy",),
}
_OTHER_SCRIPT = frozenset(tag for tags in _SCRIPTS.values() for tag in tags)


class Fidelity:
    """Share of outputs in the language asked for, 0 to 100.

    An output that equals, normalised, a reference of any item given is in that language: short
    answers are too short for an identifier. Others are judged by script, and between languages
    of one script by py3langid. Outputs without letters are not faithful unless they equal a
    reference. `reference_error_rate` says how often the judgement is wrong.
    """

    name = "fidelity"
    kinds = frozenset({"generate"})
    higher_is_better = True
    range = (0.0, 100.0)

    def applies(self, item: Item) -> bool:
        return True

    def supports(self, language: str) -> bool:
        return language in _CANDIDATES

    def signature(self, language: str) -> str:
        return (
            f"{self.name}|refs:equal|script:first"
            f"|candidates:{','.join(_CANDIDATES)}|py3langid:{version('py3langid')}"
        )

    def statistics(self, items: Sequence[Item], language: str) -> np.ndarray:
        """Return x_N2: in the language (0 or 1), 1."""
        require_items(items, self.name)
        return with_ones([float(faithful) for faithful in are_faithful(items, language)])

    def aggregate(self, totals: np.ndarray) -> np.ndarray:
        return 100 * ratio(totals[..., 0], totals[..., 1])


def are_faithful(items: Sequence[Item], language: str) -> list[bool]:
    """Return, per item, whether its output is in `language`, as `Fidelity` judges it."""
    known = {normalise(ref, language) for item in items for ref in item.references}
    candidates = _candidates(language)
    outputs = [normalise(item.output, language) for item in items]
    return [
        bool(output) and (output in known or identify(item.output, candidates) == language)
        for item, output in zip(items, outputs, strict=True)
    ]


def identify(text: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate language that `text` is written in, None where that cannot be told.

    The script that most words are in leaves some candidates; of several, py3langid picks. Any
    kana makes Chinese characters Japanese, and so does a character that only Japanese writes;
    other Chinese characters alone are Chinese, simplified or traditional.
    """
    script = main_script(text)
    if script == "han" and _only_japanese_writes(text):
        script = "kana"
    left = sorted({tag for tag in candidates if script and _writes(tag, script)})
    if len(left) < 2:
        return left[0] if left else None
    return _most_likely(text, left)


def main_script(text: str) -> str:
    """Return the script of most words of `text`, e.g. "latin", "han", "kana"; "" without letters.

    A run of letters is one word, and so is one Chinese character, kana or Hangul syllable:
    a brand name in Latin letters does not outweigh a Chinese sentence.
    """
    counts: Counter[str] = Counter()
    previous = ""
    for char in unicodedata.normalize("NFKC", text):
        script = _script(char)
        if unicodedata.category(char).startswith("M"):
            continue  # a mark belongs to the letter before it
        if script and (script in _WORD_SCRIPTS.values() or script != previous):
            counts[script] += 1
        previous = script
    if counts["kana"]:
        counts["kana"] += counts.pop("han", 0)
    return max(counts, key=counts.__getitem__) if counts.total() else ""


def reference_error_rate(references_by_language: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Return, per language, the percentage of its references that `identify` takes for another.

    References are in their language by definition, so this is how often a faithful output of the
    same kind that equals no reference would be judged unfaithful, 0 to 100. The candidates are
    those of the metric, whatever languages are given. Raises ValueError for a language without
    references.
    """
    rates: dict[str, float] = {}
    for language, references in references_by_language.items():
        if not references:
            raise ValueError(f"fidelity: no references in '{language}'")
        candidates = _candidates(language)
        wrong = sum(identify(ref, candidates) != language for ref in references)
        rates[language] = 100 * wrong / len(references)
    return rates


def _candidates(language: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*_CANDIDATES, language)))


def _writes(language: str, script: str) -> bool:
    base = base_language(language)
    return base not in _OTHER_SCRIPT if script == "latin" else base in _SCRIPTS.get(script, ())


@lru_cache(maxsize=8192)
def _script(char: str) -> str:
    # ordinal signs and digits are letters of no language
    if unicodedata.category(char)[0] not in "LM":
        return ""
    name = unicodedata.name(char, "").split(" ")[0]
    return _WORD_SCRIPTS.get(name, name.lower())


def _only_japanese_writes(text: str) -> bool:
    """Return whether a character is in Japan's standard and in neither standard of Chinese."""

    def is_in(char: str, standard: str) -> bool:
        return bool(char.encode(standard, errors="ignore"))

    return any(
        is_in(char, "shift_jis") and not (is_in(char, "gb2312") or is_in(char, "big5"))
        for char in unicodedata.normalize("NFKC", text)
        if _script(char) == "han"
    )


def scripts(text: str) -> frozenset[str]:
    """Return the scripts that the letters of `text` are in, e.g. {"han", "latin"}."""
    return frozenset(filter(None, map(_script, unicodedata.normalize("NFKC", text))))


def scripts_of(language: str) -> frozenset[str]:
    """Return the scripts that `language` is written in."""
    found = {script for script in ("latin", *_SCRIPTS) if _writes(language, script)}
    # Japanese writes Chinese characters, Korean may
    return frozenset(found | ({"han"} if found & {"kana", "hangul"} else set()))


def _most_likely(text: str, languages: Sequence[str]) -> str | None:
    ranked = dict(_identifier().rank(text))
    scores = {tag: ranked[base_language(tag)] for tag in languages if base_language(tag) in ranked}
    # a text without any known feature gives all languages the same score
    if len(set(scores.values())) < 2:
        return None
    return max(scores, key=scores.__getitem__)


@lru_cache(maxsize=1)
def _identifier() -> "LanguageIdentifier":
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    # an own instance: the package's global one can be restricted by any other user of it
    return LanguageIdentifier.from_model_file(MODEL_FILE)
