"""Leaderboard and card: results side by side, and results where a model is described."""

from pathlib import Path
from typing import Annotated

import typer

from mpm_eval.commands.options import Languages, Tasks, languages_of

_Runs = Annotated[Path, typer.Option(help="Folder of run folders.")]


def leaderboard(
    runs: _Runs = Path("results/runs"),
    out: Annotated[Path, typer.Option(help="Folder for leaderboard.md and the others.")] = Path(
        "results"
    ),
    task: Tasks = None,
    languages: Languages = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LABEL", help="Only cells with this label, e.g. zero-shot; may be repeated."
        ),
    ] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            metavar="md|csv|json|parquet|latex|html|all",
            help="What to write [md, csv and json]; may be repeated.",
        ),
    ] = None,
    published: Annotated[
        bool, typer.Option("--published", help="Show all published results, apart and unranked.")
    ] = False,
) -> None:
    """Rank models in tables of languages and tasks.

    Reads every result.json below --runs; runs with --limit never enter (docs/leaderboard.md).

    Example: mpm-eval leaderboard --task emoji_choice --label zero-shot --format html
    """
    from mpm_eval.stages.leaderboard import DEFAULT_FORMATS, Selection, write_leaderboard
    from mpm_eval.tasks import expand

    selection = Selection(
        tasks=tuple(t.name for t in expand(task)) if task else None,
        languages=languages_of(languages),
        labels=tuple(label) if label else None,
    )
    paths = write_leaderboard(runs, out, selection, formats or DEFAULT_FORMATS, published)
    for path in paths:
        if path.suffix == ".md":
            typer.echo(path.read_text(encoding="utf-8"))
    for path in paths:
        typer.echo(str(path))


def card(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The name of a model card.")],
    runs: _Runs = Path("results/runs"),
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 2 if the card would change.")
    ] = False,
) -> None:
    """Write a model's results into its card.

    As model-index, which the Hugging Face Hub shows; the rest of the card stays as it is.

    Example: mpm-eval card mpm-tiny --check
    """
    from mpm_eval.stages.card import write_card

    path, number = write_card(model, runs, check)
    typer.echo(f"{path}: {number} results{', as they are in the runs' if check else ''}")
