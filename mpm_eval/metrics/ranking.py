"""Retrieval: how often a right candidate is among the first of a ranking."""

from collections.abc import Sequence

import numpy as np

from mpm_eval.metrics import Item
from mpm_eval.metrics.mean import ratio, require_items, with_ones


class RecallAt1:
    """Recall at 1: share of queries whose first candidate is a right one, 0 to 100.

    IGLUE's R@1 (Bugliarello et al. 2022, eval_retrieval.py): the rank of a query is that of its
    best right candidate, and each query counts once.
    """

    name = "recall_at_1"
    k = 1
    kinds = frozenset({"retrieve"})
    higher_is_better = True
    range = (0.0, 100.0)

    def applies(self, item: Item) -> bool:
        return True

    def supports(self, language: str) -> bool:
        return True

    def signature(self, language: str) -> str:
        return f"{self.name}|rank:best_right|v:1"

    def statistics(self, items: Sequence[Item], language: str) -> np.ndarray:
        """Return x_N2: a right candidate among the first k (0 or 1), 1."""
        require_items(items, self.name)
        hits = [not set(item.references).isdisjoint(item.ranking[: self.k]) for item in items]
        return with_ones([float(hit) for hit in hits])

    def aggregate(self, totals: np.ndarray) -> np.ndarray:
        return 100 * ratio(totals[..., 0], totals[..., 1])


class RecallAt5(RecallAt1):
    """Recall at 5: share of queries with a right one among the first 5 candidates, 0 to 100."""

    name = "recall_at_5"
    k = 5


class RecallAt10(RecallAt1):
    """Recall at 10: share of queries with a right one among the first 10 candidates, 0 to 100."""

    name = "recall_at_10"
    k = 10
