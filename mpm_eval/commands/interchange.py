"""Import and export: to and from the files of other programs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mpm_eval.commands.options import Json, print_results

if TYPE_CHECKING:
    from mpm_eval.stages.interchange.imported import Log

_FORMATS = ("lm-eval", "lmms-eval", "vlmevalkit", "inspect")


def import_(
    format_: Annotated[
        str, typer.Argument(metavar="|".join(_FORMATS), help="The program that made the files.")
    ],
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Its sample logs, or folders of them.")
    ],
    name: Annotated[str, typer.Option(help="The model's name in tables.")],
    language: Annotated[
        str, typer.Option(help="Tag of the language of the samples, e.g. de; und: unknown.")
    ] = "und",
    task: Annotated[
        str | None,
        typer.Option(help="The task's name here: logs of several languages become one task."),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(metavar="METRIC", help="A metric to keep, the main one first [all]."),
    ] = None,
    lower_is_better: Annotated[
        list[str] | None,
        typer.Option(metavar="METRIC", help="A metric that is better when it is lower."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder [results/runs/NAME].")] = None,
    as_json: Json = False,
) -> None:
    """Read sample logs of other programs.

    Writes a run folder for compare, gate, leaderboard, report and show.

    Example: mpm-eval import inspect logs/2026-01-31_gpqa.eval --name my-model --language en
    """
    from mpm_eval.stages.interchange.run_writer import Choice, write_imported

    metrics = tuple(metric or ())
    logs = _read(format_, paths, metrics)
    choice = Choice(name, language, task or "", metrics, tuple(lower_is_better or ()))
    folder, tasks, notes = write_imported(logs, choice, out)
    _print_run(folder, tasks, notes, as_json)


def export(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A scored run folder.")],
    to: Annotated[str, typer.Option(metavar="parquet|csv|inspect", help="Which format.")],
    out: Annotated[
        Path, typer.Option(help="The file to write; for inspect a folder, a log per language.")
    ],
    task: Annotated[
        list[str] | None,
        typer.Option(metavar="TASK", help="Task of the run; may be repeated [all]."),
    ] = None,
    images: Annotated[
        bool, typer.Option("--images", help="Put the pictures into the logs of inspect.")
    ] = False,
) -> None:
    """Write a run's samples for other programs.

    One row per sample and language for pandas, polars or DuckDB, or logs for inspect view.

    Example: mpm-eval export results/runs/mpm-tiny --to parquet --out mpm-tiny.parquet
    """
    from mpm_eval.errors import UserError, unknown

    if images and to != "inspect":
        raise UserError("--images: goes with --to inspect; a table holds no pictures")
    if to == "inspect":
        from mpm_eval.stages.interchange.export_inspect import export_inspect

        written, notes = export_inspect(run_folder, out, task, images)
    elif to in ("parquet", "csv"):
        from mpm_eval.stages.interchange.export import export_table

        written, notes = export_table(run_folder, out, to, task)
    else:
        raise unknown("format", to, ("parquet", "csv", "inspect"))
    for note in notes:
        typer.echo(f"note: {' '.join(note.split())}", err=True)
    for path in written:
        typer.echo(str(path))


def _print_run(folder: Path, tasks: list[str], notes: list[str], as_json: bool) -> None:
    from mpm_eval.stages.result_schema import load_result
    from mpm_eval.strict import to_jsonable

    for note in notes:
        typer.echo(f"note: {' '.join(note.split())}", err=True)
    results = [to_jsonable(load_result(folder / name / "result.json")) for name in tasks]
    print_results(results, folder, as_json)


def _read(format_: str, paths: list[Path], metrics: tuple[str, ...]) -> "list[Log]":
    if format_ in ("lm-eval", "lmms-eval"):
        from mpm_eval.stages.interchange.lm_eval import read_lm_eval

        return read_lm_eval(paths, format_)
    if format_ == "vlmevalkit":
        from mpm_eval.stages.interchange.vlmevalkit import read_vlmevalkit

        return read_vlmevalkit(paths, [column.removeprefix("mean:") for column in metrics])
    if format_ == "inspect":
        from mpm_eval.stages.interchange.inspect_log import read_inspect

        return read_inspect(paths)
    from mpm_eval.errors import unknown

    raise unknown("format", format_, _FORMATS)
