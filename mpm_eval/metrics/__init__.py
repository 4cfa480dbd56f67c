"""Metrics: pure functions from items to per-item statistics and from summed statistics to a value.

Splitting a metric this way lets a bootstrap resample statistics and never tokenize again: the
value of any resample is `aggregate(weights @ statistics)`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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


@dataclass(frozen=True, slots=True)
class PaintMetric:
    """What is measured of painted pictures."""

    what: str
    range: tuple[float, float] = (0.0, 100.0)
    higher_is_better: bool = True
    of_a_set: bool = False  # only a whole set of pictures has it: no pairs, no test


_FRECHET = PaintMetric(
    "Fréchet distance of {} to the real pictures (Heusel et al. 2017)",
    (0.0, _INFINITE),
    higher_is_better=False,
    of_a_set=True,
)
_KERNEL = PaintMetric(
    "kernel distance (KID, Bińkowski et al. 2018) of {} to the real pictures, times 1000",
    (-_INFINITE, _INFINITE),
    higher_is_better=False,
    of_a_set=True,
)
# computed by stages.paint_scores from pictures; distances are named after their extractor
PAINT_METRICS: dict[str, PaintMetric] = {
    "clip_score": PaintMetric("100 x max(cosine, 0) of picture and prompt (Hessel et al. 2021)"),
    "top1_of_100": PaintMetric(
        "pictures nearer to their own name than to those of 99 others, in percent; all names in "
        "the pivot language"
    ),
    "consistency": PaintMetric(
        "100 x cosine of the pictures that a prompt and its pivot prompt give with one seed",
        (-100.0, 100.0),
    ),
    "diversity": PaintMetric(
        "100 x (1 - cosine) of the pictures of different clusters, averaged", (0.0, 200.0)
    ),
    "fid": replace(_FRECHET, what=_FRECHET.what.format("Inception features")),
    "kid": replace(_KERNEL, what=_KERNEL.what.format("Inception features")),
    "fd_efficientnet_lite0": replace(_FRECHET, what=_FRECHET.what.format("EfficientNet-Lite0's")),
    "kid_efficientnet_lite0": replace(_KERNEL, what=_KERNEL.what.format("EfficientNet-Lite0's")),
}
_OF_ANY_EXTRACTOR = {"fd_": _FRECHET, "kid_": _KERNEL}


def distances_of(extractor: str) -> tuple[str, str]:
    """Return the names of the Fréchet and the kernel distance of an extractor's features.

    Only those of the Inception network may be called FID and KID.
    """
    kind, _, argument = extractor.partition(":")
    if kind == "inception":
        return "fid", "kid"
    name = argument.partition("@")[0].rstrip("/").rpartition("/")[2] or kind
    slug = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    return f"fd_{slug}", f"kid_{slug}"


def paint_metric(name: str) -> PaintMetric | None:
    """Return what is known of a metric of painted pictures; None for another metric."""
    if name in PAINT_METRICS:
        return PAINT_METRICS[name]
    for prefix, metric in _OF_ANY_EXTRACTOR.items():
        if name.startswith(prefix):
            return replace(metric, what=metric.what.format(f"{name.removeprefix(prefix)} features"))
    return None


def is_of_a_set(name: str) -> bool:
    """Return whether only a whole set of painted pictures has this metric."""
    metric = paint_metric(name)
    return metric is not None and metric.of_a_set


def load_metric(name: str) -> Metric:
    """Return the metric called `name`; raises UserError with the nearest known name.

    "mean:NAME" is a number that another program gave each sample, averaged. A probe's metric and
    one of painted pictures can only aggregate: their statistics come from hidden states and
    pictures; a distance of sets cannot even do that.
    """
    from importlib import import_module

    if name.startswith("mean:"):
        from mpm_eval.metrics.mean import Mean

        return Mean(name)
    if name in PROBE_METRICS:
        from mpm_eval.metrics.mean import Share

        return Share(name, PROBE_METRICS[name].higher_is_better)
    if (painted := paint_metric(name)) is not None:
        from mpm_eval.metrics.painted import Hits, OfTheSet, Painted

        kind = OfTheSet if painted.of_a_set else Hits if name == "top1_of_100" else Painted
        return kind(name, painted)
    if name not in METRICS:
        raise unknown("metric", name, METRICS)
    module, _, cls = METRICS[name].partition(":")
    metric: Any = getattr(import_module(module), cls)()
    return metric
