"""Multiple choice with the picture inside the file: MMBench."""

import base64
import csv
import hashlib
import io
import string
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mpm_eval.data._rows import Collected, Row, decode
from mpm_eval.data._samples import SampleSet, where
from mpm_eval.data.benchmarks._files import Options, open_source
from mpm_eval.errors import CorruptImage, UserError
from mpm_eval.schema import Task
from mpm_eval.strict import read_text

if TYPE_CHECKING:
    from PIL.Image import Image

ROTATION = 1_000_000  # question q with its options rotated r times has the index q + r * ROTATION
_NEEDED = ("index", "question", "A", "B", "answer", "image")
_LONGEST_REFERENCE = 64  # a shorter `image` is the index of the row that has the picture


def open_mmbench(task: Task) -> SampleSet:
    """Return MMBench's rows, one TSV file for each language; every rotation is a sample.

    The question is hint, question and the options with their letters; the options are the letters.
    Rotations of one question are one cluster, as CircularEval needs. Raises UserError with file
    and line for a bad row, and for rows without an answer, as in the test split.
    """
    source = open_source(Options, task)
    collected = Collected(task)
    pictures: dict[str, str] = {}  # key -> base64
    questions: set[str] = set()
    files = {tag: source.file(tag) for tag in task.languages}
    for tag, file in files.items():
        rows = list(_rows(file))
        images: dict[str, str] = {}
        for _, row in rows:
            images.setdefault(row["index"], row["image"])
        for place, row in rows:
            image = _image(row, images, place)
            key = hashlib.sha256(image.encode()).hexdigest()[:16]
            pictures[key] = image
            found = _row(row, tag, key, place)
            questions.add(found.cluster)
            collected.add(found, place)
    collected.require(where(task))

    def load(key: str) -> "Image":
        try:
            content = base64.b64decode(pictures[key], validate=True)
        except (KeyError, ValueError) as error:
            raise CorruptImage(f"{task.name}: picture {key} is not base64: {error}") from error
        return decode(content, f"{task.name}: picture {key}")

    return source.sample_set(
        collected.samples,
        load,
        files.values(),
        {"parallel": collected.parallel(), "questions": str(len(questions))},
    )


def _rows(file: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (place, row) of a TSV file with a header."""
    text = read_text(file)
    csv.field_size_limit(max(len(text), csv.field_size_limit()))  # a picture is one field
    reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t", strict=True)
    try:
        header = next(reader, [])
        missing = [name for name in _NEEDED if name not in header]
        if missing:
            raise UserError(f"{file}: column '{missing[0]}' is missing; the header is {header[:9]}")
        for values in reader:
            place = f"{file}:{reader.line_num}"
            if len(values) != len(header):
                raise UserError(
                    f"{place}: {len(values)} fields, the header has {len(header)}; "
                    "is the file cut off?"
                )
            yield place, dict(zip(header, values, strict=True))
    except csv.Error as error:
        raise UserError(f"{file}:{reader.line_num}: not valid TSV: {error}") from None


def _image(row: Mapping[str, str], images: Mapping[str, str], place: str) -> str:
    image = row["image"]
    if len(image) > _LONGEST_REFERENCE:
        return image
    if len(images.get(image, "")) <= _LONGEST_REFERENCE:
        raise UserError(f"{place}: image: '{image}' is neither a picture nor the index of a row")
    return images[image]


def _row(row: Mapping[str, str], language: str, image: str, place: str) -> Row:
    if not row["index"].isdigit():
        raise UserError(f"{place}: index: '{row['index']}' is not a whole number")
    letters = [letter for letter in string.ascii_uppercase if row.get(letter, "").strip()]
    answer = row["answer"].strip()
    if not answer:
        raise UserError(
            f"{place}: answer: is empty; the answers of MMBench's test split are not public, use "
            "the dev split"
        )
    if answer not in letters:
        raise UserError(f"{place}: answer: '{answer}' is not one of {', '.join(letters)}")
    return Row(
        id=row["index"],
        language=language,
        question=_question(row, letters),
        image=image,
        options=tuple(letters),
        answer=letters.index(answer),
        category=row.get("category", ""),
        cluster=str(int(row["index"]) % ROTATION),
    )


def _question(row: Mapping[str, str], letters: Sequence[str]) -> str:
    parts = [row.get("hint", ""), row["question"], *(f"{x}. {row[x]}" for x in letters)]
    return "\n".join(part for part in parts if part.strip())
