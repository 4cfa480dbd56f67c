"""Stage generate: samples to predictions, appended batch by batch."""

import hashlib
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mpm_eval import __version__
from mpm_eval.backends import Backend
from mpm_eval.data import Dataset, open_dataset
from mpm_eval.errors import CorruptImage, Interrupted, UserError, unknown
from mpm_eval.schema import OptionScore, Prediction, Request, Sample, Task
from mpm_eval.store import TaskStore
from mpm_eval.strict import read_json, to_jsonable, write_json

Progress = Callable[[str, int, int], None]  # task, samples done, samples in all

RUNS = Path("results/runs")
_NEEDS = {"generate": "generate", "choose": "choose", "probe": "embed"}  # kind -> capability


@dataclass(frozen=True, slots=True)
class Plan:
    """A task of one run, checked before the first answer."""

    task: Task
    dataset: Dataset
    languages: tuple[str, ...]


def run_tasks(
    tasks: Sequence[Task],
    backend: Backend,
    *,
    model_spec: str,
    languages: Sequence[str] | None = None,
    limit: int | None = None,
    out: Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Path:
    """Answer all tasks and return the run folder; what is already answered is not asked again.

    Every task is checked before the first one starts. Raises UserError for a language or
    capability that is missing, a changed task, model or data, and a folder that cannot be written;
    Interrupted after Ctrl-C.
    """
    if limit is not None and limit < 1:
        raise UserError(f"--limit: must be at least 1, got {limit}")
    plans = [_plan(task, backend, languages) for task in tasks]
    run = out or default_folder(backend.name, limit, seed)
    model = {
        "spec": model_spec,
        "name": backend.name,
        "sha256": backend.sha256,
        "identity": dict(backend.identity),
    }
    _write_run(run, model, seed, limit, [plan.task.name for plan in plans])
    for plan in plans:
        _run_task(plan, backend, run / plan.task.name, model, seed, limit, progress)
    return run


def default_folder(name: str, limit: int | None, seed: int) -> Path:
    """Return results/runs/<model>, with limit and seed where they are not the usual ones."""
    parts = [name.replace("/", "--")]
    if limit is not None:
        parts.append(f"limit{limit}")
    if seed:
        parts.append(f"seed{seed}")
    return RUNS / "-".join(parts)


def _plan(task: Task, backend: Backend, languages: Sequence[str] | None) -> Plan:
    need = _NEEDS[task.kind]
    if need not in backend.capabilities:
        raise UserError(
            f"task '{task.name}' needs a model that can '{need}'; "
            f"'{backend.name}' can {', '.join(sorted(backend.capabilities))}"
        )
    for language in languages or ():
        if language not in task.languages:
            raise unknown("language", language, task.languages, f"task '{task.name}'")
    asked = tuple(languages) if languages else task.languages
    return Plan(task, open_dataset(task), asked)


def _write_run(
    run: Path, model: Mapping[str, Any], seed: int, limit: int | None, names: Sequence[str]
) -> None:
    path = run / "run.json"
    known: list[str] = []
    if path.exists():
        old = read_json(path)
        if old["model"]["sha256"] != model["sha256"] or old["model"]["name"] != model["name"]:
            raise UserError(
                f"{run}: holds a run of another model ('{old['model']['name']}', weights "
                f"{old['model']['sha256'][:12]}, now '{model['name']}', {model['sha256'][:12]}); "
                "give another --out or delete the folder"
            )
        for key, value in (("seed", seed), ("limit", limit)):
            if old[key] != value:
                raise UserError(
                    f"{run}: holds a run with {key} {old[key]}, not {value}; give another --out"
                )
        known = old["tasks"]
    write_json(
        path,
        {
            "schema_version": 1,
            "model": model,
            "seed": seed,
            "limit": limit,
            "tasks": list(dict.fromkeys([*known, *names])),
        },
    )


def _run_task(
    plan: Plan,
    backend: Backend,
    folder: Path,
    model: Mapping[str, Any],
    seed: int,
    limit: int | None,
    progress: Progress | None,
) -> None:
    task, started = plan.task, time.time()
    with TaskStore.open(folder, _manifest(plan, backend, model, seed, limit)) as store:
        write_json(folder / "task.json", task)
        if task.kind == "probe":
            from mpm_eval.stages.probe import write_embeddings

            write_embeddings(task, plan.dataset, backend, folder, plan.languages, limit)
            num_new = len(plan.languages)
        else:
            num_new = _answer_all(plan, backend, store, limit, progress)
    if num_new:
        seconds = time.time() - started
        write_json(folder / "environment.json", _environment(started, seconds, num_new, backend))


def _answer_all(
    plan: Plan, backend: Backend, store: TaskStore, limit: int | None, progress: Progress | None
) -> int:
    samples = list(_in_order(plan, limit))
    done = store.predictions()
    pending = [sample for sample in samples if sample.key not in done]
    answered = len(samples) - len(pending)
    try:
        for start in range(0, len(pending), backend.batch_size):
            batch = pending[start : start + backend.batch_size]
            predictions = _answer(plan, backend, batch)
            store.append(predictions)
            answered += len(predictions)
            if progress:
                progress(plan.task.name, answered, len(samples))
    except KeyboardInterrupt:
        raise Interrupted(
            f"{plan.task.name}: stopped at {answered} of {len(samples)} samples; "
            "run the same command again to continue"
        ) from None
    return len(pending)


def _in_order(plan: Plan, limit: int | None) -> Iterator[Sample]:
    """Yield the samples, all languages of one id together, so that a picture is encoded once."""
    by_language = {lang: plan.dataset.samples(lang) for lang in plan.languages}
    ids = list(dict.fromkeys(s.id for samples in by_language.values() for s in samples))[:limit]
    found = {sample.key: sample for samples in by_language.values() for sample in samples}
    for sample_id in ids:
        for language in plan.languages:
            if (sample_id, language) in found:
                yield found[sample_id, language]


def _answer(plan: Plan, backend: Backend, samples: Sequence[Sample]) -> list[Prediction]:
    """Return one prediction per sample, failed ones (a corrupt picture) with their reason."""
    pictures: dict[str, Any] = {}
    errors: dict[str, str] = {}
    for key in dict.fromkeys(sample.image for sample in samples if sample.image is not None):
        try:
            pictures[key] = plan.dataset.load_image(key)
        except CorruptImage as error:
            errors[key] = str(error)
    prompts = {s.key: plan.task.prompts[s.language].replace("{question}", s.question) for s in samples}
    asked = [s for s in samples if s.image is None or s.image in pictures]
    oracle = "oracle" in backend.capabilities
    requests = [
        Request(
            prompt=prompts[sample.key],
            language=sample.language,
            image=pictures[sample.image] if sample.image is not None else None,
            image_key=sample.image,
            options=sample.options,
            max_new_tokens=plan.task.max_new_tokens,
            references=sample.references if oracle else (),
        )
        for sample in asked
    ]
    answers = dict(zip([s.key for s in asked], _call(backend, plan.task, requests), strict=True))
    predictions = []
    for sample in samples:
        prompt = prompts[sample.key]
        if sample.key in answers:
            output, scores = answers[sample.key]
            digest = _input_sha256(prompt, sample, pictures.get(sample.image or ""))
            predictions.append(
                Prediction(sample.id, sample.language, prompt, output, scores, "", digest)
            )
        else:
            reason = errors[sample.image or ""]
            predictions.append(Prediction(sample.id, sample.language, prompt, error=reason))
    return predictions


def _call(
    backend: Backend, task: Task, requests: Sequence[Request]
) -> list[tuple[str, tuple[OptionScore, ...]]]:
    """Return (output, option scores) per request; a batch too large for memory is halved."""
    if not requests:
        return []
    try:
        answers: list[tuple[str, tuple[OptionScore, ...]]]
        if task.kind == "choose":
            answers = [
                (request.options[max(range(len(s)), key=lambda i: s[i].logprob / s[i].num_tokens)], s)
                for request, s in zip(requests, backend.choose(requests), strict=True)
            ]
        else:
            answers = [(text, ()) for text in backend.generate(requests)]
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and "out of memory" not in str(error).lower():
            raise
        if len(requests) == 1:
            raise UserError(
                f"task '{task.name}': out of memory on a single sample; use a smaller model"
            ) from None
        half = len(requests) // 2
        return _call(backend, task, requests[:half]) + _call(backend, task, requests[half:])
    if len(answers) != len(requests):
        raise ValueError(f"{backend.name}: {len(answers)} answers to {len(requests)} requests")
    return answers


def _input_sha256(prompt: str, sample: Sample, picture: Any) -> str:
    digest = hashlib.sha256(repr((prompt, sample.options)).encode())
    if picture is not None:
        digest.update(repr((picture.mode, picture.size)).encode())
        digest.update(picture.tobytes())
    return digest.hexdigest()


def _manifest(
    plan: Plan, backend: Backend, model: Mapping[str, Any], seed: int, limit: int | None
) -> dict[str, Any]:
    task = plan.task
    packages = ("numpy", "pillow", *(("torch",) if "torch" in sys.modules else ()))
    return {
        "schema_version": 1,
        "task": {"name": task.name, "version": task.version, "sha256": task.sha256},
        "data": {"sha256": plan.dataset.sha256, "description": dict(plan.dataset.description)},
        "model": dict(model),
        "seed": seed,
        "limit": limit,
        "decoding": {"max_new_tokens": task.max_new_tokens, "strategy": "greedy"},
        "languages": list(plan.languages),
        "training_record": to_jsonable(backend.training_record),
        "versions": {
            "mpm-eval": __version__,
            "python": platform.python_version(),
            **{name: found for name in packages if (found := _version(name))},
        },
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _environment(
    started: float, seconds: float, num_samples: int, backend: Backend
) -> dict[str, Any]:
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "duration_s": round(seconds, 3),
        "samples_per_s": round(num_samples / max(seconds, 1e-9), 2),
        "host": platform.node(),
        "platform": platform.platform(),
        "device": backend.identity.get("device", "none"),
    }
