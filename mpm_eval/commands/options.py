"""Options and output that several commands share."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from mpm_eval.schema import Task

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
ImagesPerPrompt = Annotated[
    int | None, typer.Option(help="Pictures per prompt, in place of the task's.", metavar="N")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on stdout.")]


def languages_of(text: str | None, tasks: Sequence["Task"] = ()) -> tuple[str, ...] | None:
    """Return the tags in the text of --languages, of groups those that the tasks have; None where
    it is not given."""
    from mpm_eval.languages import parse_languages

    if text is None:
        return None
    known = {tag for task in tasks for tag in task.languages}
    return parse_languages(text, known if tasks else None)


def print_json(content: Any) -> None:
    """Print any value that JSON knows."""
    typer.echo(json.dumps(content, ensure_ascii=False, indent=1, sort_keys=True))


def print_results(results: list[dict[str, Any]], folder: Path, as_json: bool) -> None:
    """Print the main scores of results, then the run folder; or the results as JSON."""
    if as_json:
        print_json(results)
        return
    from mpm_eval.printing import print_results as print_scores

    print_scores(results)
    typer.echo(str(folder))
