"""Task files: strict TOML, checked field by field; names, groups and paths to tasks."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from mpm_eval.data import READERS
from mpm_eval.errors import UserError, unknown
from mpm_eval.languages import LANGUAGES
from mpm_eval.metrics import METRICS, PAINT_METRICS, PROBE_METRICS, distances_of, load_metric
from mpm_eval.resources import shipped
from mpm_eval.schema import KINDS, Task
from mpm_eval.strict import build, canonical_sha256, read_toml, to_jsonable

# Describes a task without changing any score.
_PROSE = ("description", "licence", "citation", "groups", "sha256", "path")
_WITHOUT_PROMPTS = ("probe", "retrieve")  # kinds: a text is read or ranked, not answered
MIN_SIZE, MAX_SIZE = 8, 8192  # pixels of a painted picture
# Also "{ question }" and "{question!r}", which nothing would fill in; not JSON in a prompt.
_PLACEHOLDER = re.compile(r"\{[\w\s.!:\[\]-]*\}")


def load_task(name_or_path: str | Path) -> Task:
    """Return a shipped task by name, or one from a path ending in .toml.

    `path` is empty for a shipped task: it is found by its name on every machine. Raises UserError
    naming file and field for anything unknown, missing or of the wrong type.
    """
    path = _file(str(name_or_path))
    content = read_toml(path)
    for key in ("sha256", "path"):
        if key in content:
            raise UserError(f"{path}: key '{key}' is computed, not written; remove it")
    content.setdefault("name", path.stem)
    task = build(Task, content, str(path))
    _check(task, path)
    kept = {k: v for k, v in to_jsonable(task).items() if k not in _PROSE}
    for key in ("paraphrases", "painting"):
        if not kept[key]:  # a task without them is the same as before there were any
            del kept[key]
    by_path = str(name_or_path).endswith(".toml")
    return replace(task, sha256=canonical_sha256(kept), path=str(path) if by_path else "")


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
    """Return the tasks that names, groups and paths stand for, each once, in the order given.

    The tasks of a group are sorted by name. Raises UserError for an unknown name, and for two
    different files that share a task name: they would share a folder of the run.
    """
    tasks: dict[str, Task] = {}
    files: dict[str, Path] = {}
    for name in names:
        if name.endswith(".toml") or name in _shipped_names():
            members = [name]
        elif name in (known := groups()):
            members = known[name]
        else:
            raise unknown("task", name, [*_shipped_names(), *groups()], "--task")
        for member in members:
            task, file = load_task(member), _file(member).resolve()
            if files.setdefault(task.name, file) != file:
                raise UserError(f"--task {name}: two tasks are called '{task.name}'; rename one")
            tasks.setdefault(task.name, task)
    return list(tasks.values())


def _file(name_or_path: str) -> Path:
    if name_or_path.endswith(".toml"):
        return Path(name_or_path)
    if name_or_path not in _shipped_names():
        raise unknown("task", name_or_path, _shipped_names())
    return shipped("tasks") / f"{name_or_path}.toml"


def _shipped_names() -> list[str]:
    return sorted(path.stem for path in shipped("tasks").glob("*.toml"))


def _check(task: Task, path: Path) -> None:
    if task.name != path.stem:
        raise UserError(f"{path}: name: '{task.name}' must equal the file's name '{path.stem}'")
    for field, number in (("version", task.version), ("max_new_tokens", task.max_new_tokens)):
        if number < 1:
            raise UserError(f"{path}: {field}: must be at least 1, got {number}")
    if not task.description.strip():
        raise UserError(f"{path}: description: is empty; say what the task measures")
    for field, values in (("languages", task.languages), ("metrics", task.metrics)):
        if not values:
            raise UserError(f"{path}: {field}: is empty; list at least one")
        for value in values:
            if values.count(value) > 1:
                raise UserError(f"{path}: {field}: '{value}' is listed twice; remove one")
    _check_painting(task, path)
    _check_names(task, path)
    _check_subset(task, path)
    _check_prompts(task, path)


def _check_painting(task: Task, path: Path) -> None:
    asked = task.painting
    if (asked is None) == (task.kind == "paint"):
        does = "needs a table [painting]" if asked is None else "has no table [painting]"
        raise UserError(f"{path}: painting: a task of kind '{task.kind}' {does}")
    if asked is None:
        return
    if asked.size and not MIN_SIZE <= asked.size <= MAX_SIZE:
        raise UserError(
            f"{path}: painting.size: must be from {MIN_SIZE} to {MAX_SIZE} pixels, or 0 for what "
            f"the model paints; got {asked.size}"
        )
    if asked.images_per_prompt < 1:
        raise UserError(
            f"{path}: painting.images_per_prompt: must be at least 1, got {asked.images_per_prompt}"
        )


def _check_names(task: Task, path: Path) -> None:
    metrics: Iterable[str] = PROBE_METRICS if task.kind == "probe" else METRICS
    if task.painting is not None:
        plain = [name for name, metric in PAINT_METRICS.items() if not metric.of_a_set]
        metrics = [*plain, *distances_of(task.painting.extractor)]
    source = task.data.get("source", "")
    closed: list[tuple[str, str, Sequence[str], Iterable[str]]] = [
        ("kind", "kind", (task.kind,), KINDS),
        ("languages", "language", task.languages, LANGUAGES),
        ("metrics", "metric", task.metrics, metrics),
        ("main_metric", "metric", (task.main_metric,), task.metrics),
        ("data.source", "source", (str(source),), READERS),
    ]
    if len(task.languages) > 1 and task.pivot:
        closed.append(("pivot", "language", (task.pivot,), task.languages))
    for field, what, values, known in closed:
        for value in values:
            if value not in known:
                raise unknown(what, value, known, f"{path}: {field}")
    for name in task.metrics if task.kind not in ("probe", "paint") else ():
        kinds = load_metric(name).kinds
        if task.kind not in kinds:
            raise UserError(
                f"{path}: metrics: '{name}' cannot score kind '{task.kind}', "
                f"only {', '.join(sorted(kinds))}; remove it"
            )


def _check_subset(task: Task, path: Path) -> None:
    known = ("layer=",) if task.kind == "probe" else ("category=", "cell=")
    if task.main_subset and not task.main_subset.startswith(known):
        raise UserError(
            f"{path}: main_subset: '{task.main_subset}' names no subset; "
            f"write {' or '.join(f'{prefix}NAME' for prefix in known)}, or leave it out"
        )


def _check_prompts(task: Task, path: Path) -> None:
    asks = task.kind not in _WITHOUT_PROMPTS
    if not asks and task.prompts:
        raise UserError(f"{path}: prompts: a task of kind '{task.kind}' asks nothing; remove them")
    for language in task.languages if asks else ():
        if not task.prompts.get(language, "").strip():
            raise UserError(
                f"{path}: prompts.{language}: is missing; every language needs a prompt"
            )
    for language, prompt in task.prompts.items():
        _check_prompt(task, language, prompt, f"{path}: prompts")
    if task.paraphrases:
        _check_paraphrases(task, path)


def _check_prompt(task: Task, language: str, prompt: str, where: str) -> None:
    if language not in task.languages:
        raise unknown("language", language, task.languages, where)
    for placeholder in _PLACEHOLDER.findall(prompt):
        if placeholder != "{question}":
            raise UserError(
                f"{where}.{language}: unknown placeholder {placeholder}; only {{question}} is "
                "filled in"
            )


def _check_paraphrases(task: Task, path: Path) -> None:
    where = f"{path}: paraphrases"
    number = {language: len(prompts) for language, prompts in task.paraphrases.items()}
    for language in task.languages:
        if number.get(language, 0) != max(number.values()) or not number[language]:
            raise UserError(
                f"{where}.{language}: {number.get(language, 0)} paraphrases, other languages have "
                f"{max(number.values())}; give the same number, at least one, in every language"
            )
    for language, prompts in task.paraphrases.items():
        for prompt in prompts:
            _check_prompt(task, language, prompt, where)
        every = [task.prompts.get(language, ""), *prompts]
        if len(set(every)) < len(every) or not all(prompt.strip() for prompt in every):
            raise UserError(f"{where}.{language}: a prompt is empty or given twice; remove it")
