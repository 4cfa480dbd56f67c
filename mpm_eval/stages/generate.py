"""Stage generate: samples to predictions, appended batch by batch."""

import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from mpm_eval import __version__
from mpm_eval.backends import Backend
from mpm_eval.data import Dataset, open_dataset
from mpm_eval.errors import Interrupted, UserError, unknown
from mpm_eval.schema import Prediction, Sample, Task
from mpm_eval.stages.answer import Pictures, answer_batch
from mpm_eval.stages.provenance import add_session, package_version
from mpm_eval.store import TaskStore
from mpm_eval.strict import build, read_json, to_jsonable, write_json

Progress = Callable[[str, int, int], None]  # task, samples done, samples in all
Answerer = Callable[[Sequence[Sample]], list[Prediction]]  # one prediction per sample, in order

RUNS = Path("results/runs")
# kind -> capability
_NEEDS = {"generate": "generate", "choose": "choose", "probe": "embed", "paint": "paint"}


@dataclass(frozen=True, slots=True)
class Plan:
    """A task of one run, checked before the first answer."""

    task: Task
    dataset: Dataset
    languages: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunModel:
    """The model of a run."""

    spec: str  # as it was asked for
    name: str
    sha256: str
    identity: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RunFile:
    """run.json: what all tasks of a run folder share."""

    schema_version: int
    model: RunModel
    seed: int
    limit: int | None
    tasks: tuple[str, ...]
    control: str = ""  # one of data.variants.CONTROLS


def run_tasks(
    tasks: Sequence[Task],
    backend: Backend,
    *,
    model_spec: str,
    languages: Sequence[str] | None = None,
    limit: int | None = None,
    out: Path | None = None,
    seed: int = 0,
    control: str = "",
    images_per_prompt: int | None = None,
    progress: Progress | None = None,
) -> Path:
    """Answer all tasks and return the run folder; what is already answered is not asked again.

    `limit` keeps the first samples, the same ids in every language; `images_per_prompt` stands in
    place of that of the tasks of kind "paint". Every task is checked before the first one starts.
    Raises UserError for a language or capability that is missing, a changed task, model or data,
    and a folder that cannot be written; Interrupted after Ctrl-C.
    """
    if limit is not None and limit < 1:
        raise UserError(f"--limit: must be at least 1, got {limit}")
    if images_per_prompt is not None:
        tasks = _with_images(tasks, images_per_prompt)
    _check_languages(tasks, languages or ())
    plans = [_plan(task, backend, languages, control) for task in tasks]
    folder = out or default_folder(backend.name, limit, seed, control)
    model = RunModel(_portable(model_spec), backend.name, backend.sha256, dict(backend.identity))
    run = RunFile(1, model, seed, limit, tuple(plan.task.name for plan in plans), control)
    _write_run(folder, run)
    for plan in plans:
        _run_task(plan, backend, folder / plan.task.name, run, progress)
    return folder


def _with_images(tasks: Sequence[Task], number: int) -> list[Task]:
    if number < 1:
        raise UserError(f"--images-per-prompt: must be at least 1, got {number}")
    if not any(task.painting for task in tasks):
        raise UserError("--images-per-prompt: no task is of kind 'paint'; leave it out")
    return [
        replace(task, painting=replace(task.painting, images_per_prompt=number))
        if task.painting
        else task
        for task in tasks
    ]


def _portable(model_spec: str) -> str:
    """Return the spec with a folder's name for its path: results are shared, machines are not."""
    prefix, colon, argument = model_spec.partition(":")
    folder, mark, options = argument.partition("?")
    if colon and Path(folder).is_dir():
        return f"{prefix}:{Path(folder).resolve().name}{mark}{options}"
    return Path(model_spec).resolve().name if Path(model_spec).is_dir() else model_spec


def default_folder(name: str, limit: int | None, seed: int, control: str = "") -> Path:
    """Return results/runs/<model>, with what is not as usual: control, limit and seed."""
    parts = [name.replace("/", "--")]
    if control:
        parts.append(control)
    if limit is not None:
        parts.append(f"limit{limit}")
    if seed:
        parts.append(f"seed{seed}")
    return RUNS / "-".join(parts)


