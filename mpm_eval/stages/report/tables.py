"""Tables: the overview of languages and tasks, every score, and how to make each run again."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mpm_eval.languages import LANGUAGES
from mpm_eval.schema import Score
from mpm_eval.stages.report.gather import Gathered, Run, TaskRun, find_score
from mpm_eval.stages.result_schema import Result
from mpm_eval.strict import read_json

_PREDICTIONS = "predictions"  # spec of a run that was scored from somebody else's file
_IMPORT = "import"


@dataclass(frozen=True, slots=True)
class ShownScore:
    """A score as text."""

    value: str
    interval: str
    label: str
    n: int
    n_failed: int


@dataclass(frozen=True, slots=True)
class MatrixRow:
    """The main scores of one run on one task, one per language of the report."""

    run: str
    scores: tuple[ShownScore | None, ...]  # None: the run does not have the language
    remarks: tuple[str, ...]  # limited, control, failed: what forbids a plain reading


@dataclass(frozen=True, slots=True)
class MatrixTask:
    """One task of the overview."""

    name: str
    description: str
    metric: str
    subset: str
    rows: tuple[MatrixRow, ...]


@dataclass(frozen=True, slots=True)
class Command:
    """A command that makes tasks of a run again."""

    tasks: tuple[str, ...]
    text: str


def shown(score: Score) -> ShownScore:
    """Return a score rounded to one decimal; "–" where there is no value or interval."""
    return ShownScore(
        "–" if score.value is None else _number(score.value),
        "–" if score.ci95 is None else f"{_number(score.ci95[0])} to {_number(score.ci95[1])}",
        score.label,
        score.n,
        score.n_failed,
    )


def _number(value: float) -> str:
    text = f"{value:.1f}"
    return text.replace("-", "\N{MINUS SIGN}") if float(text) else "0.0"


def matrix(gathered: Gathered) -> list[MatrixTask]:
    """Return the main score of every task, run and language."""
    found = []
    for name in gathered.tasks:
        task = gathered.result(name).task
        rows = tuple(
            _matrix_row(run, side.result, gathered.languages)
            for _, run, side in gathered.of_task(name)
        )
        found.append(MatrixTask(name, task.description, task.main_metric, task.main_subset, rows))
    return found


def _matrix_row(run: Run, result: Result, languages: tuple[str, ...]) -> MatrixRow:
    task = result.task
    scores = [find_score(result, task.main_metric, tag, task.main_subset) for tag in languages]
    remarks = []
    if result.limit is not None:
        remarks.append(f"limited to {result.limit} samples per language")
    if result.control:
        remarks.append(f"control: {result.control}")
    if result.num_failed:
        remarks.append(f"{result.num_failed} of {result.num_samples} samples failed")
    return MatrixRow(
        run.name, tuple(None if s is None else shown(s) for s in scores), tuple(remarks)
    )


def score_rows(result: Result, languages: tuple[str, ...]) -> list[tuple[Score, ShownScore]]:
    """Return every score of the languages, the main metric first."""
    rows = [score for score in result.scores if score.language in languages]
    rows.sort(key=lambda score: score.metric != result.task.main_metric)
    return [(score, shown(score)) for score in rows]


def language_name(tag: str) -> tuple[str, str]:
    """Return (English name, own name) of a language; the tag itself where it is not known."""
    return LANGUAGES.get(tag, (tag, tag))


def commands(run: Run) -> list[Command]:
    """Return the commands that make a run again, one per group of tasks with the same settings."""
    groups: dict[str, list[str]] = {}
    for name, side in run.tasks.items():
        result = side.result
        if result.model.spec == _PREDICTIONS:
            file = side.folder / "predictions.jsonl"
            head = f"mpm-eval score --predictions {shlex.quote(str(file))}"
            tail = f" --name {shlex.quote(result.model.name)}{_languages(side)}"
            tail = f" --task {_task(name, side)}{tail}"
            groups[f"{head}{tail}"] = [name]
            continue
        if result.model.spec == _IMPORT:
            continue  # made by another program: its own log says how
        settings = f" --model {shlex.quote(result.model.spec)}{_languages(side)}"
        if result.limit is not None:
            settings += f" --limit {result.limit}"
        settings += f" --seed {result.seed}"
        if result.control:
            settings += f" --control {shlex.quote(result.control)}"
        if "images_per_prompt" in result.decoding:
            settings += f" --images-per-prompt {result.decoding['images_per_prompt']}"
        groups.setdefault(settings, []).append(name)
    return [_command(run, text, names) for text, names in groups.items()]


def _command(run: Run, text: str, names: list[str]) -> Command:
    if not text.startswith(" "):
        return Command(tuple(names), text)
    tasks = "".join(f" --task {_task(name, run.tasks[name])}" for name in names)
    return Command(tuple(names), f"mpm-eval run{tasks}{text}")


def _task(name: str, side: TaskRun) -> str:
    """Return the task as the command line takes it: a user's own by its file."""
    return shlex.quote(str(_made_with(side).get("path") or name))


def _languages(side: TaskRun) -> str:
    """Return the option --languages, "" where the run has all languages of its task."""
    asked = list(side.result.languages)
    if sorted(asked) == sorted(_made_with(side).get("languages", asked)):
        return ""
    return f" --languages {shlex.quote(','.join(asked))}"


def _made_with(side: TaskRun) -> Mapping[str, Any]:
    path = side.folder / "task.json"
    content = read_json(path) if path.is_file() else {}
    return content if isinstance(content, dict) else {}


def identity(run: Run) -> list[tuple[str, str]]:
    """Return (what, value) of a run's model, for the page of provenance."""
    if not run.tasks:
        return []
    model = next(iter(run.tasks.values())).result.model
    rows = [("model", model.name), ("model sha256", model.sha256), ("spec", model.spec)]
    return rows + [(key, str(value)) for key, value in sorted(model.identity.items())]


def task_identity(result: Result) -> list[tuple[str, str]]:
    """Return (what, value) of everything that made one result."""
    task = result.task
    rows = [
        ("task", f"version {task.version}, sha256 {task.sha256}"),
        ("data", f"sha256 {result.data.sha256}"),
        *((key, str(value)) for key, value in sorted(result.data.description.items())),
        ("predictions", f"sha256 {result.predictions_sha256}"),
        ("samples", f"{result.num_samples}, {result.num_failed} failed"),
        ("limit", "none" if result.limit is None else f"{result.limit} samples per language"),
        ("seed", str(result.seed)),
        ("control", result.control or "none"),
        ("decoding", _pairs(result.decoding)),
        ("judging", _pairs(result.judging)),
        ("versions", _pairs(result.versions)),
    ]
    return rows


def _pairs(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in sorted(settings.items())) or "none"


def evidence(gathered: Gathered) -> list[tuple[str, str, str, str]]:
    """Return (run, language, label, evidence), each once: what training says of a language."""
    return list(
        dict.fromkeys(
            (run.name, tag, known.label, known.evidence)
            for run in gathered.runs
            for side in run.tasks.values()
            for tag, known in side.result.zero_shot.items()
            if tag in gathered.languages
        )
    )
