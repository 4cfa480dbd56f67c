"""Read a run folder: its manifest, the task and data it was made from, predictions with samples."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from mpm_eval.data import Dataset, open_dataset
from mpm_eval.errors import UserError, unknown
from mpm_eval.schema import Prediction, Sample, Task, TrainingRecord
from mpm_eval.stages.ingest import unknown_sample
from mpm_eval.stages.result_schema import DataIdentity, ModelIdentity
from mpm_eval.stages.rows import Joined
from mpm_eval.strict import build, read_json, read_jsonl
from mpm_eval.tasks import load_task


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
    control: str = ""


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


def task_folders(run: Path) -> list[Path]:
    """Return the task folders of a run, sorted; raises UserError when there is none."""
    folders = sorted(path.parent for path in run.glob("*/manifest.json"))
    if not folders:
        raise UserError(
            f"{run}: not a run folder, no task in it has a manifest.json; "
            "make one with: mpm-eval run --task TASK --model MODEL"
        )
    return folders


def chosen_folders(run: Path, tasks: Sequence[str] | None) -> list[Path]:
    """Return the task folders of a run, those of `tasks` where they are given.

    Raises UserError for a task that the run does not have.
    """
    folders = {folder.name: folder for folder in task_folders(run)}
    for name in tasks or ():
        if name not in folders:
            raise unknown("task", name, folders, str(run))
    return list(folders.values()) if tasks is None else [folders[name] for name in tasks]


def open_task_folder(folder: Path) -> Opened:
    """Return the manifest, the current task file and the data of a task folder.

    Raises UserError when the task file or the data are not those of the run.
    """
    path = folder / "manifest.json"
    content = read_json(path)
    known = {item.name for item in fields(Manifest)}
    manifest = build(Manifest, {k: v for k, v in content.items() if k in known}, str(path))
    if manifest.model.spec == "import":
        raise UserError(
            f"{folder}: imported from another program, without its data; its scores are final"
        )
    made_with = build(Task, read_json(folder / "task.json"), str(folder / "task.json"))
    user_file = bool(made_with.path) and Path(made_with.path).is_file()
    task = load_task(made_with.path if user_file else manifest.task.name)
    if task.sha256 != manifest.task.sha256:
        raise UserError(
            f"{folder}: the task file '{task.name}' has changed since the run "
            f"(version {manifest.task.version} then, {task.version} now); "
            "run the task again in a new folder"
        )
    if task.painting is not None and made_with.painting is not None:
        task = replace(task, painting=made_with.painting)  # --images-per-prompt changes no file
    dataset = open_dataset(task, manifest.control)
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
