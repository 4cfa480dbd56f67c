"""Compare: two runs on the same samples: differences, what they are worth, what flipped."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mpm_eval.errors import UserError
from mpm_eval.metrics import load_metric
from mpm_eval.stages.cells import Cell, Selection, Sides, choose_cells, is_of
from mpm_eval.stages.pairing import (
    PairedCell,
    Side,
    differences_of,
    has_items,
    obstacles_of,
    pair_cell,
    run_sides,
)
from mpm_eval.stages.show import plain

if TYPE_CHECKING:
    from mpm_eval.stats import Difference

BETTER, WORSE = "better", "worse"
NO_DIFFERENCE = "no difference seen"
NOT_TESTED = "not tested"
POWER = 0.8
_MAX_REASONS = 3
_MAX_IDS = 3


@dataclass(frozen=True, slots=True)
class Significance:
    """What a difference is worth; see docs/compare.md."""

    ci95: tuple[float, float] | None
    p_value: float  # two-sided, that the difference is 0
    p_holm: float  # corrected over all tested cells of the comparison
    mde: float | None  # smallest true difference that would be seen 8 times in 10
    method: str  # e.g. ci:…|resamples:10000|seed:0|clusters:500


@dataclass(frozen=True, slots=True)
class Flips:
    """Samples whose own value changed."""

    better: tuple[str, ...] = ()  # ids
    worse: tuple[str, ...] = ()
    p_mcnemar: float | None = None  # None: a sample is not just right or wrong


@dataclass(frozen=True, slots=True)
class Samples:
    """What a cell's two values are values of."""

    num_scored: int  # in both
    num_clusters: int
    num_failed_a: int
    num_failed_b: int
    num_changed_output: int = 0
    num_unknown_input: int = 0  # of the scored ones, those whose inputs could not be compared
    only_a: tuple[str, ...] = ()  # ids; none, unless shared samples were asked for
    only_b: tuple[str, ...] = ()
    changed_input: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ComparedCell:
    """Two values of one cell, on the samples scored in both."""

    cell: Cell
    higher_is_better: bool
    a: float | None
    b: float | None
    difference: float | None  # b - a
    verdict: str  # better, worse, no difference seen, not tested
    reason: str  # why it is not tested; "" where it is
    test: Significance | None
    flips: Flips
    samples: Samples


@dataclass(frozen=True, slots=True)
class Named:
    """One run of a comparison."""

    run: str
    model: str
    model_sha256: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs side by side."""

    a: Named
    b: Named
    common: bool  # shared samples only, whatever else differs
    num_tests: int  # what Holm's correction and the smallest visible difference allow for
    alpha: float
    power: float
    differences: Mapping[str, tuple[str, ...]]  # task -> what besides the model differs
    left_out: tuple[str, ...]  # tasks, languages and metrics that only one run has
    cells: tuple[ComparedCell, ...]


def compare_runs(
    run_a: Path, run_b: Path, selection: Selection | None = None, *, common: bool = False
) -> Comparison:
    """Return the comparison of two run folders, cell by cell.

    Raises UserError when nothing can be compared, for a selection that neither run has, and,
    unless `common`, when a cell's task, data, metric, samples or inputs differ.
    """
    from mpm_eval.stats import ALPHA, holm

    sides_a, sides_b = run_sides(run_a), run_sides(run_b)
    cells, left_out = choose_cells(sides_a, sides_b, selection or Selection())
    pairs = [pair(sides_a, sides_b, cell) for cell in cells]
    if not common:
        _require_the_same(sides_a, sides_b, cells, pairs)
    found = _differences(pairs)
    p_values = [None if one is None else one.p_value for one in found]
    num_tests = sum(p is not None for p in p_values)
    compared = [
        _whole(cell, sides_a[cell.task], sides_b[cell.task])
        if one is None
        else _compared(cell, one, worth, p_holm, num_tests)
        for cell, one, worth, p_holm in zip(cells, pairs, found, holm(p_values), strict=True)
    ]
    tasks = dict.fromkeys(cell.task for cell in cells)
    listed = {task: tuple(differences_of(sides_a[task], sides_b[task])) for task in tasks}
    return Comparison(
        a=_named(run_a, sides_a[cells[0].task]),
        b=_named(run_b, sides_b[cells[0].task]),
        common=common,
        num_tests=num_tests,
        alpha=ALPHA,
        power=POWER,
        differences={task: sentences for task, sentences in listed.items() if sentences},
        left_out=tuple(left_out),
        cells=tuple(compared),
    )


def pair(a: Sides, b: Sides, cell: Cell) -> PairedCell | None:
    """Return the cell's pairs; None for numbers of a whole set, which no single sample has."""
    one, other = a[cell.task], b[cell.task]
    if not all(has_items(side, cell.metric, cell.subset) for side in (one, other)):
        return None
    return pair_cell(one, other, cell.metric, cell.language, cell.subset)


def flips(pairs: PairedCell) -> Flips:
    """Return the ids that are better in b than in a, and those that are worse.

    By the metric of each sample's own statistics; one without a value of its own is neither.
    """
    from mpm_eval.stats import mcnemar

    if not pairs.items:
        return Flips()
    aggregate = load_metric(pairs.metric).aggregate
    change_N = aggregate(pairs.b) - aggregate(pairs.a)
    if not pairs.higher_is_better:
        change_N = -change_N
    better, worse = (
        tuple(pairs.items[i].id for i in side_N.nonzero()[0])
        for side_N in (change_N > 0, change_N < 0)
    )
    p_mcnemar = mcnemar(len(worse), len(better)) if _is_right_or_wrong(pairs) else None
    return Flips(better, worse, p_mcnemar)


