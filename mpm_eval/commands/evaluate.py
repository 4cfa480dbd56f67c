"""Run, score, show: from a model to its result."""

from pathlib import Path
from typing import Annotated

import typer

from mpm_eval.commands.options import Json, Languages, Tasks, languages_of, print_results
from mpm_eval.errors import UserError


def run(
    task: Tasks = None,
    model: Annotated[
        str, typer.Option(help="Model card, checkpoint folder or backend spec (e.g. echo).")
    ] = "mpm-tiny",
    languages: Languages = None,
    limit: Annotated[
        int | None, typer.Option(help="Only the first N samples of each language; never ranked.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder [results/runs/MODEL].")] = None,
    seed: Annotated[int, typer.Option(help="Seed of sampling backends.")] = 0,
    as_json: Json = False,
) -> None:
    """Answer tasks with a model, score the answers.

    After any stop the same command continues with the next sample.

    Example: mpm-eval run --task transfer --task llava_zh --model mpm-tiny
    """
    from mpm_eval.cards import open_model
    from mpm_eval.progress import SampleProgress
    from mpm_eval.stages.generate import run_tasks
    from mpm_eval.stages.score import score_run
    from mpm_eval.tasks import expand

    if not task:
        raise UserError("--task: give at least one task; see: mpm-eval list tasks")
    tasks = expand(task)
    wanted = languages_of(languages)
    backend = open_model(model, seed)
    with SampleProgress() as progress:
        folder = run_tasks(
            tasks,
            backend,
            model_spec=model,
            languages=wanted,
            limit=limit,
            out=out,
            seed=seed,
            progress=progress,
        )
    print_results(score_run(folder, [t.name for t in tasks]), folder, as_json)


def score(
    run_folder: Annotated[
        Path | None, typer.Argument(metavar="RUN", help="A run folder to score again.")
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option(help="Somebody else's predictions (docs/predictions.md).")
    ] = None,
    task: Annotated[str | None, typer.Option(help="The task they answer.")] = None,
    name: Annotated[
        str | None, typer.Option(help="The model's name in tables [file name].")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder [results/runs/NAME].")] = None,
    languages: Languages = None,
    as_json: Json = False,
) -> None:
    """Score a run again, or others' predictions.

    Reads files only; no model is needed.

    Example: mpm-eval score --predictions answers.jsonl --task llava_zh --name my-model
    """
    from mpm_eval.stages.score import score_predictions, score_run
    from mpm_eval.tasks import load_task

    if (run_folder is None) == (predictions is None):
        raise UserError("score: give either a run folder or --predictions FILE with --task")
    if run_folder is not None:
        for option, value in (
            ("task", task),
            ("name", name),
            ("out", out),
            ("languages", languages),
        ):
            if value is not None:
                raise UserError(
                    f"--{option}: goes with --predictions; leave it out for a run folder"
                )
        print_results(score_run(run_folder), run_folder, as_json)
        return
    assert predictions is not None
    if task is None:
        raise UserError("--predictions: say which task they answer with --task")
    found = load_task(task)
    folder = score_predictions(
        found, predictions, name or predictions.stem, out, languages_of(languages)
    )
    print_results(score_run(folder, [found.name]), folder, as_json)


def show(run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]) -> None:
    """Show a run.

    Scores, labels with their evidence, sample predictions, failures.

    Example: mpm-eval show results/runs/mpm-tiny
    """
    from rich.console import Console

    from mpm_eval.stages.show import print_run

    print_run(run_folder, Console())
