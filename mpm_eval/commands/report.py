"""Report: runs as one HTML file."""

from pathlib import Path
from typing import Annotated

import typer

from mpm_eval.commands.options import Languages, Tasks, languages_of


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Run folders; flips are between the first two."),
    ],
    out: Annotated[Path | None, typer.Option(help="HTML file [RUN/report.html].")] = None,
    samples: Annotated[
        int, typer.Option(help="Show at most N samples, shared between the tasks.", metavar="N")
    ] = 1000,
    task: Tasks = None,
    languages: Languages = None,
) -> None:
    """Write runs as one HTML file.

    Scores, plots, samples side by side and provenance; the file opens offline in any browser.

    Example: mpm-eval report results/runs/mpm-tiny
    """
    from mpm_eval.stages.report import write_report

    written = write_report(runs, out, samples, task, languages_of(languages))
    if written.num_samples_left_out:
        total = written.num_samples + written.num_samples_left_out
        typer.echo(
            f"{written.num_samples} of {total} samples shown; more: --samples or --task", err=True
        )
    typer.echo(str(written.path))
