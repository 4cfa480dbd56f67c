"""Judges: how far the judge of each judged task can be trusted, from judge_quality.json."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mpm_eval.errors import UserError
from mpm_eval.stages.judge import QUALITY
from mpm_eval.stages.report.gather import Gathered
from mpm_eval.strict import read_json


@dataclass(frozen=True, slots=True)
class JudgeHealth:
    """What one judge did in one task of one run; "–" where it was not measured."""

    task: str
    run: str
    judge: str
    counts: tuple[str, ...]  # requests, judged, failed, not asked
    same_after_swap: str  # share of samples with the same verdict in both orders
    same_when_repeated: str  # share of repeated requests with equal scores
    agreement: str  # Spearman's rho with given scores
    failures: tuple[str, ...]  # reason and how often
    problem: str = ""  # why none of it can be read


COUNTS = ("num_requests", "num_judged", "num_failed", "num_not_asked")


def judge_health(gathered: Gathered) -> list[JudgeHealth]:
    """Return the health of every judge that a judged task of the runs had; empty without one."""
    found = []
    for name in gathered.tasks:
        for _, run, side in gathered.of_task(name):
            path = side.folder / QUALITY
            if not path.is_file():
                continue
            try:
                quality = read_json(path)
            except UserError as error:
                quality, problem = {}, str(error)
            else:
                problem = "" if isinstance(quality, dict) else f"{path}: not a table of fields"
                quality = quality if isinstance(quality, dict) else {}
            found.append(_health(name, run.name, quality, problem))
    return found


def _health(task: str, run: str, quality: Mapping[str, Any], problem: str) -> JudgeHealth:
    failures = quality.get("failures")
    reasons = failures if isinstance(failures, dict) else {}
    mode = f", mode {quality['mode']}" if "mode" in quality else ""
    return JudgeHealth(
        task,
        run,
        f"{quality.get('judge', '–')}{mode}",
        tuple(str(quality.get(name, "–")) for name in COUNTS),
        _percent(quality, "order_swap", "same_verdict"),
        _percent(quality, "repeats_of_one_request", "all_equal"),
        _number(quality, "agreement", "spearman"),
        tuple(f"{reason}: {number}" for reason, number in reasons.items()),
        problem,
    )


def _percent(quality: Mapping[str, Any], part: str, name: str) -> str:
    value = _value(quality, part, name)
    return "–" if value is None else f"{100 * value:.0f} %"


def _number(quality: Mapping[str, Any], part: str, name: str) -> str:
    value = _value(quality, part, name)
    return "–" if value is None else f"{value:.2f}".replace("-", "\N{MINUS SIGN}")


def _value(quality: Mapping[str, Any], part: str, name: str) -> float | None:
    inner = quality.get(part)
    value = inner.get(name) if isinstance(inner, dict) else None
    return float(value) if isinstance(value, int | float) else None
