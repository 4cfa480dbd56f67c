"""Rows of a result: scores per language and subset, and the paired transfer from the pivot.

Statistics are computed once over all scored samples of a language; a subset, a resample and a
pairing only select rows of them. Corpus weights (CIDEr) therefore come from the whole language.

Shapes: N samples, S statistics, C clusters, B replicates.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpm_eval.metrics import Item, Metric
from mpm_eval.schema import Prediction, Sample, Score
from mpm_eval.stages.result_schema import Note, Skipped

if TYPE_CHECKING:
    import numpy as np

TRANSFER_METRICS = ("pivot_score", "retention", "transfer_gap")


@dataclass(frozen=True, slots=True)
class Joined:
    """A sample with its prediction."""

    sample: Sample
    prediction: Prediction
    judgement: tuple[float, float] | None = None  # reference, candidate; None: no judge's word

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
            judgement=self.judgement,
            ranking=self.prediction.ranking,
            cluster=self.sample.cluster,
        )

    def within(self, subset: str) -> bool:
        return subset in ("", f"category={self.sample.category}", f"cell={self.sample.cell}")


@dataclass(frozen=True, slots=True)
class Measured:
    """One metric's statistics over the samples of one language."""

    metric: Metric
    language: str
    label: str
    joined: tuple[Joined, ...]  # all samples the metric applies to, failed ones too
    scored: tuple[Joined, ...]  # those that did not fail
    statistics: "np.ndarray"  # x_NS, one row per scored sample; shape (0, 0) without any
    too_few: str = ""  # why nothing is scored, for a metric that needs several samples

    @property
    def signature(self) -> str:
        return self.metric.signature(self.language)


def measure(metric: Metric, language: str, label: str, joined: Sequence[Joined]) -> Measured:
    """Return the statistics of every sample that did not fail and that the metric applies to.

    Whether it applies is a matter of the sample, so failures of others are not counted either.
    """
    import numpy as np

    counted = tuple(j for j in joined if metric.applies(j.item))
    judged = getattr(metric, "judged", False)
    scored = tuple(j for j in counted if not (j.failed or (judged and j.judgement is None)))
    statistics_NS = np.zeros((0, 0))
    least = getattr(metric, "min_items", 1)
    if 0 < len(scored) < least:
        reason = f"needs at least {least} scored samples, there is {len(scored)}"
        return Measured(metric, language, label, (), (), statistics_NS, reason)
    if scored:
        statistics_NS = metric.statistics([j.item for j in scored], language)
        assert len(statistics_NS) == len(scored), f"{metric.name}: one row per item"
    return Measured(metric, language, label, counted, scored, statistics_NS)


def statistics_rows(
    joined: Sequence[Joined], measured: Mapping[str, Measured]
) -> list[Sequence[float] | None]:
    """Return each sample's row of statistics, as `items.Items` keeps them.

    `measured` holds one metric by language. None: the metric does not apply; (): it failed.
    """
    found: dict[tuple[str, str], Sequence[float]] = {}
    for one in measured.values():
        found |= {j.sample.key: () for j in one.joined}  # what is not scored has failed
        found |= {j.sample.key: row for j, row in zip(one.scored, one.statistics, strict=True)}
    return [found.get(j.sample.key) for j in joined]


def subsets(samples: Iterable[Sample], main_subset: str) -> list[str]:
    """Return "", the main subset, and every category and cell where there are at least two."""
    names = ["", main_subset]
    samples = list(samples)
    for field in ("category", "cell"):
        values = {value for sample in samples if (value := getattr(sample, field))}
        if len(values) >= 2:
            names += [f"{field}={value}" for value in sorted(values)]
    return list(dict.fromkeys(names))


