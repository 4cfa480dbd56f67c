"""Task files: strict TOML, checked field by field; names, groups and paths to tasks."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mpm_eval.data import READERS
from mpm_eval.errors import UserError, unknown
from mpm_eval.languages import LANGUAGES
from mpm_eval.metrics import METRICS, PROBE_METRICS
from mpm_eval.resources import shipped
from mpm_eval.schema import KINDS, Task
from mpm_eval.strict import build, canonical_sha256, read_toml, to_jsonable

# Describes a task without changing any score.
_PROSE = ("description", "licence", "citation", "groups", "sha256", "path")
_PLACEHOLDER = re.compile(r"\{[^{}\s]*\}")


def load_task(name_or_path: str | Path) -> Task:
    """Return a shipped task by name, or one from a path ending in .toml.

    Raises UserError naming file and field for anything unknown, missing or of the wrong type.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = shipped("tasks") / f"{name_or_path}.toml"
        if not path.is_file():
            raise unknown("task", str(name_or_path), _shipped_names())
    content = read_toml(path)
    for key in ("sha256", "path"):
        if key in content:
            raise UserError(f"{path}: key '{key}' is computed, not written; remove it")
    content.setdefault("name", path.stem)
    task = build(Task, content, str(path))
    _check(task, path)
    kept = {k: v for k, v in to_jsonable(task).items() if k not in _PROSE}
    return build(
        Task, {**to_jsonable(task), "sha256": canonical_sha256(kept), "path": str(path)}, str(path)
    )


def list_tasks() -> list[Task]:
    """Return all shipped tasks, by name."""
    return [load_task(name) for name in _shipped_names()]


def groups() -> dict[str, list[str]]:
    """Return group -> names of its tasks."""
    found: dict[str, list[str]] = {}
    for task in list_tasks():
        for group in task.groups:
            found.setdefault(group, []).append(task.name)
    return dict(sorted(found.items()))


def expand(names: Sequence[str]) -> list[Task]:
    """Return the tasks that names, groups and paths stand for, each once, in the order given."""
    tasks: dict[str, Task] = {}
    for name in names:
        if name.endswith(".toml") or name in _shipped_names():
            members: list[str] = [name]
        elif name in groups():
            members = groups()[name]
        else:
            raise unknown("task", name, [*_shipped_names(), *groups()], "--task")
        for member in members:
            task = load_task(member)
            if task.name in tasks and tasks[task.name].path != task.path:
                raise UserError(f"--task {name}: two tasks are called '{task.name}'; rename one")
            tasks[task.name] = task
    return list(tasks.values())


def _shipped_names() -> list[str]:
    return sorted(path.stem for path in shipped("tasks").glob("*.toml"))


def _check(task: Task, path: Path) -> None:
    if task.name != path.stem:
        raise UserError(f"{path}: name: '{task.name}' must equal the file's name '{path.stem}'")
    if task.version < 1:
        raise UserError(f"{path}: version: must be at least 1, got {task.version}")
    if not task.description.strip():
        raise UserError(f"{path}: description: is empty; say what the task measures")
    if not task.languages:
        raise UserError(f"{path}: languages: is empty; list at least one tag")
    metrics = PROBE_METRICS if task.kind == "probe" else METRICS
    closed: list[tuple[str, Sequence[str], Any]] = [
        ("kind", (task.kind,), KINDS),
        ("languages", task.languages, LANGUAGES),
        ("metrics", task.metrics, metrics),
        ("main_metric", (task.main_metric,), task.metrics),
        ("data.source", (str(task.data.get("source", "")),), READERS),
    ]
    if len(task.languages) > 1:
        closed.append(("pivot", (task.pivot,), task.languages))
    for field, values, known in closed:
        for value in values:
            if value not in known:
                raise unknown(
                    field.rpartition(".")[2].removesuffix("s"), value, known, f"{path}: {field}"
                )
    if task.kind != "probe":
        _check_prompts(task, path)


def _check_prompts(task: Task, path: Path) -> None:
    for language in task.languages:
        if not task.prompts.get(language, "").strip():
            raise UserError(
                f"{path}: prompts.{language}: is missing; every language needs a prompt"
            )
    for language, prompt in task.prompts.items():
        if language not in task.languages:
            raise UserError(f"{path}: prompts.{language}: '{language}' is not in languages")
        for placeholder in _PLACEHOLDER.findall(prompt):
            if placeholder != "{question}":
                raise UserError(
                    f"{path}: prompts.{language}: unknown placeholder {placeholder}; "
                    "only {question} is filled in"
                )
