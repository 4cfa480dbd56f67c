"""List and schema: what the program knows."""

import json
from typing import Annotated

import typer

from mpm_eval.commands.options import Json


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


def schema(
    what: Annotated[
        str, typer.Argument(metavar="result|prediction|task", help="Which format.")
    ] = "result",
) -> None:
    """Print the JSON Schema of a file format.

    Example: mpm-eval schema result
    """
    from mpm_eval.stages.result_schema import json_schema

    typer.echo(json.dumps(json_schema(what), ensure_ascii=False, indent=1))
