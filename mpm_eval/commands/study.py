"""Study: a family of checkpoints, trained and measured."""

from pathlib import Path
from typing import Annotated

import typer

from mpm_eval.errors import Interrupted, UserError


def study(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A shipped study's name or a path to a .toml.")
    ],
    seeds: Annotated[
        str | None, typer.Option(metavar="N,N", help="Only these seeds [all of the study].")
    ] = None,
    points: Annotated[
        str | None, typer.Option(metavar="POINT,POINT", help="Only these points [all].")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of studies.")] = Path("results/studies"),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what is done, what is left, how long.")
    ] = False,
) -> None:
    """Train and measure a family of models.

    Every point with every seed; table, plot and cards are written to results/studies/NAME. After
    any stop the same command continues.

    Example: mpm-eval study calibration --seeds 0 --dry-run
    """
    from mpm_eval.stages.study import (
        Folders,
        Timings,
        describe_plan,
        load_study,
        plan_study,
        run_study,
        write_study,
    )

    found = load_study(name)
    folders = Folders(out, found.name)
    planned = plan_study(found, folders, _names(points, "--points"), _numbers(seeds))
    if dry_run:
        for line in describe_plan(planned, Timings(folders)):
            typer.echo(line)
        return
    from mpm_eval.progress import SampleProgress, TrainProgress

    try:
        with TrainProgress() as training, SampleProgress() as answering:
            run_study(found, planned, folders, training, answering)
    except KeyboardInterrupt:
        raise Interrupted("stopped; the same command continues") from None
    paths = write_study(found, plan_study(found, folders), folders, name)
    for path in paths:
        typer.echo(str(path))


def _names(text: str | None, option: str) -> tuple[str, ...] | None:
    if text is None:
        return None
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not names:
        raise UserError(f"{option}: nothing is given; write names joined by commas")
    return names


def _numbers(text: str | None) -> tuple[int, ...] | None:
    names = _names(text, "--seeds")
    for name in names or ():
        if not name.isdecimal():
            raise UserError(f"--seeds: '{name}' is not a number; write e.g. 0,1,2")
    return None if names is None else tuple(map(int, names))
