"""Imported: what every other program's sample log becomes, and reading it without trust."""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mpm_eval.errors import UserError
from mpm_eval.strict import read_text


@dataclass(frozen=True, slots=True)
class Record:
    """One sample as another program logged it, with the number each metric gave it."""

    id: str
    prompt: str
    output: str
    references: tuple[str, ...]
    # metric -> value on the program's own scale; None: the program could not score it
    values: Mapping[str, float | None]
    cluster: str
    input_sha256: str
    error: str = ""  # why the sample failed: it is counted, its values are not used
    category: str = ""
    cell: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """A program's own value of a metric beside the same computed from its samples."""

    theirs: float
    ours: float

    @property
    def agrees(self) -> bool:
        return math.isclose(self.theirs, self.ours, rel_tol=1e-6, abs_tol=1e-9)


@dataclass(frozen=True, slots=True)
class Log:
    """One task of another program in one language."""

    program: str  # lm-eval, lmms-eval, vlmevalkit, inspect
    path: Path
    task: str  # its name in that program; "" where the log does not say
    kind: str  # generate or choose
    metrics: tuple[str, ...]  # in the order of the log
    records: tuple[Record, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)  # metric -> why it cannot be read
    program_version: str = ""
    task_version: str = ""
    model: str = ""  # as that program calls it
    settings: Mapping[str, Any] = field(default_factory=dict)  # what else makes the task what it is
    decoding: Mapping[str, Any] = field(default_factory=dict)
    limit: int | None = None  # samples of a run that left samples out on purpose
    lower_is_better: frozenset[str] = frozenset()
    checks: Mapping[str, Check] = field(default_factory=dict)
    checked_with: str = ""  # where the program's own values are from; "" where there are none


def parse_json(text: str, where: str) -> Any:
    """Return the value of a JSON text; UserError for anything else.

    NaN and Infinity, which other programs write, become floats: see `number`.
    """
    try:
        value = json.loads(text)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError as error:
        end = "; the file is cut off" if not text[error.pos :].strip() else ""
        raise UserError(
            f"{where}: not valid JSON: {error.msg} at line {error.lineno}, "
            f"column {error.colno}{end}"
        ) from None
    except UnicodeEncodeError:
        raise UserError(f"{where}: half of a surrogate pair (\\ud800 to \\udfff)") from None
    except ValueError as error:  # an integer of thousands of digits
        raise UserError(f"{where}: not valid JSON: {error}") from None
    except RecursionError:
        raise UserError(f"{where}: nested too deeply") from None
    return value


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file."""
    return as_object(parse_json(read_text(path), str(path)), str(path))


def read_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (where, object) for each non-empty line of a JSONL file."""
    # not splitlines(): it also breaks at U+2028 and friends, which are legal inside JSON strings
    for index, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            where = f"{path}:{index}"
            yield where, as_object(parse_json(line, where), where)


def as_object(value: Any, where: str) -> dict[str, Any]:
    """Return a JSON object; UserError for another value."""
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected an object {{…}}, got {type(value).__name__}")
    return value


def required(content: Mapping[str, Any], key: str, where: str, program: str) -> Any:
    """Return a field that the format always has; UserError where it is missing."""
    if key not in content:
        raise UserError(f"{where}: no field '{key}'; is this a sample log of {program}?")
    return content[key]


def number(value: Any, where: str, name: str) -> float | None:
    """Return a metric's value: a boolean as 0 or 1, null as None; raises TypeError for no number.

    Raises UserError for NaN and infinity: a mean over them says nothing.
    """
    if value is None:
        return None
    if not isinstance(value, bool | int | float):
        raise TypeError(type(value).__name__)
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if not math.isfinite(result):
        what = value if isinstance(value, float) else "too large"
        raise UserError(
            f"{where}: {name} is {what}, which cannot be averaged; mend the sample, or leave the "
            "metric out"
        )
    return result


def as_text(value: Any) -> str:
    """Return a string as it is and any other JSON value as compact JSON; lists of one unwrapped."""
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False, sort_keys=True)


def digest(*parts: str) -> str:
    """Return the hex SHA-256 that names a sample's input."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def mean_of(records: Iterable[Record], metric: str) -> float | None:
    """Return the mean of a metric over every record that has a number, failed ones too."""
    found = [v for r in records if (v := r.values.get(metric)) is not None]
    return math.fsum(found) / len(found) if found else None


def version_number(text: Any) -> int:
    """Return the whole number of a task's version, 1 where it is none."""
    try:
        return max(int(float(str(text))), 0)
    except (ValueError, OverflowError):
        return 1


def named(paths: Sequence[Path], pattern: str, program: str) -> list[Path]:
    """Return the files, and those of `pattern` in each folder; UserError where there are none."""
    found: list[Path] = []
    for path in paths:
        inside = sorted(path.glob(pattern)) if path.is_dir() else [path]
        if not inside:
            raise UserError(f"{path}: no sample log of {program} in it ({pattern})")
        found += inside
    for path in found:
        if not path.is_file():
            raise UserError(f"{path}: no such file")
    return list(dict.fromkeys(found))
