"""Doctor: whether a model is called right, in plain verdicts."""

from typing import Annotated

import typer

from mpm_eval.commands.options import Json, Languages, languages_of, print_json


def doctor(
    model: Annotated[
        str, typer.Argument(help="Model card, checkpoint folder or backend spec (e.g. echo).")
    ],
    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task",
            metavar="TASK",
            help="Tasks to ask from, of kind choose or generate [transfer_zh, transfer_caption].",
        ),
    ] = None,
    languages: Languages = None,
    samples: Annotated[int, typer.Option(help="Samples per language.", min=2)] = 16,
    as_json: Json = False,
) -> None:
    """Check that a model is called right.

    Batches, padding, order, determinism, picture used, language obeyed. Exit code 1 when a check
    fails.

    Example: mpm-eval doctor mpm-tiny
    """
    from mpm_eval.cards import open_model
    from mpm_eval.printing import print_table
    from mpm_eval.stages.doctor import examine
    from mpm_eval.strict import to_jsonable
    from mpm_eval.tasks import expand

    tasks = expand(task or ["transfer_zh", "transfer_caption"])
    wanted = languages_of(languages, tasks)
    backend = open_model(model)
    if task is None:
        tasks = [found for found in tasks if found.kind in backend.capabilities] or tasks[:1]
    rows = [
        {"task": found.name, **to_jsonable(check)}
        for found in tasks
        for check in examine(backend, found, wanted, samples)
    ]
    if as_json:
        print_json(rows)
    else:
        print_table([{"verdict": r["verdict"], "task": r["task"], "check": r["name"],
                      "what was seen": r["detail"]} for r in rows])  # fmt: skip
    if any(row["verdict"] == "fails" for row in rows):
        raise typer.Exit(1)
