"""Train: from a recipe to a checkpoint."""

from pathlib import Path
from typing import Annotated

import typer

from mpm_eval.errors import Interrupted, UserError


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