def _plan(task: Task, backend: Backend, languages: Sequence[str] | None, control: str) -> Plan:
    if task.kind == "retrieve":
        raise UserError(
            f"task '{task.name}' is of kind 'retrieve', which no model is run for here; rank its "
            f"candidates elsewhere and score the rankings with: mpm-eval score --predictions FILE "
            f"--task {task.path or task.name}"
        )
    need = _NEEDS[task.kind]
    if need not in backend.capabilities:
        raise UserError(
            f"task '{task.name}' needs a model that can '{need}'; "
            f"'{backend.name}' can {', '.join(sorted(backend.capabilities))}"
        )
    wanted = task.languages if languages is None else languages
    asked = tuple(tag for tag in dict.fromkeys(wanted) if tag in task.languages)
    if not asked:
        raise UserError(
            f"task '{task.name}': none of the languages asked for; it has "
            f"{', '.join(task.languages)}"
        )
    plan = Plan(task, open_dataset(task, control), asked)
    if task.kind == "paint":
        from mpm_eval.stages.paint import require_prompts
        from mpm_eval.stages.paint_vectors import require_files

        require_files(task)
        require_prompts(task, (s for tag in asked for s in plan.dataset.samples(tag)))
    return plan


def _check_languages(tasks: Sequence[Task], languages: Sequence[str]) -> None:
    """A language must be in one task at least; each task then answers in those it has."""
    known = {tag for task in tasks for tag in task.languages}
    names = ", ".join(f"'{task.name}'" for task in tasks)
    for language in languages:
        if language not in known:
            raise unknown("language", language, known, f"task {names}")


def _write_run(folder: Path, run: RunFile) -> None:
    path = folder / "run.json"
    known: tuple[str, ...] = ()
    if path.exists():
        old = build(RunFile, read_json(path), str(path))
        known = old.tasks
        was, now = old.model, run.model
        if (was.sha256, was.name) != (now.sha256, now.name):
            raise UserError(
                f"{folder}: holds a run of another model ('{was.name}', weights "
                f"{was.sha256[:12]}, now '{now.name}', {now.sha256[:12]}); "
                "give another --out or delete the folder"
            )
        for key in ("seed", "limit", "control"):
            if getattr(old, key) != getattr(run, key):
                raise UserError(
                    f"{folder}: holds a run with {key} {getattr(old, key)!r}, not "
                    f"{getattr(run, key)!r}; give another --out or delete the folder"
                )
    tasks = tuple(dict.fromkeys([*known, *run.tasks]))
    write_json(path, {**to_jsonable(run), "tasks": tasks})


def _run_task(
    plan: Plan, backend: Backend, folder: Path, run: RunFile, progress: Progress | None
) -> None:
    started = time.time()
    with TaskStore.open(folder, _manifest(plan, backend, run)) as store:
        write_json(folder / "task.json", plan.task)
        answer = _answerer(plan, backend, store, run)
        before = _answered(folder, store)
        try:
            if answer is None:
                _embed_all(plan, backend, folder, run.limit, progress)
            else:
                _answer_all(plan, answer, backend.batch_size, store, run.limit, progress)
        finally:
            num_new = len(_answered(folder, store) - before)
            if num_new:
                device = backend.identity.get("device", "none")
                add_session(folder / "environment.json", started, num_new, device)


def _answerer(plan: Plan, backend: Backend, store: TaskStore, run: RunFile) -> Answerer | None:
    """Return what answers a batch of samples; None for a probe, which is not asked anything.

    Pictures that are lost are forgotten: they are painted again.
    """
    task = plan.task
    if task.kind == "probe":
        return None
    if backend.batch_size < 1:
        raise ValueError(f"{backend.name}: batch_size is {backend.batch_size}, must be at least 1")
    if task.kind != "paint":
        pictures = Pictures(plan.dataset)
        return lambda samples: answer_batch(task, backend, samples, pictures)
    from mpm_eval.stages.paint import Painter, lost

    store.forget(p.key for p in lost(store.folder, store.predictions().values()))
    painter = Painter(task, backend, plan.dataset, store.folder, run.seed)
    painter.keep_size(store.predictions().values())
    return painter


