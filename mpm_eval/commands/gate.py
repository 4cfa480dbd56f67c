"""Gate and baseline: is a candidate worse than a kept run by more than the rules allow?"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mpm_eval.commands.options import Json, print_json

if TYPE_CHECKING:
    from mpm_eval.stages.gate_verdicts import Report

baseline = typer.Typer(
    help="Keep results as small reviewed files that a gate compares with.", no_args_is_help=True
)
_Folder = Annotated[Path, typer.Option("--folder", help="Folder of baselines.")]
_FOLDER = Path("results/baselines")


def gate(
    baseline: Annotated[
        Path, typer.Option(metavar="RUN|FILE", help="A run folder, or a file of a baseline.")
    ],
    candidate: Annotated[Path, typer.Option(metavar="RUN", help="The run folder to judge.")],
    rules: Annotated[
        Path | None, typer.Option(help="Rules in TOML (docs/ci.md) [the shipped ones].")
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML here.")] = None,
    summary: Annotated[Path | None, typer.Option(help="Append a Markdown summary here.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0,
    as_json: Json = False,
) -> None:
    """Compare a run with a baseline and fail on a regression.

    Exit 0 passed, 1 regression, 2 usage, 3 cannot decide (too few samples, items differ, failures).

    Example: mpm-eval gate --baseline results/baselines/main.json --candidate results/runs/new
    """
    from mpm_eval.stages.baselines import load_side
    from mpm_eval.stages.gate import gate as decide
    from mpm_eval.stages.gate_reports import append_summary, write_junit
    from mpm_eval.stages.gate_rules import default_rules, load_rules
    from mpm_eval.stages.pairing import run_sides

    known = load_rules(rules or default_rules())
    report = decide(
        load_side(baseline),
        run_sides(candidate),
        known,
        names=(baseline.stem if baseline.suffix == ".json" else baseline.name, candidate.name),
        run=candidate,
        seed=seed,
    )
    if junit is not None:
        write_junit(junit, report)
    if summary is not None:
        append_summary(summary, report)
    _print(report, as_json)
    raise typer.Exit(report.exit_code)


def _print(report: "Report", as_json: bool) -> None:
    from mpm_eval.printing import print_table
    from mpm_eval.stages.gate_reports import annotations, headline, table
    from mpm_eval.strict import to_jsonable

    for warning in report.warnings:
        typer.echo(f"warning: {warning}", err=True)
    if as_json:
        state = {"status": report.status, "exit_code": report.exit_code}
        print_json({**to_jsonable(report), **state})
        return
    print_table(table(report))
    if os.environ.get("GITHUB_ACTIONS") == "true":
        for line in annotations(report):
            typer.echo(line)
    typer.echo(headline(report))


@baseline.command("save")
def save(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A scored run folder.")],
    name: Annotated[
        str | None, typer.Option(help="Its name [that of the model, with -limitN].")
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(metavar="TASK", help="Only this task of the run; may be repeated."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what has this name.")] = False,
    folder: _Folder = _FOLDER,
) -> None:
    """Keep a run as a baseline.

    Writes NAME.json, to be read in a review, and NAME/TASK.parquet; commit both.

    Example: mpm-eval baseline save results/runs/mpm-tiny --name main
    """
    from mpm_eval.stages.baselines import save_baseline

    typer.echo(str(save_baseline(run_folder, folder, name, task, force)))


@baseline.command("list")
def list_baselines(folder: _Folder = _FOLDER, as_json: Json = False) -> None:
    """List the baselines.

    Each is read whole and its hashes are checked.

    Example: mpm-eval baseline list
    """
    from mpm_eval.printing import print_table
    from mpm_eval.stages.baselines import list_baselines as rows

    found = rows(folder)
    if as_json:
        print_json(found)
    else:
        print_table(found)
