"""Correlate: does alignment go with transfer, over languages?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mpm_eval.commands.options import Json, print_json

if TYPE_CHECKING:
    from mpm_eval.stages.hypothesis import Correlation


def correlate(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    x: Annotated[
        str, typer.Option(metavar="TASK:METRIC[:SUBSET]", help="One score of each language.")
    ] = "alignment:retrieval_p1",
    y: Annotated[
        str, typer.Option(metavar="TASK:METRIC[:SUBSET]", help="The other.")
    ] = "emoji_choice:retention",
    as_json: Json = False,
) -> None:
    """Correlate two scores over languages.

    Pearson and Spearman with permutation p-values, without the pivot; at least 4 languages.

    Example: mpm-eval correlate results/runs/mpm-tiny --x alignment:mexa
    """
    from mpm_eval.stages.hypothesis import correlate as find
    from mpm_eval.strict import to_jsonable

    found = find(run_folder, x, y)
    if as_json:
        print_json(to_jsonable(found))
    else:
        _print(found)


def _print(found: "Correlation") -> None:
    from mpm_eval.printing import print_table

    print_table(
        [
            {
                "language": point.language,
                found.x: _value(point.x, point.x_ci95),
                found.y: _value(point.y, point.y_ci95),
                "label": point.label,
            }
            for point in found.points
        ]
    )
    n = len(found.points)
    for name, r, p in (
        ("Pearson", found.pearson, found.pearson_p),
        ("Spearman", found.spearman, found.spearman_p),
    ):
        if r is None or p is None:
            typer.echo(f"{name}: undefined, all values are alike")
        else:
            typer.echo(f"{name} {r:+.2f}, p = {p:.3g} ({n} languages, {found.test})")
    if found.smallest_p > 0.05:
        typer.echo(
            f"{n} languages cannot say much: even a perfect rank correlation has p = "
            f"{found.smallest_p:.2g}"
        )
    for note in found.notes:
        typer.echo(note)
    if found.left_out:
        typer.echo(f"left out, without both values: {', '.join(found.left_out)}")


def _value(value: float, ci95: tuple[float, float] | None) -> str:
    return f"{value:.1f}" + (f" ({ci95[0]:.1f} to {ci95[1]:.1f})" if ci95 else "")
