"""What the pictures of a task of kind "paint" are measured by; computed in stages.paint_scores."""

import numpy as np

from mpm_eval.metrics import PaintMetric
from mpm_eval.metrics.mean import Mean, ratio


class Painted(Mean):
    """A number that every picture has, averaged: statistics [value, 1] on the metric's scale."""

    kinds = frozenset({"paint"})

    def __init__(self, name: str, metric: PaintMetric, settings: str = "") -> None:
        super().__init__(name)
        self.higher_is_better = metric.higher_is_better
        self.range = metric.range
        self._settings = settings

    def signature(self, language: str) -> str:
        return f"{self.name}|{self._settings}" if self._settings else self.name


class OfTheSet(Painted):
    """A distance between two sets of pictures: no single picture has a part of it."""

    def aggregate(self, totals: np.ndarray) -> np.ndarray:
        """Raise ValueError: what is asked here is a matter of single pictures."""
        raise ValueError(f"{self.name}: a number of a whole set, not summed over its pictures")


class Hits(Painted):
    """A share of pictures, in percent: statistics [hit, 1]."""

    def aggregate(self, totals: np.ndarray) -> np.ndarray:
        return 100 * ratio(totals[..., 0], totals[..., 1])
