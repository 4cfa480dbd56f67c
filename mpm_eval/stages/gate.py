"""The gate: is a candidate worse than a baseline by more than the rules allow?

Each score is compared sample by sample. A drop is a regression when it is significant (one-sided,
Holm over all selected scores) and not shown to be smaller than the margin; a score passes when its
lower bound is above the margin. Everything else cannot be decided, and is never green.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mpm_eval.errors import UserError
from mpm_eval.metrics import load_metric
from mpm_eval.schema import Score
from mpm_eval.stages.cells import metrics_of
from mpm_eval.stages.gate_changes import (
    ALPHA,
    Change,
    clusters_needed,
    detectable,
    reach,
    worst_drop,
)
from mpm_eval.stages.gate_costs import cost_verdicts
from mpm_eval.stages.gate_rules import Rule, Rules
from mpm_eval.stages.gate_verdicts import Report, Verdict
from mpm_eval.stages.pairing import (
    PairedCell,
    Side,
    differences_of,
    is_whole,
    main_subset,
    obstacles_of,
    pair_cell,
)


@dataclass(frozen=True, slots=True)
class _Selected:
    """A score that a rule selects, from both sides."""

    a: Side
    b: Side | None  # None: the candidate does not have the task
    metric: str
    language: str
    rule: Rule

    def verdict(self, status: str, reason: str) -> Verdict:
        task = self.a.result.task
        row_a, row_b = _row(self.a, self), _row(self.b, self)
        value_a = row_a.value if row_a else None
        value_b = row_b.value if row_b else None
        margin = self.rule.probe_margin if self.is_whole else _margin(self.rule, value_a)
        return Verdict(
            task=task.name,
            metric=self.metric,
            language=self.language,
            label=self.label,
            status=status,
            reason=reason,
            baseline=value_a,
            candidate=value_b,
            margin=margin,
            n=row_b.n if row_b else 0,
        )

    @property
    def label(self) -> str:
        return _label(self.a, self.language)

    @property
    def is_whole(self) -> bool:
        """Return whether a side has no per-sample statistics, as some probes and distances."""
        subset = main_subset(self.a.result, self.metric)
        sides = (self.a, self.b)
        return any(side is not None and is_whole(side, self.metric, subset) for side in sides)


def gate(
    baseline: Mapping[str, Side],
    candidate: Mapping[str, Side],
    rules: Rules,
    *,
    names: tuple[str, str] = ("baseline", "candidate"),
    run: Path | None = None,
    seed: int = 0,
) -> Report:
    """Return the verdict on every score that the rules select; `run` is the candidate's folder.

    The same sides, rules and bootstrap seed give the same report. Raises UserError when the rules
    select nothing at all.
    """
    selected, used = _select(baseline, candidate, rules)
    ceilings = {task: rules.ceiling_of(task) for task in baseline}
    if not selected and all(index is None for index in ceilings.values()):
        raise UserError(
            f"the rules select no score of {names[0]} (tasks: {', '.join(baseline) or 'none'}); "
            "write a [[rule]] that matches one"
        )
    verdicts = _decide([_examine(item) for item in selected], seed)
    for task, index in ceilings.items():
        if index is not None:
            verdicts += cost_verdicts(task, rules.ceiling[index], run)
    warnings = _warnings(baseline, candidate, rules, used)
    return Report(*names, tuple(verdicts), tuple(warnings), len(selected), ALPHA, seed)


def _select(
    baseline: Mapping[str, Side], candidate: Mapping[str, Side], rules: Rules
) -> tuple[list[_Selected], set[int]]:
    """Return the scores of the baseline that a rule selects, and the indices of those rules."""
    selected, used = [], set()
    for task, side in sorted(baseline.items()):
        for metric, language in _scores(side):
            index = rules.of(
                task, language, _label(side, language), metric, side.result.task.main_metric
            )
            if index is not None:
                used.add(index)
                selected.append(
                    _Selected(side, candidate.get(task), metric, language, rules.rule[index])
                )
    return selected, used


def _scores(side: Side) -> Iterator[tuple[str, str]]:
    """Yield (metric, language) of everything measured, but for what the baseline says it skipped.

    Derived rows (retention, transfer gap) follow from these and are no scores of their own.
    """
    result = side.result
    if result.task.kind == "probe":  # it has no score of the pivot with itself
        subset = result.task.main_subset
        yield from ((s.metric, s.language) for s in result.scores if s.subset == subset)
        return
    skipped = {(item.metric, item.language) for item in result.skipped}
    for metric in sorted(metrics_of(side)):
        for language in result.languages:
            if (metric, language) not in skipped:
                yield metric, language


def _examine(item: _Selected) -> "Verdict | tuple[_Selected, PairedCell]":
    """Return the verdict where no statistics are needed, else the pairs that are to be compared."""
    a, b = item.a, item.b
    if b is None:
        return item.verdict("undecided", "the candidate does not have the task; run it")
    if item.language not in b.result.languages:
        return item.verdict("undecided", "the candidate does not have the language; run it")
    if item.rule.keep_label and item.label == "zero-shot":
        label = _label(b, item.language)
        if label != "zero-shot":
            return item.verdict("regression", f"no longer zero-shot: {label}")
    if different := _not_comparable(item, a, b):
        return item.verdict("undecided", different)
    if item.is_whole:
        return _whole_verdict(item)
    cell = pair_cell(a, b, item.metric, item.language, main_subset(a.result, item.metric))
    return _cell_verdict(item, cell) or (item, cell)


def _not_comparable(item: _Selected, a: Side, b: Side) -> str:
    """Return what makes two sides numbers of different things; "" where nothing does."""
    found = obstacles_of(a, b, item.metric, item.language)
    x, y = a.result, b.result
    for what, one, other in (("limit", x.limit, y.limit), ("control", x.control, y.control)):
        if one != other:
            found.append(f"different {what}: {one or 'none'} and {other or 'none'}")
    if found:
        return f"{'; '.join(found)}; run both on the same, or save the baseline again"
    for who, side in (("baseline", a), ("candidate", b)):
        row = _row(side, item)
        if row is None or row.value is None:
            return f"the {who} has no value"
    return ""


def _cell_verdict(item: _Selected, cell: PairedCell) -> Verdict | None:
    """Return the verdict on items that cannot be compared or need not be; None for the rest."""
    rule = item.rule
    for who, failed in (("candidate", cell.failed_b), ("baseline", cell.failed_a)):
        if len(failed) > rule.max_failed:
            return item.verdict(
                "undecided",
                f"{len(failed)} samples of the {who} failed, max_failed is {rule.max_failed}",
            )
    for reason, ids in (
        ("samples are only in the baseline", cell.only_a),
        ("samples are only in the candidate", cell.only_b),
        ("samples have another prompt, other options or another picture", cell.changed_input),
    ):
        if ids:
            return item.verdict("undecided", f"items differ: {len(ids)} {reason}, e.g. {ids[0]!r}")
    num_clusters = len(set(cell.clusters))
    if num_clusters < rule.min_n:
        return item.verdict(
            "undecided", f"{num_clusters} clusters to compare, min_n is {rule.min_n}"
        )
    if _identical(cell):
        found = item.verdict("passed", "outputs identical")
        return replace(found, change=0.0, n=len(cell.items), num_clusters=num_clusters)
    return None


def _identical(cell: PairedCell) -> bool:
    """Return whether every output is known to be the same, and counts the same.

    A probe's items have no outputs, and a judge can score the same output in another way.
    """
    import numpy as np

    known = all(item.output_sha256 for item in cell.items)
    changed = cell.changed_output or cell.failed_a or cell.failed_b
    return known and not changed and np.array_equal(cell.a, cell.b)


def _whole_verdict(item: _Selected) -> Verdict:
    """Return the verdict on a value that has no per-sample statistics: its drop as it is."""
    margin = item.rule.probe_margin
    found = item.verdict("passed", "")
    if margin is None:
        return replace(
            found,
            status="undecided",
            reason="the score has no per-sample statistics; give the rule a probe_margin",
        )
    row = _row(item.a, item)
    assert row is not None and found.baseline is not None and found.candidate is not None
    sign = 1.0 if _better(item.rule, row.higher_is_better) else -1.0
    change = sign * (found.candidate - found.baseline)
    passed = change >= -margin
    reason = "value within probe_margin" if passed else "value beyond probe_margin"
    return replace(
        found,
        status="passed" if passed else "regression",
        reason=f"{reason}, compared without an interval",
        change=change,
    )


def _decide(
    examined: "Sequence[Verdict | tuple[_Selected, PairedCell]]", seed: int
) -> list[Verdict]:
    """Return all verdicts, in order; those with statistics share their resamples."""
    from mpm_eval.stats import Pair, differences, holm

    open_ = [found for found in examined if not isinstance(found, Verdict)]
    pairs = [
        Pair(cell.a, cell.b, cell.clusters, load_metric(cell.metric).aggregate) for _, cell in open_
    ]
    found = differences(pairs, seed=seed)
    changes = [
        Change.of(difference, _better(item.rule, cell.higher_is_better), worst_drop(cell))
        for difference, (item, cell) in zip(found, open_, strict=True)
    ]
    # scores decided without a test, or that could not be tested, count as members of the family
    untested = len(examined) - len(open_)
    p_values = [1.0 if change.p_value is None else change.p_value for change in changes]
    adjusted = holm([*p_values, *[1.0] * untested])
    judged = iter(
        _judge(item, cell, change, 1.0 if p_value is None else p_value, len(examined))
        for (item, cell), change, p_value in zip(open_, changes, adjusted, strict=False)
    )
    return [one if isinstance(one, Verdict) else next(judged) for one in examined]


def _judge(
    item: _Selected, cell: PairedCell, change: Change, p_value: float, num_cells: int
) -> Verdict:
    """Return the verdict on a score whose items were compared."""
    margin = _margin(item.rule, change.a)
    verdict = replace(
        item.verdict("undecided", ""),
        baseline=change.a,
        candidate=change.b,
        change=change.value,
        lower=change.lower,
        margin=margin,
        detectable=detectable(change.error, margin, num_cells),
        p_value=p_value,
        n=len(cell.items),
        num_clusters=change.num_clusters,
    )
    if change.lower is None or change.value is None:
        return replace(verdict, reason=f"no bound ({change.method.partition('|')[0]})")
    if margin is None:
        return replace(
            verdict, reason="the rule has no margin for scores with per-sample statistics"
        )
    if margin <= 0:
        reason = "a share of a baseline of 0 allows nothing; give the rule a margin"
        return replace(verdict, reason=reason)
    if 2 * margin >= (largest := reach(cell)):
        reason = f"a margin of {margin:g} is too much where no drop can exceed {largest:g}; "
        return replace(verdict, reason=f"{reason}give the rule a smaller or a relative_margin")
    bound = f"lower 95 % bound {change.lower:+.1f}, margin {margin:g}"
    if change.lower > -margin:
        return replace(verdict, status="passed", reason=bound)
    if p_value < ALPHA:
        reason = f"a drop of {-change.value:.1f} (p {p_value:.2g}, Holm over {num_cells}); {bound}"
        return replace(verdict, status="regression", reason=reason)
    finds = "" if verdict.detectable is None else f"finds drops from {verdict.detectable:.1f}; "
    needed, has = clusters_needed(change, margin, worst_drop(cell)), change.num_clusters
    more = f"needs about {needed} clusters for this margin, has {has}"
    near = "the drop is too near the margin"
    return replace(verdict, reason=f"{bound}; {finds}{more if needed > has else near}")


def _row(side: Side | None, item: _Selected) -> Score | None:
    """Return the row of a score in the task's main subset."""
    if side is None:
        return None
    subset = main_subset(item.a.result, item.metric)
    for score in side.result.scores:
        if (score.metric, score.language, score.subset) == (item.metric, item.language, subset):
            return score
    return None


