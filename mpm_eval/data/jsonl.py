"""Bring your own data: a folder with one JSONL file of samples and the pictures it names."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mpm_eval.data._rows import Collected, Row, decode, describe_rows, folder_of, inside
from mpm_eval.data._samples import SampleSet, read_options, where
from mpm_eval.errors import CorruptImage, UserError
from mpm_eval.schema import Task
from mpm_eval.strict import build, canonical_sha256, file_sha256, read_jsonl

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class JsonlOptions:
    """The table [data] of a task with source "jsonl"."""

    source: str
    path: str  # folder, relative to the task file
    file: str = "samples.jsonl"


def open_jsonl(task: Task) -> SampleSet:
    """Return the samples of a JSONL file; see docs/data.md for its fields.

    Raises UserError with file and line for a bad line, a duplicate id, a picture that is missing
    or outside the folder, and when a language of the task has no samples.
    """
    options = read_options(JsonlOptions, task)
    folder = folder_of(task, options.path, where(task))
    file = inside(folder, options.file, f"{where(task)}.file")
    if not file.is_file():
        raise UserError(f"{where(task)}.file: no file {folder / options.file}")
    collected = Collected(task)
    images: dict[str, Path] = {}
    for number, content in read_jsonl(file):
        place = f"{folder / options.file}:{number}"
        row: Row = build(Row, content, place)
        sample = collected.add(row, place)
        if sample is not None and sample.image is not None:
            images[sample.image] = _find_image(folder, sample.image, place)
    collected.require(str(folder / options.file))

    def load(key: str) -> "Image":
        try:
            content = images[key].read_bytes()
        except (KeyError, OSError) as error:
            raise CorruptImage(f"{folder / key}: cannot be read: {error}") from error
        return decode(content, str(folder / key))

    hashes = [file_sha256(file), *(f"{k} {file_sha256(p)}" for k, p in sorted(images.items()))]
    return SampleSet(
        task=task.name,
        languages=task.languages,
        make=collected.samples,
        load=load,
        sha256=canonical_sha256(hashes),
        description=describe_rows(
            collected, {"source": "jsonl", "path": options.path, "file": options.file}
        ),
    )


def _find_image(folder: Path, name: str, place: str) -> Path:
    path = inside(folder, name, f"{place}: field 'image'")
    if not path.is_file():
        raise UserError(f"{place}: field 'image': no file {folder / name}")
    return path
