"""A user's row of data, from a JSONL line or a hub data set, checked and turned into a sample."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mpm_eval.errors import CorruptImage, UserError
from mpm_eval.schema import Sample, Task

if TYPE_CHECKING:
    from PIL.Image import Image

# Others are left out because Pillow runs Ghostscript for EPS, and few of them are ever meant.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a JSONL file; its keys are the fields a hub data set is mapped to."""

    id: str
    language: str
    references: tuple[str, ...] = ()
    question: str = ""
    image: str | None = None
    options: tuple[str, ...] = ()
    answer: int | None = None  # index of the right option
    category: str = ""
    cluster: str = ""  # default: the picture, or the id of a sample without one
    closed: bool = True
    translation: str = ""  # the question in the pivot language, for --control translate-test


# kind -> what is done with the question
_READS_THE_QUESTION = {"probe": "a probe reads", "paint": "a model paints"}


def to_sample(row: Row, task: Task, where: str) -> Sample:
    """Return the sample of a row; raises UserError "`where`: field …" for what is missing."""
    if not row.id:
        raise UserError(f"{where}: field 'id': is empty; give every sample an id")
    if any(not text.strip() for text in (*row.references, *row.options)):
        raise UserError(f"{where}: field 'references' or 'options': has an empty text; remove it")
    references, answer = row.references, -1
    if task.kind == "choose":
        answer = _right_option(row, where)
        references = references or (row.options[answer],)
    elif row.options:
        raise UserError(
            f"{where}: field 'options': the task's kind is '{task.kind}'; remove the options or "
            'set kind = "choose"'
        )
    if task.kind in _READS_THE_QUESTION:
        if not row.question:
            does = _READS_THE_QUESTION[task.kind]
            raise UserError(f"{where}: field 'question': is empty; {does} this text")
        references = references or (row.question,)
    if not references:
        raise UserError(f"{where}: field 'references': is empty; give at least one answer")
    return Sample(
        id=row.id,
        language=row.language,
        image=row.image,
        references=references,
        cluster=row.cluster or row.image or row.id,
        question=row.question,
        options=row.options,
        answer=answer,
        category=row.category,
        closed=row.closed,
        translation=row.translation,
    )


def _right_option(row: Row, where: str) -> int:
    """Return the index of the right option, from `answer` or from the first reference."""
    if len(row.options) < 2:
        raise UserError(f"{where}: field 'options': needs at least two, got {len(row.options)}")
    if len(set(row.options)) < len(row.options):
        raise UserError(f"{where}: field 'options': the same option twice; make them differ")
    answer = row.answer
    if answer is None:
        if not row.references or row.references[0] not in row.options:
            raise UserError(
                f"{where}: field 'answer': missing; give the index of the right option, 0 to "
                f"{len(row.options) - 1}"
            )
        answer = row.options.index(row.references[0])
    if not 0 <= answer < len(row.options):
        raise UserError(
            f"{where}: field 'answer': {answer} is not the index of an option; give 0 to "
            f"{len(row.options) - 1}"
        )
    if row.references and row.references[0] != row.options[answer]:
        raise UserError(
            f"{where}: field 'references': the first one must be the right option, "
            f"'{row.options[answer]}'"
        )
    return answer


class Collected:
    """The samples of a task by language, added one by one; duplicates are refused."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._samples: dict[str, list[Sample]] = {tag: [] for tag in task.languages}
        self._first: dict[tuple[str, str], str] = {}  # key -> where
        self.left_out = 0  # rows in languages the task does not have

    def add(self, row: Row, where: str) -> Sample | None:
        """Add a row and return its sample; None when the task does not have its language.

        Raises UserError for a bad row and for an id that this language already has.
        """
        if row.language not in self._samples:
            self.left_out += 1
            return None
        sample = to_sample(row, self._task, where)
        if sample.key in self._first:
            raise UserError(
                f"{where}: field 'id': '{row.id}' in language '{row.language}' is already in "
                f"{self._first[sample.key]}; ids must be unique in a language"
            )
        self._first[sample.key] = where
        self._samples[row.language].append(sample)
        return sample

    def samples(self, language: str) -> list[Sample]:
        """Return the samples of one of the task's languages, in the order they came."""
        return self._samples[language]

    def parallel(self) -> str:
        """Return "yes", or how many ids are not in every language, for the description."""
        ids = [{s.id for s in samples} for samples in self._samples.values()]
        everywhere = set.intersection(*ids)
        missing = len(set().union(*ids) - everywhere)
        return f"no: {missing} ids are not in every language" if missing else "yes"

    def require(self, where: str) -> None:
        """Raise UserError when a language of the task has no sample."""
        empty = [tag for tag, samples in self._samples.items() if not samples]
        if empty:
            raise UserError(
                f"{where}: no samples in {', '.join(empty)}; {self.left_out} rows are in other "
                "languages than the task's; correct the language or the task's languages"
            )


def inside(folder: Path, name: str, where: str) -> Path:
    """Return the path of the file `name` in `folder`.

    Raises UserError when it lies outside, also by a link: data files must not read other files.
    """
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise UserError(f"{where}: '{name}' lies outside {folder}; put the file into the folder")
    return path


def folder_of(task: Task, path: str, where: str) -> Path:
    """Return the data folder of a task, relative to the task file; raises UserError if missing."""
    if not path:
        raise UserError(f"{where}.path: missing; give a folder, relative to the task file")
    folder = (Path(task.path).parent if task.path else Path()) / path
    if not folder.is_dir():
        raise UserError(f"{where}.path: no folder {folder}; paths are relative to the task file")
    return folder


def decode(content: bytes, what: str) -> "Image":
    """Return the RGB picture in `content`, upright; raises CorruptImage naming `what`.

    Transparency is dropped, and of an animation the first frame is kept.
    """
    import io

    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            width, height = picture.size
            limit = Image.MAX_IMAGE_PIXELS
            if limit and width * height > limit:
                raise CorruptImage(f"{what}: {width} x {height} pixels, {limit} are allowed")
            return ImageOps.exif_transpose(picture).convert("RGB")
    except CorruptImage:
        raise
    except UnidentifiedImageError as error:
        raise CorruptImage(f"{what}: cannot be decoded: none of {', '.join(FORMATS)}") from error
    except Exception as error:  # broken bytes make decoders raise anything, KeyError included
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CorruptImage(f"{what}: cannot be decoded: {reason}") from error


def describe_rows(collected: Collected, extra: Mapping[str, str]) -> dict[str, str]:
    """Return the description of a user's data, for results."""
    return {
        **extra,
        "parallel": collected.parallel(),
        "left_out": f"{collected.left_out} rows in other languages",
    }