def _answered(folder: Path, store: TaskStore) -> set[Any]:
    """Return what tells an answer of this process from one that was there before."""
    files = (folder / "embeddings").glob("*.safetensors")
    return {*store.predictions(), *((path.name, path.stat().st_mtime_ns) for path in files)}


def _embed_all(
    plan: Plan, backend: Backend, folder: Path, limit: int | None, progress: Progress | None
) -> None:
    from mpm_eval.stages.probe import write_embeddings

    told = partial(progress, plan.task.name) if progress else None
    try:
        write_embeddings(plan.task, plan.dataset, backend, folder, plan.languages, limit, told)
    except KeyboardInterrupt:
        raise Interrupted(
            f"{plan.task.name}: stopped; run the same command again to continue"
        ) from None


def _answer_all(
    plan: Plan,
    answer: Answerer,
    size: int,
    store: TaskStore,
    limit: int | None,
    progress: Progress | None,
) -> None:
    """Append an answer for every sample that has none, in batches that fit into memory."""
    samples = list(_in_order(plan, limit, store.languages))
    done = store.predictions()
    pending = [sample for sample in samples if sample.key not in done]
    total = len(samples)
    try:
        while pending:
            batch = pending[:size]
            predictions = _try(plan.task, answer, batch)
            if predictions is None:
                size = len(batch) // 2
                continue
            store.append(predictions)
            pending = pending[len(batch) :]
            if progress:
                progress(plan.task.name, total - len(pending), total)
    except KeyboardInterrupt:
        raise Interrupted(
            f"{plan.task.name}: stopped at {total - len(pending)} of {total} samples; "
            "run the same command again to continue"
        ) from None


def _try(task: Task, answer: Answerer, samples: Sequence[Sample]) -> list[Prediction] | None:
    """Return one prediction per sample; None when a smaller batch may fit into memory."""
    try:
        return answer(samples)
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and "out of memory" not in str(error).lower():
            raise
    # outside the handler: the traceback would keep the tensors of the failed batch alive
    if len(samples) == 1:
        raise UserError(
            f"task '{task.name}': out of memory on the single sample '{samples[0].id}' "
            f"({samples[0].language}); use a smaller model or a machine with more memory"
        )
    return None


def _in_order(plan: Plan, limit: int | None, languages: Sequence[str]) -> Iterator[Sample]:
    """Yield the samples, all languages of one id together, so that a picture is encoded once.

    A limit counts ids over `languages`, those of all runs in this folder, as scoring does: a
    language that is added later gets the same ids.
    """
    counted = plan.languages if limit is None else languages
    ids = dict.fromkeys(sample.id for tag in counted for sample in plan.dataset.samples(tag))
    found = {s.key: s for tag in plan.languages for s in plan.dataset.samples(tag)}
    for sample_id in list(ids)[:limit]:
        for language in plan.languages:
            if (sample_id, language) in found:
                yield found[sample_id, language]


def _manifest(plan: Plan, backend: Backend, run: RunFile) -> dict[str, Any]:
    task = plan.task
    packages = ("numpy", "pillow", *(("torch",) if "torch" in sys.modules else ()))
    controlled = {"control": run.control} if run.control else {}
    return {
        **controlled,
        "schema_version": 1,
        "task": {"name": task.name, "version": task.version, "sha256": task.sha256},
        "data": {"sha256": plan.dataset.sha256, "description": dict(plan.dataset.description)},
        "model": to_jsonable(run.model),
        "seed": run.seed,
        "limit": run.limit,
        "decoding": _decoding(task),
        "languages": list(plan.languages),
        "training_record": to_jsonable(backend.training_record),
        "versions": {
            "mpm-eval": __version__,
            "python": platform.python_version(),
            **{name: found for name in packages if (found := package_version(name))},
        },
    }


def _decoding(task: Task) -> dict[str, Any]:
    if task.painting is None:
        return {"max_new_tokens": task.max_new_tokens, "strategy": "greedy"}
    asked = task.painting
    return {"images_per_prompt": asked.images_per_prompt, "size": asked.size, "strategy": "seeded"}
