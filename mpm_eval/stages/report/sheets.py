"""Sheets: what runs painted, small, as pictures inside the page."""

import base64
from dataclasses import dataclass

from mpm_eval.errors import UserError
from mpm_eval.stages.contact_sheet import Sheet, draw, encoded, read_painted, sheet_of
from mpm_eval.stages.report.gather import Gathered

NUM_ROWS, SIDE = 10, 44  # of the sheet; pixels of a picture


@dataclass(frozen=True, slots=True)
class ShownSheet:
    """The contact sheet of one run on one task."""

    task: str
    run: str
    address: str  # data: address; "" where `problem` says why
    rows: tuple[str, ...]  # what a reader who sees no picture is told
    columns: tuple[str, ...]
    problem: str = ""


def sheets(gathered: Gathered) -> list[ShownSheet]:
    """Return a sheet for every run of every task of kind "paint"."""
    found = []
    for name in gathered.tasks:
        for _, run, side in gathered.of_task(name):
            if side.result.task.kind != "paint":
                continue
            tags = [tag for tag in gathered.languages if tag in side.result.languages]
            try:
                sheet = sheet_of(read_painted(side.folder), tags, num_rows=NUM_ROWS)
            except UserError as error:
                found.append(ShownSheet(name, run.name, "", (), (), f"not shown: {error}"))
                continue
            labels = tuple(label for label, _ in sheet.rows)
            found.append(ShownSheet(name, run.name, _address(sheet), labels, sheet.columns))
    return found


def _address(sheet: Sheet) -> str:
    content = encoded(draw(sheet, SIDE), "WEBP", quality=75, method=4)
    return "data:image/webp;base64," + base64.b64encode(content).decode()
