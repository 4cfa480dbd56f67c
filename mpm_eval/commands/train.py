"""Train: from a recipe to a checkpoint."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mpm_eval.errors import Interrupted, UserError

if TYPE_CHECKING:
    from training.interface import Plan


def train(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A shipped recipe's name or a path to a .toml.")
    ],
    out: Annotated[Path | None, typer.Option(help="Checkpoint folder.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="One setting, e.g. pretrain.steps=100; repeatable."
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print parameters, memory, steps and data; no training."),
    ] = False,
) -> None:
    """Train a model from a recipe.

    The recipe's stages in order: align, spell, pretrain, instruct. After any stop the same command
    continues. On several devices: accelerate launch -m mpm_eval train RECIPE.

    Example: mpm-eval train tiny --out checkpoints/tiny --set seed=1
    """
    from mpm_eval.progress import TrainProgress

    try:
        from training import interface
    except ImportError as error:
        raise UserError(f"train: {error}; pip install 'mpm-eval[train]'") from None
    if dry_run:
        _print(interface.plan(recipe, overrides or ()))
        return
    try:
        with TrainProgress() as progress:
            folder = interface.train(recipe, out, overrides or (), progress)
    except KeyboardInterrupt:
        raise Interrupted("stopped; the same command continues") from None
    typer.echo(str(folder))


def _print(plan: "Plan") -> None:
    from mpm_eval.printing import print_table

    print_table([{"part": part, "parameters": _million(n)} for part, n in plan.parameters.items()])
    print_table(
        [
            {
                "stage": stage.name,
                "steps": f"{stage.steps:,}",
                "batch": str(stage.batch_size),
                "trained": ", ".join(f"{part} {_million(n)}" for part, n in stage.trained.items()),
                "frozen": _million(stage.frozen),
                "memory (estimate)": f"{stage.memory_bytes / 2**30:.1f} GiB",
            }
            for stage in plan.stages
        ]
    )
    print_table(
        [
            {"stage": stage.name, "distinct samples": kind, "by language": _counts(counts)}
            for stage in plan.stages
            for kind, counts in (
                ("picture and text", stage.multimodal_samples),
                ("text", stage.text_samples),
            )
            if counts is None or counts
        ]
    )


def _million(count: int) -> str:
    return f"{count / 1e6:,.2f} M"


def _counts(counts: Mapping[str, int] | None) -> str:
    if counts is None:
        return "streamed"
    return ", ".join(f"{language} {n:,}" for language, n in counts.items())
