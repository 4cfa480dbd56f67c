"""Compare: two runs on the same samples."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mpm_eval.commands.options import Json, Languages, languages_of, print_json

if TYPE_CHECKING:
    from mpm_eval.stages.compare import ComparedCell, Comparison
    from mpm_eval.stages.explain import Explanation, Stage

_MAX_SENTENCES = 10
_TABLE_WIDTH = 44  # of a value in a table of stages
_TEXT_WIDTH = 2000
_BEFORE = 20  # characters shown before the first that differs


Metric = Annotated[str | None, typer.Option(help="Metric [each task's main one].")]
Subset = Annotated[
    str | None,
    typer.Option(help="Subset, e.g. category=detail, or all [each task's main one]."),
]
Common = Annotated[
    bool, typer.Option("--common", help="Compare the shared samples, whatever else differs.")
]
Explain = Annotated[
    str | None,
    typer.Option(
        metavar="ID",
        help="Say where the runs part for a sample; better, worse: for the first such one.",
    ),
]


def compare(
    run_a: Annotated[Path, typer.Argument(metavar="A", help="The run folder to compare with.")],
    run_b: Annotated[Path, typer.Argument(metavar="B", help="The run folder that is compared.")],
    task: Annotated[
        list[str] | None,
        typer.Option(metavar="TASK", help="Task of both runs [all]; may be repeated."),
    ] = None,
    languages: Languages = None,
    metric: Metric = None,
    subset: Subset = None,
    common: Common = False,
    explain: Explain = None,
    as_json: Json = False,
) -> None:
    """Compare two runs sample by sample.

    Differences B - A with intervals, corrected p-values, flipped samples, smallest visible effect.

    Example: mpm-eval compare results/runs/tiny-seed1 results/runs/tiny-seed2 --explain worse
    """
    from mpm_eval.stages.cells import Selection
    from mpm_eval.strict import to_jsonable

    selection = Selection(
        tasks=tuple(task) if task else None,
        languages=languages_of(languages),
        metric=metric,
        subset="" if subset == "all" else subset,
    )
    if explain is not None:
        from mpm_eval.stages.explain import explain_runs

        explanations = explain_runs(run_a, run_b, explain, selection)
        if as_json:
            print_json(to_jsonable(explanations))
        else:
            _print_explanations(explanations)
        return
    from mpm_eval.stages.compare import compare_runs

    comparison = compare_runs(run_a, run_b, selection, common=common)
    if as_json:
        print_json(to_jsonable(comparison))
    else:
        _print_comparison(comparison)


def _print_comparison(comparison: "Comparison") -> None:
    from mpm_eval.printing import print_table

    by_task: dict[tuple[str, str, str], list[ComparedCell]] = {}
    for one in comparison.cells:
        by_task.setdefault((one.cell.task, one.cell.metric, one.cell.subset), []).append(one)
    for (task, metric, subset), cells in by_task.items():
        shared = ", shared samples only" if comparison.common else ""
        _say(f"{task}: {metric}{f', {subset}' if subset else ''}{shared}")
        digits = _digits(cells)
        print_table([_row(one, digits, comparison.common) for one in cells])
        for line in _flipped(cells):
            _say(line)
        typer.echo()
    for line in _summary(comparison):
        _say(line)


def _row(one: "ComparedCell", digits: int, common: bool) -> dict[str, Any]:
    def number(value: float | None, sign: str = "") -> str:
        return "-" if value is None else f"{value:{sign}.{digits}f}"

    test, samples, flips = one.test, one.samples, one.flips
    ends = test.ci95 if test else None
    row: dict[str, Any] = {
        "language": _plain(one.cell.language),
        "A": number(one.a),
        "B": number(one.b),
        "B - A": number(one.difference, "+"),
        "95 % interval": f"{number(ends[0], '+')} to {number(ends[1], '+')}" if ends else "-",
        "p (Holm)": _p(test.p_holm if test else None),
        "verdict": f"{one.verdict}: {one.reason}" if one.reason else one.verdict,
        "MDE": number(test.mde if test else None),
        "better": len(flips.better),
        "worse": len(flips.worse),
        "McNemar": _p(flips.p_mcnemar),
        "n": samples.num_scored,
        "changed": samples.num_changed_output,
        "failed A": samples.num_failed_a,
        "failed B": samples.num_failed_b,
    }
    if common:
        row |= {
            "only A": len(samples.only_a),
            "only B": len(samples.only_b),
            "other input": len(samples.changed_input),
        }
    return row


def _digits(cells: Sequence["ComparedCell"]) -> int:
    largest = max((abs(v) for one in cells for v in (one.a, one.b) if v is not None), default=0)
    return 2 if largest > 10 else 3 if largest > 1 else 4


def _p(value: float | None) -> str:
    if value is None:
        return "-"
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _flipped(cells: Sequence["ComparedCell"]) -> Iterator[str]:
    from mpm_eval.stages.compare import first_ids

    for one in cells:
        parts = [
            f"{len(ids)} {kind} ({first_ids(ids)})"
            for kind, ids in (("better", one.flips.better), ("worse", one.flips.worse))
            if ids
        ]
        if parts:
            yield f"{one.cell.language}: {', '.join(parts)}"


def _summary(comparison: "Comparison") -> Iterator[str]:
    a, b = comparison.a, comparison.b
    counts = Counter(one.verdict for one in comparison.cells)
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    yield f"A is {a.model} ({a.run}), B is {b.model} ({b.run}): {verdicts}."
    if any(one.test and one.test.mde for one in comparison.cells):
        yield (
            f"p is corrected for {comparison.num_tests} tests; a true difference smaller than MDE "
            f"would be seen in fewer than {comparison.power:.0%} of such comparisons "
            f"(alpha {comparison.alpha:g} / {comparison.num_tests})."
        )
    unknown = sum(one.samples.num_unknown_input for one in comparison.cells)
    if unknown:
        yield f"Inputs of {unknown} samples were not recorded and could not be compared."
    sentences = [
        f"{task}: {sentence}"
        for task, found in comparison.differences.items()
        for sentence in found
    ]
    sentences += [f"not compared: {reason}" for reason in comparison.left_out]
    yield from sentences[:_MAX_SENTENCES]
    if len(sentences) > _MAX_SENTENCES:
        yield f"and {len(sentences) - _MAX_SENTENCES} more; --json lists them all"


def _print_explanations(explanations: Sequence["Explanation"]) -> None:
    from mpm_eval.printing import print_table

    for one in explanations:
        where = f"the runs part at: {one.first}" if one.first else "the runs agree in every stage"
        _say(f"{one.task}, {one.id}, {one.language}: {where}")
        print_table([_stage_row(stage) for stage in one.stages])
        for stage in one.stages:
            if stage.name == one.first:
                a, b = _windows(stage.a, stage.b, _TEXT_WIDTH)
                typer.echo(f"A: {a}\nB: {b}")
        typer.echo()


def _stage_row(stage: "Stage") -> dict[str, str]:
    marks = {True: "same", False: "differs", None: "not compared"}
    a, b = _windows(stage.a, stage.b, _TABLE_WIDTH)
    return {
        "stage": stage.name,
        "": marks[stage.same],
        "A": a,
        "B": "" if stage.same else b,
    }


def _windows(a: str, b: str, width: int) -> tuple[str, str]:
    """Return two texts to show, from a little before they part where they are too long."""
    a, b = _plain(a), _plain(b)
    start = 0
    if max(len(a), len(b)) > width:
        shared = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), 0)
        start = max(0, shared - _BEFORE)
    a, b = (f"…{text[start:]}" if start else text for text in (a, b))
    return _plain(a, width), _plain(b, width)


def _plain(text: str, width: int | None = None) -> str:
    from mpm_eval.stages.show import plain

    return plain(text, width).plain


def _say(text: str, width: int | None = None) -> None:
    typer.echo(_plain(text, width))
