"""Leaderboard: results side by side."""

from pathlib import Path
from typing import Annotated

import typer

from mpm_eval.commands.options import Languages, Tasks, languages_of


def leaderboard(
    runs: Annotated[Path, typer.Option(help="Folder of run folders.")] = Path("results/runs"),
    out: Annotated[Path, typer.Option(help="Folder for leaderboard.{md,csv,json}.")] = Path(
        "results"
    ),
    task: Tasks = None,
    languages: Languages = None,
) -> None:
    """Write tables of models, languages and tasks.

    Reads every result.json below --runs; runs with --limit never enter.

    Example: mpm-eval leaderboard --runs results/runs --out results
    """
    from mpm_eval.stages.leaderboard import write_leaderboard
    from mpm_eval.tasks import expand

    names = [t.name for t in expand(task)] if task else None
    paths = write_leaderboard(runs, out, names, languages_of(languages))
    typer.echo(next(p for p in paths if p.suffix == ".md").read_text(encoding="utf-8"))
    for path in paths:
        typer.echo(str(path))
