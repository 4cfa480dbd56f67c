"""Contact sheet: painted pictures as one file."""

from pathlib import Path
from typing import Annotated

import typer

from mpm_eval.commands.options import Languages, languages_of
from mpm_eval.errors import UserError


def contact_sheet(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    out: Annotated[Path | None, typer.Option(help="PNG file [RUN/contact-sheet.png].")] = None,
    task: Annotated[
        str | None, typer.Option(help="The task of kind paint, where the run has several.")
    ] = None,
    languages: Languages = None,
    grid: Annotated[
        str | None, typer.Option(metavar="LANGUAGE", help="Only the pictures of one language.")
    ] = None,
    sample: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="A sample to show; may be repeated [spread evenly]."),
    ] = None,
    rows: Annotated[int, typer.Option(help="Rows of the sheet.", metavar="N")] = 12,
) -> None:
    """Write painted pictures as one PNG file.

    A row per prompt, a column per language, all of a row from one seed.

    Example: mpm-eval contact-sheet results/runs/emoji_paint --languages en,zh,de --out sheet.png
    """
    from mpm_eval.stages.contact_sheet import (
        grid_of,
        painted_tasks,
        read_painted,
        sheet_of,
        write_sheet,
    )

    if grid is not None and languages is not None:
        raise UserError("--grid: shows one language; leave --languages out")
    folders = painted_tasks(run_folder, [task] if task else None)
    if len(folders) > 1:
        names = ", ".join(folder.name for folder in folders)
        raise UserError(f"{run_folder}: several tasks paint ({names}); choose one with --task")
    painted = read_painted(folders[0])
    if grid is not None:
        sheet = grid_of(painted, grid, sample, rows)
    else:
        sheet = sheet_of(painted, languages_of(languages), sample, rows)
    path = out or run_folder / "contact-sheet.png"
    write_sheet(sheet, path)
    typer.echo(str(path))
