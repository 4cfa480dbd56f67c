"""Metrics: pure functions from items to per-item statistics and from summed statistics to a value.

Splitting a metric this way lets a bootstrap resample statistics and never tokenize again: the
value of any resample is `aggregate(weights @ statistics)`.
"""

from collections.abc import Mapping, Sequence
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
    judgement: tuple[float, float] | None = None  # reference, candidate; None: no judge's word
    ranking: tuple[str, ...] = ()  # ids of candidates, best first
    cluster: str = ""  # of the sample: what one question in several forms shares


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
    "circular_accuracy": "mpm_eval.metrics.circular:CircularAccuracy",
    "exact_match": "mpm_eval.metrics.text:ExactMatch",
    "exact_match_raw": "mpm_eval.metrics.text:ExactMatchRaw",
    "contains": "mpm_eval.metrics.text:Contains",
    "chrf": "mpm_eval.metrics.overlap:Chrf",
    "bleu": "mpm_eval.metrics.overlap:Bleu",
    "cider": "mpm_eval.metrics.cider:Cider",
    "meaning": "mpm_eval.metrics.meaning:Meaning",
    "fidelity": "mpm_eval.metrics.fidelity:Fidelity",
    "in_pivot": "mpm_eval.metrics.wrong_language:InPivot",
    "code_switching": "mpm_eval.metrics.wrong_language:CodeSwitching",
    "exact_match_in_language": "mpm_eval.metrics.wrong_language:ExactMatchInLanguage",
    "meaning_in_language": "mpm_eval.metrics.wrong_language:MeaningInLanguage",
    "relative_score": "mpm_eval.metrics.judged:RelativeScore",
    "recall_at_1": "mpm_eval.metrics.ranking:RecallAt1",
    "recall_at_5": "mpm_eval.metrics.ranking:RecallAt5",
    "recall_at_10": "mpm_eval.metrics.ranking:RecallAt10",
}


@dataclass(frozen=True, slots=True)
class ProbeMetric:
    """What a probe computes from hidden states; all values are in percent."""

    what: str
    range: tuple[float, float] = (0.0, 100.0)
    higher_is_better: bool = True
    floor: bool = True  # NAME_floor: its 95th percentile when texts are paired at random


_INFINITE = float("inf")
_NEAR = "nearness of {}, in percent of that of their 4 nearest neighbours (ratio margin)"
_FOUND = "{} whose {} is among the {} nearest, in percent"
_TEXT_METRICS = {
    "retrieval_p1": ProbeMetric("translation retrieval P@1, both directions averaged"),
    "retrieval_p1_centred": ProbeMetric(
        "the same after subtracting each language's mean vector; its floor is retrieval_p1_floor",
        floor=False,
    ),
    "ratio_margin": ProbeMetric(_NEAR.format("translations"), (-_INFINITE, _INFINITE)),
    "mexa": ProbeMetric("MEXA: translation pairs nearer than every other text of both languages"),
    "cka": ProbeMetric("debiased linear CKA with the pivot, times 100", (-_INFINITE, _INFINITE)),
    "rsa": ProbeMetric("RSA with the pivot: Spearman's correlation, times 100", (-100.0, 100.0)),
    "language_identity": ProbeMetric(
        "texts and pivot texts that a linear probe tells apart by language; chance 50",
        higher_is_better=False,
    ),
    "isotropy": ProbeMetric("IsoScore of one language's vectors, times 100", floor=False),
    "mean_cosine": ProbeMetric(
        "mean cosine of two different texts of one language, times 100",
        (-100.0, 100.0),
        higher_is_better=False,
        floor=False,
    ),
}
_IMAGE_METRICS = {
    **{
        f"image_to_text_r{k}": ProbeMetric(_FOUND.format("pictures", "name", k)) for k in (1, 5, 10)
    },
    **{
        f"text_to_image_r{k}": ProbeMetric(_FOUND.format("names", "picture", k)) for k in (1, 5, 10)
    },
    "image_text_margin": ProbeMetric(
        _NEAR.format("pictures and their names"), (-_INFINITE, _INFINITE)
    ),
}


def _with_floors(metrics: Mapping[str, ProbeMetric]) -> dict[str, ProbeMetric]:
    found: dict[str, ProbeMetric] = {}
    for name, metric in metrics.items():
        found[name] = metric
        if metric.floor:
            what = f"95th percentile of {name} under random pairings"
            found[f"{name}_floor"] = ProbeMetric(what, metric.range, not metric.higher_is_better)
    return found


# computed by the probe stages from hidden states, not from answers
IMAGE_PROBE_METRICS = _with_floors(_IMAGE_METRICS)  # of tasks whose samples have pictures
PROBE_METRICS = {**_with_floors(_TEXT_METRICS), **IMAGE_PROBE_METRICS}


def load_metric(name: str) -> Metric:
    """Return the metric called `name`; raises UserError with the nearest known name.

    "mean:NAME" is a number that another program gave each sample, averaged. A probe's metric can
    only aggregate: its statistics come from hidden states.
    """
    from importlib import import_module

    if name.startswith("mean:"):
        from mpm_eval.metrics.mean import Mean

        return Mean(name)
    if name in PROBE_METRICS:
        from mpm_eval.metrics.mean import Share

        return Share(name, PROBE_METRICS[name].higher_is_better)
    if name not in METRICS:
        raise unknown("metric", name, METRICS)
    module, _, cls = METRICS[name].partition(":")
    metric: Any = getattr(import_module(module), cls)()
    return metric
