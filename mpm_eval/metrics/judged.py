"""Scores that a judge gave beforehand: the relative score of LLaVA."""

import math
from collections.abc import Sequence

import numpy as np

from mpm_eval.metrics import Item
from mpm_eval.metrics.mean import ratio, require_items


class RelativeScore:
    """Judged score of the answers in percent of that of the references (Liu et al. 2023), 0 up.

    The ratio of sums over all samples, not the mean of ratios nor of categories; above 100 where
    the judge likes the answers better. Comparable only under one judge, mode and language.
    """

    name = "relative_score"
    kinds = frozenset({"generate"})
    higher_is_better = True
    range = (0.0, math.inf)
    judged = True  # an item without a judgement has failed

    def __init__(self, judging: str = "judge:none") -> None:
        self._judging = judging  # parts of the signature

    def judged_by(self, judging: str) -> "RelativeScore":
        """Return the metric with the judge's part of the signature."""
        return RelativeScore(judging)

    def applies(self, item: Item) -> bool:
        return True

    def supports(self, language: str) -> bool:
        return True

    def signature(self, language: str) -> str:
        return f"{self.name}|ratio:of-sums|{self._judging}|v:1"

    def statistics(self, items: Sequence[Item], language: str) -> np.ndarray:
        """Return x_N2: score of the answer, score of the reference.

        Raises ValueError for an item without a judgement: a failure is counted, never scored.
        """
        require_items(items, self.name)
        rows = []
        for item in items:
            if item.judgement is None:
                raise ValueError(f"{self.name}: an item has no judgement")
            reference, candidate = item.judgement
            rows.append((candidate, reference))
        return np.array(rows, dtype=np.float64)

    def aggregate(self, totals: np.ndarray) -> np.ndarray:
        return 100 * ratio(totals[..., 0], totals[..., 1])
