"""Run, score, show: from a model to its result."""

from pathlib import Path
from typing import Annotated

import typer

from mpm_eval.commands.options import (
    ImagesPerPrompt,
    Json,
    Languages,
    Tasks,
    languages_of,
    print_json,
    print_results,
)
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
    control: Annotated[
        str,
        typer.Option(
            metavar="blank|shuffled|blind|translate-test",
            help="Change the data on purpose: a floor, never ranked.",
        ),
    ] = "",
    images_per_prompt: ImagesPerPrompt = None,
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
    tasks, backend = expand(task), open_model(model, seed)
    with SampleProgress() as progress:
        folder = run_tasks(
            tasks,
            backend,
            model_spec=model,
            languages=languages_of(languages, tasks),
            limit=limit,
            out=out,
            seed=seed,
            control=control,
            images_per_prompt=images_per_prompt,
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
        found, predictions, name or predictions.stem, out, languages_of(languages, [found])
    )
    print_results(score_run(folder, [found.name]), folder, as_json)


def show(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    lost: Annotated[
        bool,
        typer.Option("--lost", help="List what is right in the pivot language and lost in others."),
    ] = False,
    task: Tasks = None,
    languages: Languages = None,
    as_json: Json = False,
) -> None:
    """Show a run.

    Scores, labels with their evidence, sample predictions, failures.

    Example: mpm-eval show results/runs/mpm-tiny --lost --task transfer_zh
    """
    from rich.console import Console

    from mpm_eval.stages.lost import lost_in_translation
    from mpm_eval.stages.result_schema import load_result
    from mpm_eval.stages.run_folder import chosen_folders
    from mpm_eval.stages.show import print_lost, print_run
    from mpm_eval.strict import to_jsonable

    if lost:
        wanted = languages_of(languages)
        folders = [
            folder
            for folder in chosen_folders(run_folder, task)
            if task or load_result(folder / "result.json").task.kind != "probe"
        ]
        found = [part for folder in folders for part in lost_in_translation(folder, wanted)]
        if as_json:
            print_json(to_jsonable(found))
        else:
            print_lost(found, Console())
        return
    if as_json:
        folders = chosen_folders(run_folder, task)
        print_json([to_jsonable(load_result(folder / "result.json")) for folder in folders])
        return
    print_run(run_folder, Console(), task)
