"""Standings: mean and worst language of each model of a table, and its ranks, from the items.

Shapes: C clusters, L languages, S statistics.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mpm_eval.errors import UserError
from mpm_eval.items import FILE, Cell, read_items
from mpm_eval.languages import LANGUAGES
from mpm_eval.metrics import is_of_a_set, load_metric
from mpm_eval.stages.leaderboard.collect import MODEL, TOLD, Entry
from mpm_eval.stages.leaderboard.ranks import Rank, ci95, over_languages, rank
from mpm_eval.stats import cluster_sums

MEAN, WORST = "mean", "worst"
_TOLERANCE = 1e-6  # relative, between a score and the same value from the items


@dataclass(frozen=True, slots=True)
class Standing:
    """What a row has besides its scores."""

    mean: float | None = None  # over the target languages; None: one of them is missing
    mean_ci95: tuple[float, float] | None = None
    worst: str | None = None  # the language
    no_rank: str = ""  # why it has none in the column that the table is ranked by


@dataclass(frozen=True, slots=True)
class Standings:
    """The standings of one task."""

    languages: tuple[str, ...]  # the columns
    targets: tuple[str, ...]  # without the pivot
    ranked_by: str  # MEAN, or the language where only one can be meant
    rows: Mapping[Path, Standing]  # by the folder of the entry
    ranks: Mapping[str, Mapping[Path, Rank]]  # by MEAN, WORST or language; of two models or more
    num_models: int  # that share the ranks of `ranked_by`
    detectable: float | None
    chance: Mapping[str, float]  # by language; empty where guessing has no known value


@dataclass(frozen=True, slots=True)
class _Scored:
    """A row with the items behind its values."""

    entry: Entry
    values: Mapping[str, float]  # by language
    cells: Mapping[str, Cell] | None  # by language; None: there are none


@dataclass(frozen=True, slots=True)
class _Ranked:
    """The models that can be ranked by one scope."""

    ranks: Mapping[Path, Rank]
    intervals: Mapping[Path, tuple[float, float] | None]  # of the mean
    detectable: float | None


def standings(group: Sequence[Entry]) -> Standings:
    """Return the standings of the entries of one task, by its main metric and subset.

    Models are ranked that have items and a value in every language of what is ranked. Raises
    UserError for items that are damaged or do not give the values of the result beside them.
    """
    task = group[0].result.task
    languages = columns(group, task.main_metric, task.main_subset)
    targets = tuple(tag for tag in languages if tag != task.pivot)
    several = len(targets) > 1
    ranked_by = MEAN if several else (targets or languages)[0]
    scopes: dict[str, tuple[str, ...]] = {tag: (tag,) for tag in languages}
    if several:
        scopes = {MEAN: targets, WORST: targets, **scopes}
    scored = [_scored(entry, languages) for entry in group]
    higher = all(
        score.higher_is_better
        for entry in group
        for score in entry.result.scores
        if score.metric == task.main_metric
    )
    rankings = _rankings(scored, scopes, higher)
    ranked = rankings.get(ranked_by)
    means = rankings[MEAN].intervals if MEAN in rankings else {}
    rows = {
        one.entry.folder: _standing(
            one, targets, higher, means.get(one.entry.folder), scopes[ranked_by]
        )
        for one in scored
    }
    return Standings(
        languages=languages,
        targets=targets,
        ranked_by=ranked_by,
        rows=rows,
        ranks={scope: found.ranks for scope, found in rankings.items() if len(found.ranks) > 1},
        num_models=len(ranked.ranks) if ranked else 0,
        detectable=ranked.detectable if ranked else None,
        chance=_chance(scored, languages),
    )


def columns(group: Sequence[Entry], metric: str, subset: str) -> tuple[str, ...]:
    """Return the languages in which an entry has a score, in the order of `LANGUAGES`."""
    found = {
        score.language
        for entry in group
        for score in entry.result.scores
        if (score.metric, score.subset) == (metric, subset)
    }
    known = list(LANGUAGES)
    return tuple(
        sorted(found, key=lambda tag: (known.index(tag) if tag in known else len(known), tag))
    )


def _scored(entry: Entry, languages: Sequence[str]) -> _Scored:
    task = entry.result.task
    values = {
        tag: score.value
        for tag in languages
        if (score := entry.score(task.main_metric, tag, task.main_subset)) is not None
        and score.value is not None
    }
    path = entry.folder / FILE
    probe = task.kind == "probe"  # the items of a probe are those of its headline layer
    if not path.is_file() or (probe and task.main_subset):
        return _Scored(entry, values, None)
    items = read_items(path)
    again = f"score the run again: mpm-eval score {entry.folder.parent}"
    if items.predictions_sha256 != entry.result.predictions_sha256:
        raise UserError(f"{path}: not of the predictions of the result.json beside it; {again}")
    if task.main_metric not in items.statistics:
        if probe or is_of_a_set(task.main_metric):
            return _Scored(entry, values, None)
        raise UserError(f"{path}: has no {task.main_metric}; {again}")
    cells = {tag: items.cell(task.main_metric, tag, task.main_subset) for tag in values}
    aggregate = load_metric(task.main_metric).aggregate
    for tag, cell in cells.items():
        value = float(aggregate(cell.statistics.sum(axis=0))) if cell.items else float("nan")
        if not abs(value - values[tag]) <= _TOLERANCE * max(1.0, abs(values[tag])):
            raise UserError(
                f"{path}: {task.main_metric} in {tag} is {value:.6g} from its items and "
                f"{values[tag]:.6g} in result.json; {again}"
            )
    return _Scored(entry, values, cells)


def _rankings(
    scored: Sequence[_Scored], scopes: Mapping[str, Sequence[str]], higher_is_better: bool
) -> dict[str, _Ranked]:
    """Return the ranks by each scope of the models with items and a value in all its languages."""
    task = scored[0].entry.result.task
    models = [one for one in scored if one.entry.role == MODEL and one.cells is not None]
    found: dict[str, _Ranked] = {}
    for scope, tags in scopes.items():
        able = [one for one in models if all(tag in one.values for tag in tags)]
        if not able:
            continue
        reduce = np.mean if scope != WORST else np.min if higher_is_better else np.max
        aggregate = over_languages(load_metric(task.main_metric).aggregate, len(tags), reduce)
        sums = _sums(able, tags)
        ranking = rank(sums, aggregate, higher_is_better)
        folders = [one.entry.folder for one in able]
        intervals = [ci95(sums_CS, aggregate) if scope == MEAN else None for sums_CS in sums]
        found[scope] = _Ranked(
            ranks=dict(zip(folders, ranking.ranks, strict=True)),
            intervals=dict(zip(folders, intervals, strict=True)),
            detectable=ranking.detectable,
        )
    return found


def _sums(models: Sequence[_Scored], languages: Sequence[str]) -> list[np.ndarray]:
    """Return sums_C(LS) per model, of the clusters that any has scored in any of the languages.

    Where a model failed in all samples of a cluster, or a language lacks it, it adds nothing.
    """
    cells = [[one.cells[tag] for tag in languages] for one in models if one.cells is not None]
    names = {name for row in cells for cell in row for name in cell.clusters}
    index = {name: i for i, name in enumerate(sorted(names))}
    found = []
    for row in cells:
        parts = []
        for cell in row:
            sums_CS = np.zeros((len(index), cell.statistics.shape[1]))
            own = [index[name] for name in sorted(set(cell.clusters))]
            sums_CS[own] = cluster_sums(cell.statistics, cell.clusters)
            parts.append(sums_CS)
        found.append(np.concatenate(parts, axis=1))
    for one, sums_CS in zip(models, found, strict=True):
        if sums_CS.shape != found[0].shape:
            raise UserError(
                f"{one.entry.folder} and {models[0].entry.folder}: items of different versions of "
                "the metric; score both runs again: mpm-eval score RUN"
            )
    return found


def _standing(
    one: _Scored,
    targets: Sequence[str],
    higher_is_better: bool,
    interval: tuple[float, float] | None,
    needed: Sequence[str],
) -> Standing:
    values = {tag: one.values[tag] for tag in targets if tag in one.values}
    no_rank = _no_rank(one, needed)
    if not len(values) == len(targets) > 1:
        return Standing(no_rank=no_rank)
    pick = min if higher_is_better else max
    return Standing(
        mean=sum(values.values()) / len(values),
        mean_ci95=interval,
        worst=pick(values, key=lambda tag: values[tag]),
        no_rank=no_rank,
    )


def _no_rank(one: _Scored, needed: Sequence[str]) -> str:
    missing = [tag for tag in needed if tag not in one.values]
    if one.entry.role == TOLD:
        return "it is told the answers"
    if missing:
        return f"no value in {', '.join(missing)}"
    if one.cells is None and one.entry.result.task.kind == "probe":
        return "no statistics per text"
    if one.cells is None and is_of_a_set(one.entry.result.task.main_metric):
        return "a distance of whole sets, which no test pairs"
    return "" if one.cells is not None else "no items; score the run again to write them"


def _chance(scored: Sequence[_Scored], languages: Sequence[str]) -> dict[str, float]:
    """Return what guessing gets, from the numbers of options in the statistics of accuracy."""
    metric = scored[0].entry.result.task.main_metric
    if metric == "accuracy_above_chance":
        return dict.fromkeys(languages, 0.0)
    chance: dict[str, float] = {}
    for one in scored if metric == "accuracy" else ():
        for tag, cell in (one.cells or {}).items():
            _, guessed, count = cell.statistics.sum(axis=0)
            chance.setdefault(tag, 100 * float(guessed) / float(count))
    return chance if set(chance) == set(languages) else {}