def _label(side: Side, language: str) -> str:
    found = side.result.zero_shot.get(language)
    return found.label if found else "unknown"


def _margin(rule: Rule, baseline: float | None) -> float | None:
    if rule.relative_margin is not None:
        return None if baseline is None else rule.relative_margin * abs(baseline)
    return rule.margin


def _better(rule: Rule, higher_is_better: bool) -> bool:
    """Return whether higher is better: the rule's word, else the metric's."""
    return rule.direction == "higher" if rule.direction else higher_is_better


def _warnings(
    baseline: Mapping[str, Side],
    candidate: Mapping[str, Side],
    rules: Rules,
    used: set[int],
) -> Iterator[str]:
    """Yield what a green gate does not say: unused rules, what was left out, what else differs."""
    for index in range(len(rules.rule)):
        if index not in used:
            yield f"rule[{index}] is the rule of no score; correct or remove it"
    ceilings = {rules.ceiling_of(task) for task in baseline}
    for index in range(len(rules.ceiling)):
        if index not in ceilings:
            yield f"ceiling[{index}] is the ceiling of no task; correct or remove it"
    for task, side in sorted(baseline.items()):
        for skipped in side.result.skipped:
            yield f"{task}: {skipped.metric} ({skipped.language}) is not gated: {skipped.reason}"
        if task in candidate:
            yield from (f"{task}: {text}" for text in differences_of(side, candidate[task]))
    for task in sorted(set(candidate) - set(baseline)):
        yield f"{task}: not in the baseline, not gated"