def _is_right_or_wrong(pairs: PairedCell) -> bool:
    """Return whether all that an output decides is one 0 or 1: the first statistic."""
    import numpy as np

    first = np.concatenate((pairs.a[:, 0], pairs.b[:, 0]))
    rest = np.array_equal(pairs.a[:, 1:], pairs.b[:, 1:])
    return rest and bool(np.isin(first, (0.0, 1.0)).all())


def _require_the_same(
    a: Sides, b: Sides, cells: Sequence[Cell], pairs: Sequence[PairedCell | None]
) -> None:
    reasons: dict[str, None] = {}
    for cell, one in zip(cells, pairs, strict=True):
        found = obstacles_of(a[cell.task], b[cell.task], cell.metric, cell.language)
        reasons |= dict.fromkeys(f"{cell.task}: {sentence}" for sentence in found)
        if one is not None:
            reasons |= dict.fromkeys(f"{cell}: {sentence}" for sentence in _unlike(one))
    if reasons:
        shown = "; ".join(list(reasons)[:_MAX_REASONS])
        more = f"; and {len(reasons) - _MAX_REASONS} more" if len(reasons) > _MAX_REASONS else ""
        raise UserError(
            f"these runs do not answer the same questions: {shown}{more}; run one of them again, "
            "or compare the shared samples with --common"
        )


def _unlike(cell: PairedCell) -> list[str]:
    parts = (("only in A", cell.only_a), ("only in B", cell.only_b),
             ("with another input", cell.changed_input))  # fmt: skip
    return [
        f"{len(ids)} sample{'s' if len(ids) > 1 else ''} {what} ({first_ids(ids)})"
        for what, ids in parts
        if ids
    ]


def first_ids(ids: Sequence[str], number: int = _MAX_IDS) -> str:
    """Return the first ids for reading: on one line, short, without control characters."""
    shown = ", ".join(plain(id_, 40).plain for id_ in ids[:number])
    return f"{shown}, …" if len(ids) > number else shown


def _differences(pairs: Sequence[PairedCell | None]) -> list["Difference | None"]:
    """Return what each cell's difference is worth; None where there is no item."""
    from mpm_eval.stats import Pair, differences

    with_items = {i: one for i, one in enumerate(pairs) if one is not None and one.items}
    found = differences(
        Pair(one.a, one.b, one.clusters, load_metric(one.metric).aggregate)
        for one in with_items.values()
    )
    by_place = dict(zip(with_items, found, strict=True))
    return [by_place.get(i) for i in range(len(pairs))]


def _compared(
    cell: Cell, pairs: PairedCell, found: "Difference | None", p_holm: float | None, num_tests: int
) -> ComparedCell:
    test = _test(found, p_holm, num_tests) if found and p_holm is not None else None
    reason = ""
    if test is None:
        reason = found.method if found else "no sample is scored in both"
    return ComparedCell(
        cell=cell,
        higher_is_better=pairs.higher_is_better,
        a=found.a if found else None,
        b=found.b if found else None,
        difference=found.value if found else None,
        verdict=_verdict(pairs.higher_is_better, found, test),
        reason=reason,
        test=test,
        flips=flips(pairs),
        samples=Samples(
            num_scored=len(pairs.items),
            num_clusters=len(set(pairs.clusters)),
            num_failed_a=len(pairs.failed_a),
            num_failed_b=len(pairs.failed_b),
            num_changed_output=len(pairs.changed_output),
            num_unknown_input=len(pairs.unknown_input),
            only_a=pairs.only_a,
            only_b=pairs.only_b,
            changed_input=pairs.changed_input,
        ),
    )


def _test(found: "Difference", p_holm: float, num_tests: int) -> Significance:
    from mpm_eval.stats import ALPHA, minimum_detectable

    assert found.p_value is not None
    mde = None
    if found.standard_error:
        alpha = ALPHA / num_tests
        mde = minimum_detectable(found.standard_error, alpha=alpha, power=POWER)
    return Significance(found.ci95, found.p_value, p_holm, mde, found.method)


def _verdict(higher_is_better: bool, found: "Difference | None", test: Significance | None) -> str:
    from mpm_eval.stats import ALPHA

    if found is None or found.value is None or test is None:
        return NOT_TESTED
    if test.p_holm >= ALPHA or found.value == 0:
        return NO_DIFFERENCE
    return BETTER if (found.value > 0) == higher_is_better else WORSE


def _whole(cell: Cell, a: Side, b: Side) -> ComparedCell:
    """Return two values of a whole set and their difference: without items there is no more."""
    scores = [next((s for s in side.result.scores if is_of(s, cell)), None) for side in (a, b)]
    values = [None if score is None else score.value for score in scores]
    known = [score for score in scores if score is not None]
    one, other = values
    return ComparedCell(
        cell=cell,
        higher_is_better=known[0].higher_is_better,
        a=one,
        b=other,
        difference=None if one is None or other is None else other - one,
        verdict=NOT_TESTED,
        reason="no items to pair",
        test=None,
        flips=Flips(),
        samples=Samples(
            num_scored=min(score.n for score in known),
            num_clusters=0,
            num_failed_a=scores[0].n_failed if scores[0] else 0,
            num_failed_b=scores[1].n_failed if scores[1] else 0,
        ),
    )


def _named(run: Path, side: Side) -> Named:
    return Named(str(run), side.result.model.name, side.result.model.sha256)
