"""Cells: in which metric, language and subset of which tasks two runs are compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mpm_eval.errors import UserError, unknown
from mpm_eval.metrics import is_of_a_set
from mpm_eval.schema import Score
from mpm_eval.stages.pairing import Side, main_subset

Sides = Mapping[str, Side]  # by task


@dataclass(frozen=True, slots=True)
class Selection:
    """Which cells to compare; None: the main ones, or all that both runs have."""

    tasks: tuple[str, ...] | None = None
    languages: tuple[str, ...] | None = None
    metric: str | None = None
    subset: str | None = None  # "": every sample


@dataclass(frozen=True, slots=True)
class Cell:
    """One metric of one task in one language and subset."""

    task: str
    metric: str
    language: str
    subset: str

    def __str__(self) -> str:
        subset = f", {self.subset}" if self.subset else ""
        return f"{self.task}, {self.language}, {self.metric}{subset}"


def choose_cells(a: Sides, b: Sides, selection: Selection) -> tuple[list[Cell], list[str]]:
    """Return the selected cells that both runs have, and a sentence for each part left out.

    Raises UserError for a name that no task of both runs has and when no cell is left.
    """
    both = [task for task in a if task in b]
    if not both:
        raise UserError(
            f"no task is in both runs: A has {', '.join(a)}; B has {', '.join(b)}; "
            "run the same task with both models"
        )
    for task in selection.tasks or ():
        if task not in both:
            raise unknown("task", task, both, "in both runs")
    tasks = [task for task in both if selection.tasks is None or task in selection.tasks]
    _require_known(a, b, tasks, selection)
    left_out: list[str] = []
    if selection.tasks is None:
        left_out += [f"task {task} is only in A" for task in a if task not in b]
        left_out += [f"task {task} is only in B" for task in b if task not in a]
    cells: list[Cell] = []
    for task in tasks:
        found, reasons = _cells_of(a[task], b[task], selection)
        cells += found
        left_out += [f"{task}: {reason}" for reason in reasons]
    if not cells:
        reasons = left_out or ["neither run has a score of what was selected"]
        raise UserError(f"nothing to compare: {'; '.join(reasons)}")
    return cells, left_out


def _require_known(a: Sides, b: Sides, tasks: Sequence[str], selection: Selection) -> None:
    sides = [runs[task] for runs in (a, b) for task in tasks]
    metrics = {name for side in sides for name in metrics_of(side)}
    subsets = {score.subset for side in sides for score in side.result.scores} - {""}
    languages = {tag for side in sides for tag in side.result.languages}
    if selection.metric is not None and selection.metric not in metrics:
        raise unknown("metric", selection.metric, metrics, "--metric")
    if selection.subset and selection.subset not in subsets:
        raise unknown("subset", selection.subset, subsets, "--subset")
    for tag in selection.languages or ():
        if tag not in languages:
            raise unknown("language", tag, languages, "--languages")


def metrics_of(side: Side) -> set[str]:
    """Return the metrics that can be compared: those of the items, or a probe's scores.

    Of painted pictures also the distances of whole sets.
    """
    if side.items is None or side.result.task.kind == "probe":
        return {score.metric for score in side.result.scores}
    found = set(side.items.statistics)
    if side.result.task.kind == "paint":
        found |= {score.metric for score in side.result.scores if is_of_a_set(score.metric)}
    return found


def _cells_of(a: Side, b: Side, selection: Selection) -> tuple[list[Cell], list[str]]:
    """Return the cells of one task and why others are left out."""
    task = a.result.task
    metric = selection.metric or task.main_metric
    subset = selection.subset
    if subset is None:
        subset = main_subset(a.result, metric)
    reasons = [
        f"no {metric}{f' in {subset}' if subset else ''} in {name}"
        for name, side in (("A", a), ("B", b))
        if metric not in metrics_of(side)
        or (subset and subset not in (s.subset for s in side.result.scores))
    ]
    if reasons:
        return [], reasons
    tags_a, tags_b = (
        [tag for tag in side.result.languages if tag in (selection.languages or (tag,))]
        for side in (a, b)
    )
    reasons = [f"language {tag} is only in A" for tag in tags_a if tag not in tags_b]
    reasons += [f"language {tag} is only in B" for tag in tags_b if tag not in tags_a]
    cells = [Cell(task.name, metric, tag, subset) for tag in tags_a if tag in tags_b]
    scores = [*a.result.scores, *b.result.scores]
    # a metric has no score of a language that it does not know, a probe none of the pivot
    return [cell for cell in cells if any(is_of(s, cell) for s in scores)], reasons


def is_of(score: Score, cell: Cell) -> bool:
    """Return whether a score is the value of a cell, on either side."""
    return (score.metric, score.language, score.subset) == (
        cell.metric,
        cell.language,
        cell.subset,
    )
