"""Score: join predictions with their samples and write result.json; needs no model."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mpm_eval import __version__
from mpm_eval.data import Dataset, open_dataset
from mpm_eval.errors import UserError
from mpm_eval.metrics import load_metric
from mpm_eval.schema import RESULT_SCHEMA_VERSION, Prediction, Sample, Score, Task, TrainingRecord
from mpm_eval.stages.ingest import unknown_sample, write_run
from mpm_eval.stages.result_schema import (
    DataIdentity,
    ModelIdentity,
    Note,
    Result,
    Skipped,
    TaskIdentity,
    ZeroShot,
    json_schema,
)
from mpm_eval.stages.rows import (
    Joined,
    measure,
    metric_notes,
    score_rows,
    subsets,
    transfer_rows,
)
from mpm_eval.strict import (
    build,
    canonical_sha256,
    file_sha256,
    read_json,
    read_jsonl,
    to_jsonable,
    write_json,
)
from mpm_eval.tasks import load_task
from mpm_eval.zero_shot import evidence, label

__all__ = ["json_schema", "score_predictions", "score_run", "task_folders"]

# packages whose version can change a score
_SCORING_PACKAGES = ("numpy", "scipy")


@dataclass(frozen=True, slots=True)
class TaskReference:
    """The task of a manifest."""

    name: str
    version: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What scoring needs of manifest.json."""

    task: TaskReference
    data: DataIdentity
    model: ModelIdentity
    seed: int
    limit: int | None
    decoding: Mapping[str, Any]
    languages: tuple[str, ...]
    training_record: TrainingRecord | None
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Opened:
    """A task folder with the data it was made from, both checked to be unchanged."""

    folder: Path
    manifest: Manifest
    task: Task
    dataset: Dataset

    def samples(self) -> dict[str, list[Sample]]:
        """Return the samples of each language; of a limited run, those with its first ids."""
        found = {tag: list(self.dataset.samples(tag)) for tag in self.manifest.languages}
        if self.manifest.limit is None:
            return found
        ids = dict.fromkeys(sample.id for samples in found.values() for sample in samples)
        kept = set(list(ids)[: self.manifest.limit])
        return {tag: [s for s in samples if s.id in kept] for tag, samples in found.items()}


