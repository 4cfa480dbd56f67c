"""Collect: the results that may share a table, and why others may not."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mpm_eval.errors import UserError, unknown
from mpm_eval.results import Found, read_results
from mpm_eval.schema import LABELS, Score
from mpm_eval.stages.pairing import settings_of, signature_of
from mpm_eval.stages.result_schema import Result

MODEL, FLOOR, CEILING, TOLD = "model", "floor", "ceiling", "told the answers"

_CONTROLS = {
    "blank": "blank picture",
    "shuffled": "shuffled pictures",
    "blind": "no picture",
    "translate-test": "translate-test",
}
_ECHO = {
    "": CEILING,
    "slow": CEILING,
    "wrong": FLOOR,
    "noise": FLOOR,
    "real": CEILING,
}  # rule of the backend echo -> role


@dataclass(frozen=True, slots=True)
class Selection:
    """What to show; None: all."""

    tasks: tuple[str, ...] | None = None
    languages: tuple[str, ...] | None = None
    labels: tuple[str, ...] | None = None  # of schema.LABELS

    def keeps(self, score: Score) -> bool:
        """Return whether a score is shown."""
        return (self.languages is None or score.language in self.languages) and (
            self.labels is None or score.label in self.labels
        )


EVERYTHING = Selection()


@dataclass(frozen=True, slots=True)
class Entry:
    """One row: a result's selected scores, the run it came from and the name it is shown by."""

    name: str
    run: str  # folder of the run inside the runs folder
    folder: Path  # of the task inside the run
    result: Result
    role: str  # only models are ranked

    def score(self, metric: str, language: str, subset: str) -> Score | None:
        """Return the score, or None where the result has none."""
        for row in self.result.scores:
            if (row.metric, row.language, row.subset) == (metric, language, subset):
                return row
        return None


def collect(runs: Path, selection: Selection = EVERYTHING) -> tuple[list[Entry], list[str]]:
    """Return the rows to show, sorted by task, model and run, and why others are left out.

    Limited runs and results of older task versions are left out. Raises UserError when `runs`
    holds no result, a task or label of the selection is unknown, no score is left, or two results
    of one task version differ in task file, data, decoding or settings of the main metric: their
    numbers must not share a table.
    """
    found = read_results(runs)
    known = {one.result.task.name for one in found}
    for name in selection.tasks or ():
        if name not in known:
            raise unknown("task", name, known, f"{runs}: --task")
    for label in selection.labels or ():
        if label not in LABELS:
            raise unknown("label", label, LABELS, "--label")
    left_out: list[str] = []
    entries: list[Entry] = []
    for _, whole in sorted(_by_task(found, selection, left_out).items()):
        group = [one for one in _newest(whole, left_out) if one.result.scores]
        if group:
            _require_same(group)
            entries.extend(_named(group))
    if not entries:
        hint = "make one with: mpm-eval run --task TASK --model MODEL"
        if left_out:
            hint = f"every result is left out ({left_out[0]}); {hint}"
        raise UserError(f"{runs}: no score to show; {hint}")
    return entries, left_out


def _by_task(
    found: Sequence[Found], selection: Selection, left_out: list[str]
) -> dict[str, list[Found]]:
    """Return the results of each selected task with the selected scores, without limited runs."""
    by_task: dict[str, list[Found]] = defaultdict(list)
    for one in found:
        name, limit = one.result.task.name, one.result.limit
        if selection.tasks is not None and name not in selection.tasks:
            continue
        if limit is not None:
            left_out.append(f"{one.run}/{name}: limited to {limit} samples per language")
        else:
            kept = tuple(filter(selection.keeps, one.result.scores))
            by_task[name].append(replace(one, result=replace(one.result, scores=kept)))
    return by_task


def _newest(group: Sequence[Found], left_out: list[str]) -> list[Found]:
    newest = max(one.result.task.version for one in group)
    for one in group:
        task = one.result.task
        if task.version != newest:
            left_out.append(
                f"{one.run}/{task.name}: version {task.version} of the task, the newest is {newest}"
            )
    return [one for one in group if one.result.task.version == newest]


def _require_same(group: Sequence[Found]) -> None:
    again = "run one of them again, or raise the version in the task file"
    aspects: list[tuple[str, Callable[[Result], str], str]] = [
        ("were made from different task files", lambda result: result.task.sha256, again),
        ("were made from different data", lambda result: result.data.sha256, again),
        ("were decoded differently", _decoding, "run one of them again"),
    ]
    for language in dict.fromkeys(tag for one in group for tag in one.result.languages):
        aspects.append(
            (
                f"were scored differently in {language}",
                lambda result, language=language: _settings(result, language),  # type: ignore[misc]
                "score both with one version (mpm-eval score), judged runs by one judge",
            )
        )
    task = group[0].result.task
    for what, value_of, remedy in aspects:
        # What a result does not have or did not record cannot disagree.
        values = [(one.run, value_of(one.result)) for one in group if value_of(one.result)]
        for run, value in values:
            if value != values[0][1]:
                raise UserError(
                    f"{task.name} version {task.version}: '{values[0][0]}' and '{run}' {what} "
                    f"({values[0][1][:120]} and {value[:120]}); {remedy}, or keep them in "
                    "different folders of runs"
                )


def _decoding(result: Result) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(result.decoding.items()))


def _settings(result: Result, language: str) -> str:
    """Return the main metric's signature, without what in it is the model's or a count."""
    signature = settings_of(signature_of(result, result.task.main_metric, language))
    return "|".join(part for part in signature.split("|") if not part.startswith("n:"))


def _named(group: Sequence[Found]) -> list[Entry]:
    names = [_name(one.result) for one in group]
    count = Counter(names)
    entries = [
        Entry(
            name=name if count[name] == 1 else f"{name} ({one.run})",
            run=one.run,
            folder=one.folder,
            result=one.result,
            role=_role(one.result),
        )
        for name, one in zip(names, group, strict=True)
    ]
    return sorted(entries, key=lambda e: (e.name.casefold(), e.name, e.run))


def _name(result: Result) -> str:
    if not result.control:
        return result.model.name
    control = _CONTROLS.get(result.control, result.control)
    if result.task.kind == "paint" and result.control == "shuffled":
        control = "shuffled prompts"
    return f"{result.model.name}, {control}"


def _role(result: Result) -> str:
    if result.control or result.model.identity.get("without"):
        return FLOOR
    backend, _, rule = result.model.spec.partition(":")
    return _ECHO.get(rule, TOLD) if backend == "echo" else MODEL
