"""The command line: parse, call one function, print."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from mpm_eval import __version__
from mpm_eval.errors import Interrupted, UserError

app = typer.Typer(
    name="mpm-eval",
    help="Train a model to see in English, then measure what it can do in every other language.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)

Tasks = Annotated[
    list[str] | None,
    typer.Option(
        "--task",
        metavar="TASK",
        help="Task, group of tasks or path to a .toml file; may be repeated.",
    ),
]
Languages = Annotated[
    str | None, typer.Option(help="Tags or groups of languages, e.g. zh,de or core.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on stdout.")]


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"mpm-eval {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


@app.command()
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
    wanted = _languages(languages)
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
    _print_results(score_run(folder, [t.name for t in tasks]), folder, as_json)


@app.command()
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
        _print_results(score_run(run_folder), run_folder, as_json)
        return
    assert predictions is not None
    if task is None:
        raise UserError("--predictions: say which task they answer with --task")
    found = load_task(task)
    folder = score_predictions(
        found, predictions, name or predictions.stem, out, _languages(languages)
    )
    _print_results(score_run(folder, [found.name]), folder, as_json)


@app.command()
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
    paths = write_leaderboard(runs, out, names, _languages(languages))
    typer.echo(next(p for p in paths if p.suffix == ".md").read_text(encoding="utf-8"))
    for path in paths:
        typer.echo(str(path))


@app.command("list")
def list_(
    what: Annotated[
        str,
        typer.Argument(metavar="tasks|models|metrics|languages", help="What to list."),
    ],
    as_json: Json = False,
) -> None:
    """List tasks, models, metrics or languages.

    Example: mpm-eval list tasks
    """
    from mpm_eval.listing import LISTS, rows
    from mpm_eval.printing import print_table

    if what not in LISTS:
        from mpm_eval.errors import unknown

        raise unknown("list", what, LISTS)
    found = rows(what)
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False, indent=1))
    else:
        print_table(found)


@app.command()
def show(run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]) -> None:
    """Show a run.

    Scores, labels with their evidence, sample predictions, failures.

    Example: mpm-eval show results/runs/mpm-tiny
    """
    from rich.console import Console

    from mpm_eval.stages.show import print_run

    print_run(run_folder, Console())


@app.command()
def train(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A shipped recipe's name or a path to a .toml.")
    ],
    out: Annotated[Path | None, typer.Option(help="Checkpoint folder.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="One setting, e.g. align.steps=100; repeatable."
        ),
    ] = None,
) -> None:
    """Train a model from a recipe.

    Stages align, pretrain, instruct; after any stop the same command continues.

    Example: mpm-eval train tiny --out checkpoints/tiny --set seed=1
    """
    from mpm_eval.progress import TrainProgress

    try:
        from training.interface import train as train_recipe
    except ImportError as error:
        raise UserError(f"train: {error}; pip install 'mpm-eval[train]'") from None
    try:
        with TrainProgress() as progress:
            folder = train_recipe(recipe, out, overrides or (), progress)
    except KeyboardInterrupt:
        raise Interrupted("stopped; the same command continues") from None
    typer.echo(str(folder))


@app.command()
def schema(
    what: Annotated[
        str, typer.Argument(metavar="result|prediction|task", help="Which format.")
    ] = "result",
) -> None:
    """Print the JSON Schema of a file format.

    Example: mpm-eval schema result
    """
    from mpm_eval.stages.score import json_schema

    typer.echo(json.dumps(json_schema(what), ensure_ascii=False, indent=1))


def _languages(text: str | None) -> tuple[str, ...] | None:
    from mpm_eval.languages import parse_languages

    return parse_languages(text) if text is not None else None


def _print_results(results: list[dict[str, Any]], folder: Path, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(results, ensure_ascii=False, indent=1, sort_keys=True))
        return
    from mpm_eval.printing import print_results

    print_results(results)
    typer.echo(str(folder))


def main() -> NoReturn:
    """Run the command line: exit 0 done, 2 a mistake of the user's, 130 interrupted."""
    try:
        code = app(standalone_mode=False)
    except UserError as error:
        _stop(f"error: {error}", 2)
    except Interrupted as error:
        _stop(str(error), 130)
    except (KeyboardInterrupt, typer.Abort):
        _stop("interrupted; run the same command again to continue", 130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except Exception as error:
        # Usage errors (of click, wherever Typer keeps it) know how to print themselves.
        if not hasattr(error, "format_message"):
            raise
        _stop(f"error: {error.format_message()}", getattr(error, "exit_code", 2))
    sys.exit(code if isinstance(code, int) else 0)


def _stop(message: str, code: int) -> NoReturn:
    print(" ".join(message.split("\n")), file=sys.stderr)
    sys.exit(code)
