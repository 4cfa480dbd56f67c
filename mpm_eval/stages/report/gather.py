"""Gather: the results and items of the runs a report shows, and why any of them is missing."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mpm_eval.errors import UserError
from mpm_eval.items import FILE as ITEMS_FILE
from mpm_eval.items import Items, read_items
from mpm_eval.schema import Score
from mpm_eval.stages.result_schema import Result, load_result
from mpm_eval.stages.run_folder import task_folders
from mpm_eval.tasks import expand


@dataclass(frozen=True, slots=True)
class TaskRun:
    """One task's result in one run."""

    folder: Path
    result: Result
    items: Items | None  # None for a probe, and where `problem` says why
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder and its tasks by name, in the order of their names."""

    name: str  # the model's, with the folder's where two runs share it
    folder: Path
    tasks: Mapping[str, TaskRun]


@dataclass(frozen=True, slots=True)
class Gathered:
    """What a report is made from; the first run is the primary one."""

    runs: tuple[Run, ...]
    tasks: tuple[str, ...]
    languages: tuple[str, ...]  # in the order of the results

    def of_task(self, task: str) -> list[tuple[int, Run, TaskRun]]:
        """Return (number of the run, run, task in it) of every run that has the task."""
        return [(i, run, run.tasks[task]) for i, run in enumerate(self.runs) if task in run.tasks]

    def result(self, task: str) -> Result:
        """Return the result of the first run that has the task: what says what the task is."""
        return self.of_task(task)[0][2].result


def gather(
    folders: Sequence[Path],
    tasks: Sequence[str] | None = None,
    languages: Sequence[str] | None = None,
) -> Gathered:
    """Return the results below run folders, of `tasks` and `languages` only where given.

    Raises UserError for a folder given twice or without tasks, a task that is not scored, and
    a task or language that no run has.
    """
    twice = [str(f) for f, n in Counter(folder.resolve() for folder in folders).items() if n > 1]
    if twice:
        raise UserError(f"{twice[0]}: given twice; name each run once")
    found = [_tasks_of(folder, tasks) for folder in folders]
    names = list(dict.fromkeys(name for each in found for name in each))
    if not names:
        raise UserError(f"--task: no run has a result of {', '.join(tasks or ())}")
    known = list(
        dict.fromkeys(
            tag for each in found for side in each.values() for tag in side.result.languages
        )
    )
    for tag in languages or ():
        if tag not in known:
            raise UserError(f"--languages: no run has '{tag}'; they have {', '.join(known)}")
    kept = tuple(tag for tag in known if languages is None or tag in languages)
    runs = zip(_names(folders, found), folders, found, strict=True)
    return Gathered(tuple(Run(*run) for run in runs), tuple(names), kept)


def find_score(result: Result, metric: str, language: str, subset: str) -> Score | None:
    """Return the score of one metric, language and subset; None where there is none."""
    for score in result.scores:
        if (score.metric, score.language, score.subset) == (metric, language, subset):
            return score
    return None


def _tasks_of(run: Path, wanted: Sequence[str] | None) -> dict[str, TaskRun]:
    folders = sorted({path.parent for path in run.glob("*/result.json")})
    if not folders:
        folders = task_folders(run)  # says what is wrong with a folder that is no run
    # a task file may be gone, its result still names the task
    names = None
    if wanted is not None:
        here = {folder.name for folder in folders}
        names = {name for name in wanted if name in here}
        names |= {task.name for task in expand([name for name in wanted if name not in here])}
    return {
        folder.name: _task_run(folder, run)
        for folder in sorted({*folders, *(path.parent for path in run.glob("*/manifest.json"))})
        if names is None or folder.name in names
    }


def _task_run(folder: Path, run: Path) -> TaskRun:
    path = folder / "result.json"
    if not path.is_file():
        raise UserError(
            f"{folder}: not scored yet; score it with: mpm-eval score {run}, "
            "or choose other tasks with --task"
        )
    result = load_result(path)
    if result.task.kind == "probe":
        return TaskRun(folder, result, None)
    try:
        items = read_items(folder / ITEMS_FILE)
    except UserError as error:
        return TaskRun(folder, result, None, str(error))
    if items.predictions_sha256 != result.predictions_sha256:
        problem = f"{folder / ITEMS_FILE}: not of the result beside it; score the run again"
        return TaskRun(folder, result, None, problem)
    return TaskRun(folder, result, items)


def _names(folders: Sequence[Path], found: Sequence[Mapping[str, TaskRun]]) -> list[str]:
    """Return the name of each run: its model's, and its folder's where two runs share a model."""
    models = [
        next((side.result.model.name for side in tasks.values()), folder.resolve().name)
        for folder, tasks in zip(folders, found, strict=True)
    ]
    shared = Counter(models)
    return [
        model if shared[model] == 1 else f"{model} ({folder.resolve().name})"
        for model, folder in zip(models, folders, strict=True)
    ]
