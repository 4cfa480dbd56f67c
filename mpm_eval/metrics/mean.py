"""What the metrics that average one number per item share: statistics [value, 1] and their mean."""

from collections.abc import Sequence

import numpy as np

from mpm_eval.metrics import Item


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
