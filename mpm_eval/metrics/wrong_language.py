"""How an output misses the language asked for, and how good the content is where it does not."""

import re
from collections.abc import Sequence

import numpy as np

from mpm_eval.languages import PIVOT
from mpm_eval.metrics import Item
from mpm_eval.metrics.fidelity import Fidelity, are_faithful, identify, scripts, scripts_of
from mpm_eval.metrics.mean import require_items, with_ones
from mpm_eval.metrics.meaning import Meaning
from mpm_eval.metrics.text import ExactMatch
from mpm_eval.normalise import base_language, words

# Below this an identifier guesses: a name or a quotation is not another language.
MIN_WORDS = 4
_SENTENCE_END = re.compile(r"(?<=[.!?。！？])\s*|\n+")


class InPivot(Fidelity):
    """Share of outputs that are in the pivot language, English, instead, 0 to 100.

    Understood, but answered in the language of the training pairs. Judged as fidelity is; an
    output in a third language counts for neither.
    """

    name = "in_pivot"
    higher_is_better = False

    def supports(self, language: str) -> bool:
        return super().supports(language) and base_language(language) != PIVOT

    def statistics(self, items: Sequence[Item], language: str) -> np.ndarray:
        """Return x_N2: in the pivot language and not in the one asked for (0 or 1), 1."""
        require_items(items, self.name)
        faithful = are_faithful(items, language)
        return with_ones(
            [
                float(not good and identify(item.output, (PIVOT, language)) == PIVOT)
                for item, good in zip(items, faithful, strict=True)
            ]
        )


class CodeSwitching(Fidelity):
    """Share of outputs that mix the language asked for with another, 0 to 100.

    Either two scripts, one of which the language is not written in, each with a letter; or two
    sentences of at least four words, of which one is in the language and one in English. A switch
    inside a sentence between languages of one script is not seen.
    """

    name = "code_switching"
    higher_is_better = False

    def supports(self, language: str) -> bool:
        return super().supports(language) and base_language(language) != PIVOT

    def signature(self, language: str) -> str:
        return f"{super().signature(language)}|min_words:{MIN_WORDS}"

    def statistics(self, items: Sequence[Item], language: str) -> np.ndarray:
        """Return x_N2: mixed (0 or 1), 1. What a reference of the item mixes, the output may."""
        require_items(items, self.name)
        return with_ones([float(_is_mixed(item, language)) for item in items])


class ExactMatchInLanguage(ExactMatch):
    """Share of exact matches among the closed items answered in the language, 0 to 100.

    Content where the language is right; undefined where no output is in the language.
    """

    name = "exact_match_in_language"

    def supports(self, language: str) -> bool:
        return Fidelity().supports(language)

    def signature(self, language: str) -> str:
        return f"{super().signature(language)}|given:{Fidelity().signature(language)}"

    def statistics(self, items: Sequence[Item], language: str) -> np.ndarray:
        """Return x_N2: matched and in the language, in the language (each 0 or 1)."""
        faithful_N = np.array(are_faithful(items, language), dtype=np.float64)
        matched_N = super().statistics(items, language)[:, 0]
        return np.column_stack([matched_N * faithful_N, faithful_N])


class MeaningInLanguage(Meaning):
    """Nearness in meaning, as `meaning`, of the outputs that are in the language, -100 to 100.

    Content where the language is right; undefined where no output is in the language.
    """

    name = "meaning_in_language"

    def supports(self, language: str) -> bool:
        return super().supports(language) and Fidelity().supports(language)

    def signature(self, language: str) -> str:
        return f"{super().signature(language)}|given:{Fidelity().signature(language)}"

    def statistics(self, items: Sequence[Item], language: str) -> np.ndarray:
        """Return x_N2: 100 times the cosine where in the language, in the language (0 or 1)."""
        faithful_N = np.array(are_faithful(items, language), dtype=np.float64)
        cosine_N = super().statistics(items, language)[:, 0]
        return np.column_stack([cosine_N * faithful_N, faithful_N])


def _is_mixed(item: Item, language: str) -> bool:
    own = scripts_of(language)
    allowed = own | {script for ref in item.references for script in scripts(ref)}
    used = scripts(item.output)
    if used & own and used - allowed:
        return True
    found = {
        identify(sentence, (PIVOT, language))
        for sentence in _SENTENCE_END.split(item.output)
        if len(words(sentence, language)) >= MIN_WORDS
    }
    return language != PIVOT and {PIVOT, language} <= found
