"""The definition of a study: one strict TOML file of what is trained and what is measured."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mpm_eval.errors import UserError, unknown
from mpm_eval.languages import LANGUAGES
from mpm_eval.metrics import METRICS, PROBE_METRICS
from mpm_eval.resources import shipped
from mpm_eval.schema import Task
from mpm_eval.strict import build, read_toml
from mpm_eval.tasks import load_task

# How x is drawn: a number at its own place; numbers in equal steps; points in equal steps.
SCALES = ("linear", "ordinal", "category")
# Computed here from predictions: an output that equals a reference in any language of the study.
CONTENT = "content"
# Scores that a result has beside the metrics of its task.
_OF_TRANSFER = ("retention", "transfer_gap", "pivot_score")
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class Measure:
    """One number per point, seed and language; one panel of the plot."""

    task: str
    metric: str  # of the task, of its transfer, or CONTENT
    title: str
    subset: str = ""  # "": every sample


@dataclass(frozen=True, slots=True)
class Point:
    """One recipe of the family, trained once per seed."""

    name: str
    x: float | None = None  # None: a category, or beside the line, e.g. the pivot alone
    label: str = ""  # under the axis; empty: x, or the name
    overrides: tuple[str, ...] = ()  # key=value, after those of the study
    series: tuple[str, ...] = ()  # the lines that it lies on; empty: all of them


@dataclass(frozen=True, slots=True)
class Study:
    """A family of checkpoints, what is measured of each, and what the family is to answer."""

    name: str
    question: str  # the open question, in one sentence
    recipe: str
    languages: tuple[str, ...]  # that are measured
    seeds: tuple[int, ...]
    limit: int  # ids per task
    x_label: str
    points: tuple[Point, ...]
    measures: tuple[Measure, ...]
    overrides: tuple[str, ...] = ()
    x_scale: str = "linear"
    x_measure: Measure | None = None  # x is measured, per language
    conclusion: str = ""  # what the numbers say to the question; written after they were read

    @property
    def series(self) -> tuple[str, ...]:
        """The series of its points in order; ("",) where there is one alone."""
        named = dict.fromkeys(name for point in self.points for name in point.series)
        return tuple(named) or ("",)

    @property
    def measured(self) -> tuple[Measure, ...]:
        """Every measure, the one on the x axis last."""
        return self.measures + ((self.x_measure,) if self.x_measure else ())

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(measure.task for measure in self.measured))

    def point(self, name: str) -> Point:
        """Return a point by its name; UserError for another name."""
        for point in self.points:
            if point.name == name:
                return point
        raise unknown("point", name, (p.name for p in self.points), f"study '{self.name}'")

    def overrides_of(self, point: Point, seed: int) -> tuple[str, ...]:
        """Return the overrides of the recipe for one run, later ones winning."""
        return (*self.overrides, *point.overrides, f"seed={seed}")


def list_studies() -> list[str]:
    """Return the names of the shipped studies."""
    return sorted(path.stem for path in _folder().glob("*.toml"))


def load_study(name_or_path: str) -> Study:
    """Return a shipped study by name, or one from a path ending in .toml.

    Raises UserError naming file and key for anything unknown, missing, double or of a wrong type,
    and for a task of the test split: what is learned from studies may change recipes.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        if name_or_path not in list_studies():
            raise unknown("study", name_or_path, list_studies())
        path = _folder() / f"{name_or_path}.toml"
    study = build(Study, read_toml(path), str(path))
    _check(study, path)
    return study


def _folder() -> Path:
    return shipped("recipes").parent / "studies"


def _check(study: Study, path: Path) -> None:
    if study.name != path.stem:
        raise UserError(f"{path}: name: '{study.name}' must equal the file's name '{path.stem}'")
    if study.x_scale not in SCALES:
        raise unknown("scale", study.x_scale, SCALES, f"{path}: x_scale")
    if study.limit < 1:
        raise UserError(f"{path}: limit: must be at least 1, got {study.limit}")
    for field, text in (("question", study.question), ("x_label", study.x_label)):
        if not text.strip():
            raise UserError(f"{path}: {field}: is empty")
    _check_lists(study, path)
    for language in study.languages:
        if language not in LANGUAGES:
            raise unknown("language", language, LANGUAGES, f"{path}: languages")
    for measure in study.measured:
        _check_measure(measure, study, path)


def _check_lists(study: Study, path: Path) -> None:
    names = [point.name for point in study.points]
    lists: dict[str, Sequence[object]] = {
        "points": names,
        "seeds": study.seeds,
        "languages": study.languages,
        "measures": [f"{m.metric} of {m.task} in '{m.subset}'" for m in study.measured],
    }
    for field, values in lists.items():
        if not values:
            raise UserError(f"{path}: {field}: is empty; list at least one")
        for value in values:
            if values.count(value) > 1:
                raise UserError(f"{path}: {field}: {value} is listed twice; remove one")
    if study.x_scale == "linear" and study.x_measure is None:
        for point in study.points:
            if point.x is None:
                raise UserError(f"{path}: points: {point.name}: x is missing")
    for name in names:
        if not _NAME.fullmatch(name):  # it becomes part of file names
            raise UserError(f"{path}: points: '{name}': use a-z, 0-9, '_', '-' and '.'")


def _check_measure(measure: Measure, study: Study, path: Path) -> None:
    where = f"{path}: measures: {measure.task}"
    task = load_task(measure.task)
    if task.data.get("split") == "test":
        raise UserError(f"{where}: is the test split; studies are measured on validation")
    known = _metrics_of(task)
    if measure.metric not in known:
        raise unknown("metric", measure.metric, known, where)
    missing = [tag for tag in study.languages if tag not in task.languages]
    if missing:
        raise UserError(f"{where}: has no samples in {', '.join(missing)}; change languages")
    if task.pivot and task.pivot not in study.languages:
        raise UserError(f"{where}: languages lack its pivot '{task.pivot}'; add it")


def _metrics_of(task: Task) -> tuple[str, ...]:
    if task.kind == "probe":
        return tuple(name for name in task.metrics if name in PROBE_METRICS)
    content = (CONTENT,) if task.kind == "generate" else ()
    return (*(name for name in task.metrics if name in METRICS), *_OF_TRANSFER, *content)
