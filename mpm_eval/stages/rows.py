"""Rows of a result: scores per language and subset, and the paired transfer from the pivot.

Statistics are computed once over all scored samples of a language; a subset, a resample and a
pairing only select rows of them. Corpus weights (CIDEr) therefore come from the whole language.

Shapes: N samples, S statistics, C clusters, B replicates.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpm_eval.metrics import Item, Metric
from mpm_eval.schema import Prediction, Sample

if TYPE_CHECKING:
    import numpy as np

TRANSFER_METRICS = ("pivot_score", "retention", "transfer_gap")


@dataclass(frozen=True, slots=True)
class Joined:
    """A sample with its prediction."""

    sample: Sample
    prediction: Prediction

    @property
    def failed(self) -> bool:
        return bool(self.prediction.error)

    @property
    def item(self) -> Item:
        return Item(
            output=self.prediction.output,
            references=self.sample.references,
            language=self.sample.language,
            option_scores=self.prediction.option_scores,
            answer=self.sample.answer,
            closed=self.sample.closed,
        )

    def within(self, subset: str) -> bool:
        return subset in ("", f"category={self.sample.category}", f"cell={self.sample.cell}")


@dataclass(frozen=True, slots=True)
class Measured:
    """One metric's statistics over the samples of one language."""

    metric: Metric
    language: str
    label: str
    joined: tuple[Joined, ...]  # all samples, failed ones too
    scored: tuple[Joined, ...]  # those with a row in statistics_NS
    statistics_NS: "np.ndarray"  # of shape (0, 0) when no sample is scored

    @property
    def signature(self) -> str:
        return self.metric.signature(self.language)


def measure(metric: Metric, language: str, label: str, joined: Sequence[Joined]) -> Measured:
    """Return the statistics of every sample that did not fail and that the metric applies to."""
    import numpy as np

    scored = tuple(j for j in joined if not j.failed and metric.applies(j.item))
    statistics_NS = np.zeros((0, 0))
    if scored:
        statistics_NS = metric.statistics([j.item for j in scored], language)
        assert len(statistics_NS) == len(scored), f"{metric.name}: one row per item"
    return Measured(metric, language, label, tuple(joined), scored, statistics_NS)


def subsets(samples: Iterable[Sample]) -> list[str]:
    """Return "" and one name per category and cell, where there are at least two of them."""
    names = [""]
    samples = list(samples)
    for field in ("category", "cell"):
        values = {value for sample in samples if (value := getattr(sample, field))}
        if len(values) >= 2:
            names += [f"{field}={value}" for value in sorted(values)]
    return names
