"""Markdown: the board as GitHub shows it, and text that stays what it is there."""

import html
import re
from typing import TYPE_CHECKING

from mpm_eval.stages.leaderboard.collect import CEILING, FLOOR
from mpm_eval.stages.show import plain

if TYPE_CHECKING:
    from mpm_eval.stages.leaderboard.board import Board, Table
    from mpm_eval.stages.leaderboard.notes import Note

LEGEND = (
    "A cell is the value ± half the width of its 95 % interval, then how the model came to the "
    "language, from its training record: **P** pivot; **Z** zero-shot, no multimodal sample and no "
    "text of the task in that language; **Q** quasi-zero-shot, text only or a counted handful; "
    "**S** supervised; **?** unknown, no training record. A rank 2–4 says that one other model is "
    "significantly better and that at most the fourth place is possible; models whose ranks begin "
    "alike are tied and sorted by name. Rows in *italics* are floors and ceilings, never ranked. "
    "Every value unrounded: leaderboard.csv and leaderboard.json. How ranks come about: "
    "docs/leaderboard.md."
)


def to_markdown(board: "Board") -> str:
    """Return the board as Markdown."""
    made = f"Made with {code(board.command)}; do not edit by hand."
    lines = ["# Leaderboard", "", made, "", LEGEND, ""]
    for section in board.sections:
        lines += [f"## {escape(section.title)}", ""]
        if section.text:
            lines += [escape(section.text), ""]
        for table in section.tables:
            lines += _table(table)
    if board.left_out:
        lines += ["## Left out", "", *(f"- {escape(reason)}" for reason in board.left_out), ""]
    return "\n".join(lines)


def _table(table: "Table") -> list[str]:
    lines = [f"### {escape(table.title)}", ""] if table.title else []
    if table.text:
        lines += [escape(table.text), ""]
    lines.append(f"| {' | '.join(map(escape, (table.head, *table.columns)))} |")
    lines.append(f"|---{'|--:' * len(table.columns)}|")
    for row in table.rows:
        name = escape(row.name)
        if row.role in (FLOOR, CEILING):
            name = f"*{name}*"
        lines.append(f"| {' | '.join((name, *(escape(str(cell)) for cell in row.cells)))} |")
    if table.notes:
        lines += ["", *(_note(note) for note in table.notes)]
    return [*lines, ""]


def _note(note: "Note") -> str:
    parts = [escape(note.text)]
    parts += [code(note.code)] if note.code else []
    parts += [f"<{note.url}>"] if note.url else []
    return f"- {' '.join(parts)}"


def escape(text: str) -> str:
    """Return `text` on one line so that Markdown shows it as it is, in a table cell too.

    Control characters are replaced.
    """
    marked = re.sub(r"([\\`*\[\]|~])", r"\\\1", html.escape(plain(text).plain, quote=False))
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", marked)


def code(text: str) -> str:
    """Return `text` on one line as a code span; one with backticks gets a longer fence."""
    shown = plain(text).plain
    longest = max((len(run) for run in re.findall("`+", shown)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if longest else ""
    return f"{fence}{pad}{shown}{pad}{fence}"
