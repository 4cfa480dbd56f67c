"""Multiple choice asked with its options in every rotation."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from mpm_eval.metrics import Item
from mpm_eval.metrics.choice import Accuracy, choose
from mpm_eval.metrics.mean import ratio, require_items


class CircularAccuracy(Accuracy):
    """Share of questions right in every rotation (Liu et al. 2023, CircularEval), 0 to 100.

    The rotations of one question share their cluster. A rotation that failed is not scored: its
    question is judged by the others, and the failure is counted beside the value.
    """

    name = "circular_accuracy"

    def signature(self, language: str) -> str:
        return f"{self.name}|all:cluster|norm:token|ties:first|v:1"

    def statistics(self, items: Sequence[Item], language: str) -> np.ndarray:
        """Return x_N2: all m rotations of the item's question are right (0 or 1) / m, 1 / m."""
        require_items(items, self.name)
        number = Counter(item.cluster for item in items)
        wrong = {item.cluster for item in items if choose(item) != item.answer}
        shares = [1 / number[item.cluster] for item in items]
        rows = [
            (0.0 if item.cluster in wrong else share, share)
            for item, share in zip(items, shares, strict=True)
        ]
        return np.array(rows, dtype=np.float64)

    def aggregate(self, totals: np.ndarray) -> np.ndarray:
        return 100 * ratio(totals[..., 0], totals[..., 1])
