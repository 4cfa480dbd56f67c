"""LaTeX: the board as tables for a paper, with booktabs."""

import re
from itertools import groupby

from mpm_eval.stages.leaderboard.board import Board, Cell, Section, Table
from mpm_eval.stages.leaderboard.collect import CEILING, FLOOR
from mpm_eval.stages.leaderboard.notes import Note
from mpm_eval.stages.show import plain

_DASH = "\0"  # never in a text: control characters are replaced
_ESCAPED = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "_": r"\_", "%": r"\%", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$",
    "–": _DASH, "…": r"\dots{}", "√": r"$\surd$", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}",
}  # fmt: skip
_HEAD = """\
% Made with {command}; do not edit by hand.
% In the preamble: \\usepackage[T1]{{fontenc}} and \\usepackage{{booktabs}}; for names in other
% scripts use XeLaTeX or LuaLaTeX.
"""


def to_latex(board: Board) -> str:
    """Return one table environment per table; to be read with \\input."""
    parts = [_HEAD.format(command=plain(board.command).plain)]
    for section in board.sections:
        for number, table in enumerate(section.tables):
            parts.append(_table(section, table, number))
    return "\n".join(parts)


def _table(section: Section, table: Table, number: int) -> str:
    title = ": ".join(part for part in (section.title, table.title) if part)
    about = table.text or section.text
    caption = f"{escape(title)}. {escape(about)}" if about else f"{escape(title)}."
    label = re.sub(r"[^A-Za-z0-9]+", "-", section.title).strip("-").lower()
    heads = [escape(head) for head in (table.head, *table.columns)]
    lines = [
        r"\begin{table}",
        r"\centering\footnotesize\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{caption}}}",
        rf"\label{{tab:{label}-{number}}}",
        rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        r"\toprule",
        " & ".join(heads) + r" \\",
    ]
    for _, rows in groupby(table.rows, key=lambda row: row.group):
        lines.append(r"\midrule")
        for row in rows:
            name = escape(row.name)
            if row.role in (FLOOR, CEILING):
                name = rf"\textit{{{name}}}"
            lines.append(" & ".join((name, *map(_cell, row.cells))) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    if table.notes:
        lines += ["", r"\smallskip\raggedright"]
        lines += [_note(note) + r"\par" for note in table.notes]
    return "\n".join([*lines, r"\end{table}", ""])


def _cell(cell: Cell) -> str:
    # in mathematics a hyphen is a minus sign
    number = re.fullmatch(r"-?[0-9.]+", cell.value)
    parts = [f"${cell.value}$" if number else escape(cell.value)]
    parts += [rf"\,$\pm${cell.half}"] if cell.half else []
    parts += [rf"\,{escape(cell.mark)}"] if cell.mark else []
    return "".join(parts)


def _note(note: Note) -> str:
    exact = note.code or note.url
    # a signature is one long word: it may break behind every part
    shown = escape(exact).replace(r"\textbar{}", r"\textbar\allowbreak{}")
    return escape(note.text) + (rf" \texttt{{{shown}}}" if exact else "")


def escape(text: str) -> str:
    """Return `text` on one line so that LaTeX prints it as it is."""
    shown = "".join(_ESCAPED.get(character, character) for character in plain(text).plain)
    # "--", "?`" and their like would become one sign; the dash above is meant to
    return re.sub(r"(?<=[-?!`',<>])(?=[-`',<>])", "{}", shown).replace(_DASH, "--")