@dataclass(frozen=True, slots=True)
class Rows:
    """What a comparison adds to a result."""

    scores: tuple[Score, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[Note, ...] = ()


def score_rows(measured: Measured, names: Sequence[str]) -> list[Score]:
    """Return one row per subset: the value over its scored samples, failures counted beside it."""
    from mpm_eval.stats import estimate

    rows = []
    for name in names:
        members = [j for j in measured.joined if j.within(name)]
        picked = [i for i, j in enumerate(measured.scored) if j.within(name)]
        if not members:
            continue  # e.g. a metric of closed questions in a category that has none
        value, ci95, method = None, None, "ci:none,no-samples"
        if picked:
            found = estimate(
                measured.statistics[picked],
                [measured.scored[i].sample.cluster for i in picked],
                measured.metric.aggregate,
            )
            value, ci95, method = found.value, found.ci95, found.method
        rows.append(
            Score(
                metric=measured.metric.name,
                language=measured.language,
                value=value,
                ci95=ci95,
                n=len(picked),
                n_failed=len(members) - len(picked),
                higher_is_better=measured.metric.higher_is_better,
                signature=f"{measured.signature}|{method}",
                subset=name,
                label=measured.label,
            )
        )
    return rows


def metric_notes(measured: Measured) -> list[Note]:
    """Return what helps to read a metric: the language identifier's own error on references."""
    name, language = measured.metric.name, measured.language
    if name != "fidelity" or not measured.joined:
        return []
    from mpm_eval.metrics.fidelity import reference_error_rate

    # the best reference of each sample: the identifier takes too long to read them all
    references = sorted({j.sample.references[0] for j in measured.joined})
    error = reference_error_rate({language: references})[language]
    return [Note(name, language, "", "fidelity_reference_error", error)]


def prompt_notes(scores: Sequence[Score], metric: str) -> list[Note]:
    """Return, per language, the metric under the worst paraphrase and the spread over them.

    The subsets of paraphrases are "category=prompt 1" and so on; the plain row is their mean.
    """
    by_language: dict[str, list[Score]] = {}
    for score in scores:
        if score.metric == metric and score.subset.startswith("category=prompt "):
            by_language.setdefault(score.language, []).append(score)
    notes = []
    for language, members in by_language.items():
        values = [score.value for score in members if score.value is not None]
        if len(values) == len(members):
            worst = min(values) if members[0].higher_is_better else max(values)
            spread = max(values) - min(values)
            notes.append(Note(metric, language, "", "worst_prompt", worst))
            notes.append(Note(metric, language, "", "prompt_spread", spread))
    return notes


def transfer_rows(
    pivot: Measured | None, target: Measured | None, language: str, main_subset: str
) -> Rows:
    """Return pivot score, transfer gap (pivot - target) and retention (percent of the pivot).

    A pair is one sample id scored in both languages; an id that failed in either is left out and
    counted as failed; an id that only one language has is counted in the note n_unpaired. All
    three come from the same resampled clusters, over all pairs and over `main_subset`.
    """
    if pivot is None or target is None:
        name = "main metric"
        known = pivot or target
        if known is not None:
            name = known.metric.name
        return Rows(skipped=(Skipped("transfer_gap", language, f"no {name} in both languages"),))
    scores: list[Score] = []
    skipped: list[Skipped] = []
    notes: list[Note] = []
    for subset in dict.fromkeys(("", main_subset)):
        added = _transfer(pivot, target, subset)
        scores += added.scores
        skipped += added.skipped
        notes += added.notes
    return Rows(tuple(scores), tuple(skipped), tuple(notes))


def _transfer(pivot: Measured, target: Measured, subset: str) -> Rows:
    from mpm_eval.stats import cluster_sums, paired

    places = {
        side: {j.sample.id: i for i, j in enumerate(measured.scored) if j.within(subset)}
        for side, measured in (("pivot", pivot), ("target", target))
    }
    members = [{j.sample.id for j in m.joined if j.within(subset)} for m in (pivot, target)]
    both, unpaired = members[0] & members[1], members[0] ^ members[1]
    ids = sorted(places["pivot"].keys() & places["target"].keys())
    if not ids:
        reason = f"no sample is scored in both {pivot.language} and {target.language}"
        return Rows(skipped=(Skipped("transfer_gap", target.language, reason),))
    chosen = [places["pivot"][i] for i in ids], [places["target"][i] for i in ids]
    clusters = [pivot.scored[i].sample.cluster for i in chosen[0]]
    aggregate = target.metric.aggregate
    found = paired(
        cluster_sums(pivot.statistics[chosen[0]], clusters),
        cluster_sums(target.statistics[chosen[1]], clusters),
        aggregate,
    )
    higher = target.metric.higher_is_better
    rows = (
        ("pivot_score", found["a"], 1.0, higher),
        ("transfer_gap", found["gap"], 1.0, not higher),
        ("retention", found["retention"], 100.0, higher),
    )
    scores = tuple(
        Score(
            metric=name,
            language=target.language,
            value=None if e.value is None else e.value * scale,
            ci95=None if e.ci95 is None else (e.ci95[0] * scale, e.ci95[1] * scale),
            n=len(ids),
            n_failed=len(both) - len(ids),
            higher_is_better=better,
            signature=f"{name}|of:{target.signature}|pivot:{pivot.language}|{e.method}",
            subset=subset,
            label=target.label,
        )
        for name, e, scale, better in rows
    )
    notes = [Note("transfer_gap", target.language, subset, "p_value", found["p_value"])]
    if unpaired:
        notes.append(Note("transfer_gap", target.language, subset, "n_unpaired", len(unpaired)))
    return Rows(scores, (), tuple(notes))
