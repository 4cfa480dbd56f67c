"""The rules of a gate: strict TOML that says which scores may drop by how much."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from mpm_eval.errors import UserError, unknown
from mpm_eval.languages import LANGUAGES
from mpm_eval.metrics import METRICS, PAINT_METRICS, PROBE_METRICS, paint_metric
from mpm_eval.resources import shipped
from mpm_eval.schema import LABELS
from mpm_eval.strict import build, read_toml

DIRECTIONS = ("higher", "lower")
_WILD = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class Rule:
    """What is asked of the scores it matches; of several that match, the last one counts, whole.

    `task`, `language` and `metric` are patterns with *, ? and [].
    """

    task: str = "*"
    language: str = "*"
    label: str = "*"  # of the baseline, one of schema.LABELS; "*": any
    metric: str = ""  # "": the main metric of the task
    margin: float | None = None  # allowed drop, on the metric's own scale
    relative_margin: float | None = None  # allowed drop, as a share of the baseline's value
    probe_margin: float | None = None  # allowed drop of a probe's value that has no items
    direction: str = ""  # one of DIRECTIONS: which is better; "": as the metric says
    min_n: int = 30  # clusters (pictures) that must be compared at least
    max_failed: int = 0  # failed samples that are tolerated in a cell
    keep_label: bool = True  # what was zero-shot must stay zero-shot

    def matches(self, task: str, language: str, label: str, metric: str, main_metric: str) -> bool:
        """Return whether the rule is about this score."""
        wanted = self.metric or main_metric
        return (
            fnmatchcase(task, self.task)
            and fnmatchcase(language, self.language)
            and self.label in ("*", label)
            and (metric == wanted if not self.metric else fnmatchcase(metric, wanted))
        )


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What a task may cost; of several that match a task, the last one counts, whole."""

    task: str = "*"
    max_seconds_per_sample: float | None = None
    max_memory_mib: float | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """A file of rules; `rule` and `ceiling` are named as the TOML tables are."""

    rule: tuple[Rule, ...]
    ceiling: tuple[Ceiling, ...] = ()

    def of(self, task: str, language: str, label: str, metric: str, main_metric: str) -> int | None:
        """Return the index of the last rule that matches a score; None without any."""
        found = [
            index
            for index, rule in enumerate(self.rule)
            if rule.matches(task, language, label, metric, main_metric)
        ]
        return found[-1] if found else None

    def ceiling_of(self, task: str) -> int | None:
        """Return the index of the last ceiling that matches a task; None without any."""
        found = [i for i, ceiling in enumerate(self.ceiling) if fnmatchcase(task, ceiling.task)]
        return found[-1] if found else None


def default_rules() -> Path:
    """Return the file of the shipped rules."""
    return shipped("tasks") / "gates" / "default.toml"


def load_rules(path: Path) -> Rules:
    """Return the rules in a file; UserError names the file, the rule and what to write instead."""
    rules = build(Rules, read_toml(path), str(path))
    if not rules.rule:
        raise UserError(f"{path}: no [[rule]]; write at least one")
    for index, rule in enumerate(rules.rule):
        _check_rule(rule, f"{path}: rule[{index}]")
    for index, ceiling in enumerate(rules.ceiling):
        _check_ceiling(ceiling, f"{path}: ceiling[{index}]")
    return rules


def _check_rule(rule: Rule, where: str) -> None:
    _require_known(rule.language, LANGUAGES, f"{where}: language", "language")
    if rule.label != "*" and rule.label not in LABELS:
        raise unknown("label", rule.label, ("*", *LABELS), f"{where}: label")
    if rule.metric and not rule.metric.startswith("mean:") and paint_metric(rule.metric) is None:
        known = (*METRICS, *PROBE_METRICS, *PAINT_METRICS)
        _require_known(rule.metric, known, f"{where}: metric", "metric")
    if rule.direction and rule.direction not in DIRECTIONS:
        raise unknown("direction", rule.direction, DIRECTIONS, f"{where}: direction")
    _check_margins(rule, where)
    if rule.min_n < 1:
        raise UserError(f"{where}: min_n: must be at least 1, got {rule.min_n}")
    if rule.max_failed < 0:
        raise UserError(f"{where}: max_failed: must be at least 0, got {rule.max_failed}")


def _check_margins(rule: Rule, where: str) -> None:
    margins = (rule.margin, rule.relative_margin, rule.probe_margin)
    if all(margin is None for margin in margins):
        raise UserError(f"{where}: no margin; write margin, relative_margin or probe_margin")
    if rule.margin is not None and rule.relative_margin is not None:
        raise UserError(f"{where}: margin and relative_margin are both given; remove one")
    for name in ("margin", "relative_margin"):
        value = getattr(rule, name)
        # "not worse by anything at all" can be shown with no number of samples
        if value is not None and not value > 0:
            raise UserError(f"{where}: {name}: must be above 0, got {value:g}")
    if rule.relative_margin is not None and rule.relative_margin >= 1:
        raise UserError(
            f"{where}: relative_margin: is a share of the baseline's value, below 1; "
            f"got {rule.relative_margin:g}"
        )
    if rule.probe_margin is not None and rule.probe_margin < 0:
        raise UserError(f"{where}: probe_margin: must be at least 0, got {rule.probe_margin:g}")


def _check_ceiling(ceiling: Ceiling, where: str) -> None:
    limits = (ceiling.max_seconds_per_sample, ceiling.max_memory_mib)
    if all(limit is None for limit in limits):
        raise UserError(f"{where}: no limit; write max_seconds_per_sample or max_memory_mib")
    for limit in limits:
        if limit is not None and not 0 < limit < math.inf:
            raise UserError(f"{where}: a limit must be above 0, got {limit:g}")


def _require_known(pattern: str, known: Iterable[str], where: str, what: str) -> None:
    if not _WILD.intersection(pattern) and pattern not in known:
        raise unknown(what, pattern, known, where)