def score_run(run: Path, tasks: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Score the tasks of a run (all without `tasks`), write each result.json, return the results.

    Scoring twice writes the same bytes. Raises UserError when a run is incomplete, its task file
    or data have changed, or a prediction belongs to no sample.
    """
    folders = task_folders(run)
    return [_score_folder(f) for f in folders if tasks is None or f.name in tasks]


def score_predictions(
    task: Task,
    file: Path,
    name: str,
    out: Path | None = None,
    languages: Sequence[str] | None = None,
) -> Path:
    """Write somebody else's predictions as a run called `name`, score it, return its folder.

    See docs/predictions.md for the format and for what is checked; every error is a UserError.
    """
    run = write_run(task, file, name, out, languages)
    _score_folder(run / task.name)
    return run


def task_folders(run: Path) -> list[Path]:
    """Return the task folders of a run, sorted; raises UserError when there is none."""
    folders = sorted(path.parent for path in run.glob("*/manifest.json"))
    if not folders:
        raise UserError(
            f"{run}: not a run folder, no task in it has a manifest.json; "
            "make one with: mpm-eval run --task TASK --model MODEL"
        )
    return folders


def open_task_folder(folder: Path) -> Opened:
    """Return the manifest, the current task file and the data of a task folder.

    Raises UserError when the task file or the data are not those of the run.
    """
    path = folder / "manifest.json"
    content = read_json(path)
    known = {item.name for item in fields(Manifest)}
    manifest = build(Manifest, {k: v for k, v in content.items() if k in known}, str(path))
    made_with = build(Task, read_json(folder / "task.json"), str(folder / "task.json"))
    user_file = bool(made_with.path) and Path(made_with.path).is_file()
    task = load_task(made_with.path if user_file else manifest.task.name)
    if task.sha256 != manifest.task.sha256:
        raise UserError(
            f"{folder}: the task file '{task.name}' has changed since the run "
            f"(version {manifest.task.version} then, {task.version} now); "
            "run the task again in a new folder"
        )
    dataset = open_dataset(task)
    if dataset.sha256 != manifest.data.sha256:
        raise UserError(
            f"{folder}: the data of task '{task.name}' have changed since the run; "
            "run the task again in a new folder"
        )
    return Opened(folder, manifest, task, dataset)


def join(opened: Opened) -> dict[str, list[Joined]]:
    """Return, per language, every sample with its prediction, in the order of the samples.

    Raises UserError for a prediction of no sample, a second one, or a missing one.
    """
    path = opened.folder / "predictions.jsonl"
    samples = {s.key: s for members in opened.samples().values() for s in members}
    found: dict[tuple[str, str], Prediction] = {}
    for where, prediction in _read_predictions(path):
        if prediction.key not in samples:
            raise UserError(unknown_sample(where, prediction.key, samples))
        if prediction.key in found:
            raise UserError(
                f"{where}: second prediction for id '{prediction.id}' in language "
                f"'{prediction.language}'; remove one of them"
            )
        found[prediction.key] = prediction
    missing = len(samples) - len(found)
    if missing:
        raise UserError(
            f"{opened.folder}: {missing} of {len(samples)} samples have no prediction; "
            "run the same command to continue"
        )
    joined: dict[str, list[Joined]] = {tag: [] for tag in opened.manifest.languages}
    for key, sample in samples.items():
        joined[sample.language].append(Joined(sample, found[key]))
    return joined


def _read_predictions(path: Path) -> Iterator[tuple[str, Prediction]]:
    if path.is_file():
        content = path.read_bytes()
        if content and not content.endswith(b"\n"):
            raise UserError(
                f"{path}: the last line was cut off when the run stopped; "
                "run the same command to continue"
            )
        for number, line in read_jsonl(path):
            where = f"{path}:{number}"
            yield where, build(Prediction, line, where)


def _score_folder(folder: Path) -> dict[str, Any]:
    opened = open_task_folder(folder)
    result = _probe_result(opened) if opened.task.kind == "probe" else _item_result(opened)
    content: dict[str, Any] = to_jsonable(result)
    write_json(folder / "result.json", content)
    return content


def _item_result(opened: Opened) -> Result:
    task = opened.task
    joined = join(opened)
    labels = _labels(opened.manifest)
    scores: list[Score] = []
    skipped: list[Skipped] = []
    notes: list[Note] = []
    for name in task.metrics:
        metric = load_metric(name)
        if task.kind not in metric.kinds:
            raise UserError(
                f"{task.path or task.name}: metrics: '{name}' cannot score kind '{task.kind}', "
                f"only {', '.join(sorted(metric.kinds))}; remove it"
            )
        measured = {}
        for tag, members in joined.items():
            if not metric.supports(tag):
                skipped.append(Skipped(name, tag, "the metric does not know this language"))
                continue
            measured[tag] = measure(metric, tag, labels[tag], members)
            if measured[tag].too_few:
                skipped.append(Skipped(name, tag, measured[tag].too_few))
            elif not measured[tag].joined:
                skipped.append(Skipped(name, tag, "the metric applies to no sample"))
            names = subsets((j.sample for j in members), task.main_subset)
            scores += score_rows(measured[tag], names)
            notes += metric_notes(measured[tag])
        if name == task.main_metric:
            for tag in joined:
                if tag != task.pivot and task.pivot in joined:
                    rows = transfer_rows(
                        measured.get(task.pivot), measured.get(tag), tag, task.main_subset
                    )
                    scores += rows.scores
                    skipped += rows.skipped
                    notes += rows.notes
    predictions = sorted(
        (j.prediction for members in joined.values() for j in members), key=lambda p: p.key
    )
    return _result(
        opened,
        scores,
        skipped,
        notes,
        num_samples=len(predictions),
        num_failed=sum(bool(p.error) for p in predictions),
        predictions_sha256=canonical_sha256(to_jsonable(predictions)),
    )


def _probe_result(opened: Opened) -> Result:
    from mpm_eval.stages.probe import score_embeddings

    languages = opened.manifest.languages
    files = sorted((opened.folder / "embeddings").glob("*.safetensors"))
    missing = sorted(set(languages) - {file.stem for file in files})
    if missing:
        raise UserError(
            f"{opened.folder}: no hidden states for {', '.join(missing)}; "
            "run the same command to continue"
        )
    scores = score_embeddings(opened.task, opened.folder, list(languages), _labels(opened.manifest))
    digests = {file.name: file_sha256(file) for file in files if file.stem in languages}
    return _result(
        opened,
        scores,
        [],
        [],
        num_samples=sum(len(members) for members in opened.samples().values()),
        num_failed=0,
        predictions_sha256=canonical_sha256(digests),
    )


def _labels(manifest: Manifest) -> dict[str, str]:
    return {tag: label(manifest.training_record, tag) for tag in manifest.languages}


def _result(
    opened: Opened,
    scores: Sequence[Score],
    skipped: Sequence[Skipped],
    notes: Sequence[Note],
    *,
    num_samples: int,
    num_failed: int,
    predictions_sha256: str,
) -> Result:
    manifest, task = opened.manifest, opened.task
    record = manifest.training_record
    return Result(
        schema_version=RESULT_SCHEMA_VERSION,
        task=TaskIdentity(
            name=task.name,
            version=task.version,
            sha256=task.sha256,
            kind=task.kind,
            main_metric=task.main_metric,
            main_subset=task.main_subset,
            pivot=task.pivot,
            description=task.description,
        ),
        model=manifest.model,
        data=manifest.data,
        decoding=manifest.decoding,
        seed=manifest.seed,
        limit=manifest.limit,
        languages=manifest.languages,
        num_samples=num_samples,
        num_failed=num_failed,
        predictions_sha256=predictions_sha256,
        versions={**manifest.versions, **_scoring_versions()},
        zero_shot={
            tag: ZeroShot(label(record, tag), evidence(record, tag)) for tag in manifest.languages
        },
        scores=tuple(sorted(scores, key=lambda s: (s.metric, s.language, s.subset))),
        skipped=tuple(sorted(skipped, key=lambda s: (s.metric, s.language))),
        notes=tuple(sorted(notes, key=lambda n: (n.metric, n.language, n.subset, n.name))),
    )


def _scoring_versions() -> dict[str, str]:
    from importlib.metadata import version

    scoring = {f"scoring:{package}": version(package) for package in _SCORING_PACKAGES}
    return {"scoring:mpm-eval": __version__, **scoring}
