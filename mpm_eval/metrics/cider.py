"""CIDEr from pycocoevalcap's scorer, tokenized by language instead of by the Java tokenizer."""

from collections.abc import Sequence
from importlib.metadata import version

import numpy as np

from mpm_eval.metrics import Item
from mpm_eval.metrics.mean import ratio, require_items, with_ones
from mpm_eval.normalise import UNSPACED, base_language, characters, words


class Cider:
    """CIDEr (Vedantam et al. 2015, with pycocoevalcap's clipping and length penalty), 0 to 10.

    Papers print it times 100. n-gram weights come from the references of all items given, so a
    score holds for that set only. A perfect output of fewer than four tokens stays below 10.
    """

    name = "cider"
    kinds = frozenset({"generate"})
    higher_is_better = True
    range = (0.0, 10.0)
    min_items = 2  # word weights come from the whole set; a single item scores 0 whatever it says

    def applies(self, item: Item) -> bool:
        return True

    def supports(self, language: str) -> bool:
        return True

    def signature(self, language: str) -> str:
        unit = "char" if base_language(language) in UNSPACED else "word"
        return (
            f"{self.name}|refs:mean|n:4|sigma:6|df:items|tok:{unit},casefold"
            f"|pycocoevalcap:{version('pycocoevalcap')}"
        )

    def statistics(self, items: Sequence[Item], language: str) -> np.ndarray:
        """Return x_N2: CIDEr of the item, 1. Raises ValueError for fewer than two items."""
        require_items(items, self.name)
        if len(items) < 2:
            raise ValueError(
                "cider: one item; word weights come from the references of all items, so a single "
                "item scores 0 whatever its output: give at least two"
            )
        from pycocoevalcap.cider.cider_scorer import CiderScorer

        scorer = CiderScorer(n=4, sigma=6.0)
        for item in items:
            references = [tokenize(reference, language) for reference in item.references]
            scorer += (tokenize(item.output, language), references)
        if not any(counts for references in scorer.crefs for counts in references):
            raise ValueError("cider: no reference holds a letter or a digit")
        _, scores = scorer.compute_score()
        # rounding can lift a perfect score above 10 by one unit in the last place
        return with_ones([min(float(score), 10.0) for score in scores])

    def aggregate(self, totals: np.ndarray) -> np.ndarray:
        return ratio(totals[..., 0], totals[..., 1])


def tokenize(text: str, language: str) -> str:
    """Return the tokens of `text` separated by spaces: characters in zh, ja, ko, th, else words."""
    split = characters if base_language(language) in UNSPACED else words
    return " ".join(split(text, language))
