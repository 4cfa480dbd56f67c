"""What the metrics that average one number per item share: statistics [value, 1] and their mean."""

import math
from collections.abc import Sequence

import numpy as np

from mpm_eval.metrics import Item


class Mean:
    """The mean of a number that another program gave each sample, on that program's own scale."""

    kinds = frozenset({"generate", "choose"})
    higher_is_better = True
    range = (-math.inf, math.inf)

    def __init__(self, name: str) -> None:
        self.name = name  # mean:NAME

    def applies(self, item: Item) -> bool:
        return True

    def supports(self, language: str) -> bool:
        return True

    def signature(self, language: str) -> str:
        return f"{self.name}|v:1"

    def statistics(self, items: Sequence[Item], language: str) -> np.ndarray:
        """Raise ValueError: the numbers come with the samples, they cannot be computed again."""
        raise ValueError(f"{self.name}: given by another program, not computed from outputs")

    def aggregate(self, totals: np.ndarray) -> np.ndarray:
        return ratio(totals[..., 0], totals[..., 1])


class Share(Mean):
    """The share of texts that a probe finds, 0 to 100, from one [found, 1] per text."""

    range = (0.0, 100.0)

    def __init__(self, name: str, higher_is_better: bool) -> None:
        super().__init__(name)
        self.higher_is_better = higher_is_better

    def aggregate(self, totals: np.ndarray) -> np.ndarray:
        return 100 * super().aggregate(totals)


def require_items(items: Sequence[Item], metric: str) -> None:
    """Raise ValueError for an empty set: the mean of nothing is not 0."""
    if not items:
        raise ValueError(f"{metric}: no items; an empty set has no value")


def with_ones(values: Sequence[float]) -> np.ndarray:
    """Return x_N2: each value beside a 1, so that a sum holds the total and the count."""
    return np.array([[value, 1.0] for value in values], dtype=np.float64)


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return numerator / denominator element by element; NaN where the denominator is 0."""
    top, bottom = np.broadcast_arrays(np.asarray(numerator, float), np.asarray(denominator, float))
    result: np.ndarray = np.full(bottom.shape, np.nan)
    np.divide(top, bottom, out=result, where=bottom != 0)
    return result
