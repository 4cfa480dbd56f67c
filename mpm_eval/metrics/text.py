"""Exact answers: equal to a reference, or references found inside a longer answer."""

import re
from collections.abc import Sequence

import numpy as np

from mpm_eval.metrics import Item
from mpm_eval.metrics.mean import ratio, require_items, with_ones
from mpm_eval.normalise import UNSPACED, base_language, normalise, words


class ExactMatch:
    """Share of closed items whose output equals any reference after normalising, 0 to 100."""

    name = "exact_match"
    kinds = frozenset({"generate"})
    higher_is_better = True
    range = (0.0, 100.0)

    def applies(self, item: Item) -> bool:
        return item.closed

    def supports(self, language: str) -> bool:
        return True

    def signature(self, language: str) -> str:
        return f"{self.name}|refs:any|norm:nfkc,casefold,ends,space,article|v:1"

    def statistics(self, items: Sequence[Item], language: str) -> np.ndarray:
        """Return x_N2: match (0 or 1), 1. A blank output matches nothing."""
        require_items(items, self.name)
        return with_ones([float(matches(item, language)) for item in items])

    def aggregate(self, totals: np.ndarray) -> np.ndarray:
        return 100 * ratio(totals[..., 0], totals[..., 1])


class ExactMatchRaw(ExactMatch):
    """Share of items whose output equals a reference character by character, 0 to 100.

    Nothing is normalised, not even case or white space: IGLUE's scoring of xGQA (Bugliarello et
    al. 2022, GQA_score.py), where a model picks one of GQA's answer labels.
    """

    name = "exact_match_raw"

    def signature(self, language: str) -> str:
        return f"{self.name}|refs:any|norm:none|v:1"

    def statistics(self, items: Sequence[Item], language: str) -> np.ndarray:
        """Return x_N2: equal to a reference (0 or 1), 1."""
        require_items(items, self.name)
        return with_ones([float(item.output in item.references) for item in items])


class Contains:
    """Share of an open item's references that occur in its output, 0 to 100.

    References are found as whole words, so "no" is not in "notice"; in Chinese, Japanese, Korean
    and Thai, where words are not set apart, as a substring.
    """

    name = "contains"
    kinds = frozenset({"generate"})
    higher_is_better = True
    range = (0.0, 100.0)

    def applies(self, item: Item) -> bool:
        return not item.closed

    def supports(self, language: str) -> bool:
        return True

    def signature(self, language: str) -> str:
        unit = "substring" if base_language(language) in UNSPACED else "words"
        return f"{self.name}|refs:share|unit:{unit}|norm:nfkc,casefold,ends,space,article|v:1"

    def statistics(self, items: Sequence[Item], language: str) -> np.ndarray:
        """Return x_N2: share of the references found (0 to 1), 1."""
        require_items(items, self.name)
        shares: list[float] = []
        for item in items:
            found = sum(contains(item.output, ref, language) for ref in item.references)
            shares.append(found / len(item.references))
        return with_ones(shares)

    def aggregate(self, totals: np.ndarray) -> np.ndarray:
        return 100 * ratio(totals[..., 0], totals[..., 1])


def matches(item: Item, language: str) -> bool:
    """Return whether the output equals a reference after normalising; a blank one never does."""
    output = normalise(item.output, language)
    return bool(output) and any(output == normalise(ref, language) for ref in item.references)


def contains(output: str, reference: str, language: str) -> bool:
    """Return whether `reference`, without its article, occurs in `output`."""
    wanted = normalise(reference, language)
    if not wanted:
        return False
    if base_language(language) in UNSPACED:
        return _holds_substring(_packed(output, language), _packed(wanted, language))
    needle, hay = words(wanted, language), words(output, language)
    if not needle:  # symbols only
        return wanted in output
    return any(hay[i : i + len(needle)] == needle for i in range(len(hay) - len(needle) + 1))


def _packed(text: str, language: str) -> str:
    return "".join(normalise(text, language).split())


def _holds_substring(output: str, wanted: str) -> bool:
    # a Latin word or a number keeps its borders: "5" is not in "15"
    before = r"(?<![a-z0-9])" if re.match(r"[a-z0-9]", wanted) else ""
    after = r"(?![a-z0-9])" if re.match(r"[a-z0-9]", wanted[-1]) else ""
    return re.search(before + re.escape(wanted) + after, output) is not None
