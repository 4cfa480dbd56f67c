"""Contact sheet: painted pictures side by side, a row per prompt and a column per language.

Labels are tags of languages and the prompts in the pivot language: no font for other scripts can
be assumed.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mpm_eval.errors import UserError, unknown
from mpm_eval.schema import Prediction
from mpm_eval.stages.run_folder import chosen_folders
from mpm_eval.store import read_predictions
from mpm_eval.strict import read_json, write_bytes

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

NUM_ROWS = 12
GRID_COLUMNS = 8
_GAP, _TEXT, _LABEL = 4, 13, 150  # pixels: between pictures, of letters, of the labels of rows
_MISSING = (225, 225, 225)
_LARGEST_SIDE = 128


@dataclass(frozen=True, slots=True)
class Cell:
    """One place of a sheet."""

    path: Path | None  # None: not painted
    label: str = ""  # below the picture
    why: str = ""  # why it is not painted


@dataclass(frozen=True, slots=True)
class Sheet:
    """Pictures in rows and columns."""

    columns: tuple[str, ...]  # labels; empty for a grid
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]  # label and cells


@dataclass(frozen=True, slots=True)
class Painted:
    """The predictions of a task folder, in the order of its samples."""

    folder: Path
    pivot: str
    languages: tuple[str, ...]
    ids: tuple[str, ...]
    predictions: Mapping[tuple[str, str], Prediction]

    def cell(self, sample_id: str, language: str, label: str = "") -> Cell:
        """Return the place of one sample's picture."""
        found = self.predictions.get((sample_id, language))
        if found is None or found.error:
            return Cell(None, label, "failed" if found else "not painted")
        return Cell(self.folder / found.output, label)

    def name(self, sample_id: str) -> str:
        """Return the prompt in the pivot language where it can be printed, else the id."""
        found = self.predictions.get((sample_id, self.pivot))
        text = " ".join(found.prompt.split()) if found else ""
        return text if text and _printable(text) else sample_id


def painted_tasks(run: Path, tasks: Sequence[str] | None = None) -> list[Path]:
    """Return the folders of a run's tasks of kind "paint"; UserError when there is none."""
    folders = [
        f for f in chosen_folders(run, tasks) if read_json(f / "task.json")["kind"] == "paint"
    ]
    if not folders:
        raise UserError(
            f"{run}: no task of kind 'paint'; paint one with: mpm-eval run --task emoji_paint"
        )
    return folders


def read_painted(folder: Path) -> Painted:
    """Return what was painted in a task folder so far; UserError when nothing was."""
    manifest, task = read_json(folder / "manifest.json"), read_json(folder / "task.json")
    path = folder / "predictions.jsonl"
    predictions = {p.key: p for p in read_predictions(path)} if path.is_file() else {}
    if not predictions:
        raise UserError(f"{folder}: nothing is painted yet; run the same command to continue")
    ids = tuple(dict.fromkeys(sample_id for sample_id, _ in predictions))
    return Painted(folder, task["pivot"], tuple(manifest["languages"]), ids, predictions)


def sheet_of(
    painted: Painted,
    languages: Sequence[str] | None = None,
    samples: Sequence[str] | None = None,
    num_rows: int = NUM_ROWS,
) -> Sheet:
    """Return a row per sample and a column per language.

    Without `samples` they are spread evenly over the task: none is picked by its looks. Raises
    UserError for a language or sample that the run does not have.
    """
    tags = tuple(painted.languages if languages is None else languages)
    for tag in tags:
        if tag not in painted.languages:
            raise unknown("language", tag, painted.languages, str(painted.folder))
    rows = [
        (painted.name(one), tuple(painted.cell(one, tag) for tag in tags))
        for one in _chosen(painted, samples, num_rows)
    ]
    return Sheet(tags, tuple(rows))


