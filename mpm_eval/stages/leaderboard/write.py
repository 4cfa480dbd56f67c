"""Write: the files of a leaderboard, each from the same tables."""

import shlex
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from mpm_eval.errors import unknown
from mpm_eval.stages.leaderboard.collect import EVERYTHING, Selection, collect
from mpm_eval.stages.leaderboard.published import list_published
from mpm_eval.strict import to_jsonable, write_bytes, write_json, write_text

# format -> suffix of its file
FORMATS = {
    "md": "md",
    "csv": "csv",
    "json": "json",
    "parquet": "parquet",
    "latex": "tex",
    "html": "html",
}
DEFAULT_FORMATS = ("md", "csv", "json")


def write_leaderboard(
    runs: Path,
    out: Path,
    selection: Selection = EVERYTHING,
    formats: Sequence[str] = DEFAULT_FORMATS,
    published: bool = False,
) -> list[Path]:
    """Write leaderboard.md and others into `out`; return their paths in the order of `FORMATS`.

    Formats are keys of `FORMATS`, or "all". With `published`, every table of published results is
    shown, without it those whose task is on the board. The same results give the same bytes. What
    is left out is said on stderr and in the files. Raises UserError as `collect` and `standings`
    do and for an unknown format.
    """
    chosen = _formats(formats)
    entries, left_out = collect(runs, selection)
    for reason in left_out:
        print(f"left out: {reason}", file=sys.stderr)

    from mpm_eval.stages.leaderboard.board import make_board
    from mpm_eval.stages.leaderboard.html import to_html
    from mpm_eval.stages.leaderboard.latex import to_latex
    from mpm_eval.stages.leaderboard.markdown import to_markdown
    from mpm_eval.stages.leaderboard.standings import standings
    from mpm_eval.stages.leaderboard.tables import tidy_rows, to_csv, to_parquet

    by_task = groupby(entries, key=lambda entry: entry.result.task.name)
    found = {name: standings(list(group)) for name, group in by_task}
    command = _command(runs, out, selection, formats, published)
    known = list_published()
    board = make_board(entries, found, left_out, command, known, published)
    rows = tidy_rows(entries, found)
    paths = {name: out / f"leaderboard.{FORMATS[name]}" for name in chosen}
    for name, path in paths.items():
        if name == "json":
            shown = [one for one in known if published or set(one.tasks.values()) & set(found)]
            content = {"rows": rows, "published": to_jsonable(shown), "left_out": left_out}
            write_json(path, {"schema_version": 1, "command": command, **content})
        elif name == "parquet":
            write_bytes(path, to_parquet(rows))
        elif name == "csv":
            write_text(path, to_csv(rows))
        else:
            text_of = {"md": to_markdown, "latex": to_latex, "html": to_html}[name]
            write_text(path, text_of(board))
    return list(paths.values())


def _formats(formats: Sequence[str]) -> list[str]:
    for name in formats:
        if name not in (*FORMATS, "all"):
            raise unknown("format", name, (*FORMATS, "all"), "--format")
    return [name for name in FORMATS if name in formats or "all" in formats]


def _command(
    runs: Path, out: Path, selection: Selection, formats: Sequence[str], published: bool
) -> str:
    """Return the command that makes the same files, with paths relative to the current folder."""
    words = ["mpm-eval", "leaderboard", "--runs", _relative(runs), "--out", _relative(out)]
    for name in selection.tasks or ():
        words += ["--task", name]
    if selection.languages is not None:
        words += ["--languages", ",".join(selection.languages)]
    for label in selection.labels or ():
        words += ["--label", label]
    if tuple(formats) != DEFAULT_FORMATS:
        for name in formats:
            words += ["--format", name]
    if published:
        words.append("--published")
    return shlex.join(words)


def _relative(path: Path) -> str:
    here = Path.cwd()
    resolved = path.resolve()
    return (resolved.relative_to(here) if resolved.is_relative_to(here) else path).as_posix()
