"""Metrics: pure functions from items to per-item statistics and from summed statistics to a value.

Splitting a metric this way lets a bootstrap resample statistics and never tokenize again: the
value of any resample is `aggregate(weights @ statistics)`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from mpm_eval.errors import unknown
from mpm_eval.schema import OptionScore

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Item:
    """A sample joined with its prediction: what a metric reads. Failed samples never get here."""

    output: str
    references: tuple[str, ...]
    language: str
    option_scores: tuple[OptionScore, ...] = ()
    answer: int = -1
    closed: bool = True


class Metric(Protocol):
    """One metric; its first docstring line cites the paper and the range."""

    name: str
    kinds: frozenset[str]  # task kinds it can score
    higher_is_better: bool
    range: tuple[float, float]

    def applies(self, item: Item) -> bool:
        """Return whether this item counts, e.g. only closed questions; others are not in n."""
        ...

    def supports(self, language: str) -> bool:
        """Return whether the metric can be trusted for this language."""
        ...

    def signature(self, language: str) -> str:
        """Return settings and library versions, without spaces: name|key:value|…"""
        ...

    def statistics(self, items: Sequence[Item], language: str) -> "np.ndarray":
        """Return x_NS: one row of sufficient statistics per item; raises ValueError when empty."""
        ...

    def aggregate(self, totals: "np.ndarray") -> "np.ndarray":
        """Return values for summed statistics: shape (…, S) to (…); NaN where undefined."""
        ...


# name -> "module:class"; also the table of contents
METRICS: dict[str, str] = {
    "accuracy": "mpm_eval.metrics.choice:Accuracy",
    "accuracy_above_chance": "mpm_eval.metrics.choice:AccuracyAboveChance",
    "exact_match": "mpm_eval.metrics.text:ExactMatch",
    "contains": "mpm_eval.metrics.text:Contains",
    "chrf": "mpm_eval.metrics.overlap:Chrf",
    "bleu": "mpm_eval.metrics.overlap:Bleu",
    "cider": "mpm_eval.metrics.cider:Cider",
    "meaning": "mpm_eval.metrics.meaning:Meaning",
    "fidelity": "mpm_eval.metrics.fidelity:Fidelity",
}

# computed by the probe stage from hidden states, not from items
PROBE_METRICS: dict[str, str] = {
    "retrieval_p1": "translation retrieval P@1, both directions averaged, 0 to 100",
    "retrieval_p1_centred": "the same after subtracting each language's mean vector, 0 to 100",
    "retrieval_floor": "95th percentile of P@1 under random pairings, 0 to 100",
}


def load_metric(name: str) -> Metric:
    """Return the metric called `name`; raises UserError with the nearest known name.

    "mean:NAME" is a number that another program gave each sample, averaged.
    """
    from importlib import import_module

    if name.startswith("mean:"):
        from mpm_eval.metrics.mean import Mean

        return Mean(name)
    if name not in METRICS:
        raise unknown("metric", name, METRICS)
    module, _, cls = METRICS[name].partition(":")
    metric: Any = getattr(import_module(module), cls)()
    return metric
