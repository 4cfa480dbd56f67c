"""What a candidate's run may cost: time and memory against the ceilings of the rules."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpm_eval.errors import UserError
from mpm_eval.stages.gate_rules import Ceiling
from mpm_eval.stages.gate_verdicts import Verdict
from mpm_eval.strict import build, read_json

_FILE = "environment.json"


@dataclass(frozen=True, slots=True)
class _Session:
    """What costs are computed from, of one process that answered."""

    num_new: int
    duration_s: float
    peak_memory_mib: float | None = None  # absent from the files of earlier versions


def cost_verdicts(task: str, ceiling: Ceiling, run: Path | None) -> list[Verdict]:
    """Return a verdict per ceiling; undecided where environment.json does not have the number.

    Time is that of all sessions over all samples; memory is the highest peak.
    """
    sessions = _sessions(run / task / _FILE) if run is not None else []
    num_new = sum(session.num_new for session in sessions)
    seconds = sum(session.duration_s for session in sessions) / num_new if num_new else None
    peaks = [session.peak_memory_mib for session in sessions]
    known = [peak for peak in peaks if peak is not None]
    memory = max(known) if known and len(known) == len(peaks) else None
    verdicts = []
    for name, value, limit in (
        ("seconds_per_sample", seconds, ceiling.max_seconds_per_sample),
        ("peak_memory_mib", memory, ceiling.max_memory_mib),
    ):
        if limit is not None:
            verdicts.append(_verdict(task, name, value, limit, num_new))
    return verdicts


def _verdict(task: str, name: str, value: float | None, limit: float, n: int) -> Verdict:
    if value is None:
        status, reason = "undecided", f"{_FILE} of the candidate has no {name}; run the task anew"
    elif value > limit:
        status, reason = "regression", f"{value:.4g} is above the ceiling of {limit:g}"
    else:
        status, reason = "passed", f"{value:.4g} is within the ceiling of {limit:g}"
    return Verdict(task, name, "", status, reason, candidate=value, n=n)


def _sessions(path: Path) -> Sequence[_Session]:
    if not path.is_file():
        return []
    content: Any = read_json(path)
    found = content.get("sessions", []) if isinstance(content, dict) else None
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise UserError(f"{path}: sessions: expected a list of tables; delete the file")
    keys = ("num_new", "duration_s", "peak_memory_mib")
    return [
        build(_Session, {k: item[k] for k in keys if k in item}, f"{path}: sessions[{index}]")
        for index, item in enumerate(found)
    ]