def grid_of(
    painted: Painted,
    language: str,
    samples: Sequence[str] | None = None,
    num_rows: int = NUM_ROWS,
) -> Sheet:
    """Return the pictures of one language, eight in a row, each above its pivot prompt."""
    if language not in painted.languages:
        raise unknown("language", language, painted.languages, str(painted.folder))
    chosen = _chosen(painted, samples, GRID_COLUMNS * num_rows)
    cells = [painted.cell(one, language, painted.name(one)) for one in chosen]
    starts = range(0, len(cells), GRID_COLUMNS)
    return Sheet((), tuple(("", tuple(cells[i : i + GRID_COLUMNS])) for i in starts))


def write_sheet(sheet: Sheet, out: Path) -> None:
    """Write a sheet as PNG, in one step."""
    write_bytes(out, encoded(draw(sheet), "PNG"))


def encoded(picture: "Image", form: str, **options: int) -> bytes:
    """Return the bytes of a picture file."""
    stream = io.BytesIO()
    picture.save(stream, form, **options)
    return stream.getvalue()


def draw(sheet: Sheet, side: int | None = None) -> "Image":
    """Return a sheet as a picture on white; `side` is that of a cell, by default the pictures' own.

    A picture that is missing or broken is a grey field with the reason.
    """
    from PIL import Image, ImageDraw

    cells = [cell for _, row in sheet.rows for cell in row]
    side = side or min(_LARGEST_SIDE, max([48, *(max(p.size) for c in cells if (p := _read(c)))]))
    left = _LABEL if any(label for label, _ in sheet.rows) else _GAP
    head = _TEXT + 2 * _GAP if sheet.columns else _GAP
    below = _TEXT + _GAP if any(cell.label for cell in cells) else 0
    width = max(len(row) for _, row in sheet.rows)
    size = (left + width * (side + _GAP), head + len(sheet.rows) * (side + _GAP + below))
    picture = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(picture)
    for i, tag in enumerate(sheet.columns):
        _write(pen, (left + i * (side + _GAP), _GAP), tag, side)
    for number, (label, row) in enumerate(sheet.rows):
        top = head + number * (side + _GAP + below)
        _write(pen, (_GAP, top + (side - _TEXT) // 2), label, left - 2 * _GAP)
        for i, cell in enumerate(row):
            corner = (left + i * (side + _GAP), top)
            found = _read(cell)
            if found is None:
                pen.rectangle((*corner, corner[0] + side, top + side), fill=_MISSING)
                _write(pen, (corner[0] + 2, top + 2), cell.why or "missing", side - 4)
            else:
                picture.paste(found.resize((side, side)), corner)
            _write(pen, (corner[0], top + side + 1), cell.label, side)
    return picture


def _read(cell: Cell) -> "Image | None":
    from PIL import Image

    if cell.path is None:
        return None
    try:
        with Image.open(cell.path) as picture:
            return picture.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _write(pen: "ImageDraw", corner: tuple[int, int], text: str, width: int) -> None:
    """Write a text, cut to a width in pixels."""
    from PIL import ImageFont

    font = ImageFont.load_default(_TEXT - 2)
    shown = text if _printable(text) else "?"
    while shown and pen.textlength(shown, font=font) > width:
        shown = shown.removesuffix("…")[:-1] + "…" if len(shown) > 1 else ""
    pen.text(corner, shown, fill="black", font=font)


def _printable(text: str) -> bool:
    """Return whether the font that comes with Pillow has all letters."""
    return all(32 <= ord(char) < 0x180 or char in "–—‘’“”…" for char in text)


def _chosen(painted: Painted, samples: Sequence[str] | None, number: int) -> list[str]:
    if number < 1:
        raise UserError(f"--rows: must be at least 1, got {number}")
    if samples is None:
        if len(painted.ids) <= number:
            return list(painted.ids)
        return [painted.ids[i * len(painted.ids) // number] for i in range(number)]
    for one in samples:
        if one not in painted.ids:
            raise unknown("sample", one, painted.ids, str(painted.folder))
    return list(samples)
