"""The one strict reader: TOML, JSON and JSONL into records, and records into deterministic JSON."""

import dataclasses
import datetime
import hashlib
import json
import math
import os
import tempfile
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mpm_eval.errors import UserError, unknown

T = TypeVar("T")


def read_toml(path: Path | str) -> dict[str, Any]:
    """Return a TOML file's content; UserError names the file and the line of a syntax error.

    Dates, nan and inf are refused: none of them has a place in JSON, which everything becomes.
    """

    def number(text: str) -> float:
        return _finite(text, f"{path}")

    try:
        content = tomllib.loads(read_text(Path(path)), parse_float=number)
    except RecursionError:
        raise UserError(f"{path}: nested too deeply") from None
    except ValueError as error:  # also an integer of thousands of digits
        raise UserError(f"{path}: not valid TOML: {error}") from None
    _refuse_dates(content, str(path))
    return content


def read_json(path: Path | str) -> Any:
    """Return a JSON file's content; NaN and Infinity are refused."""
    return _parse(read_text(Path(path)), str(path))


def read_jsonl(path: Path | str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number from 1, object) for each non-empty line of a JSONL file."""
    # Not splitlines(): it also breaks at U+2028 and friends, which are legal inside JSON strings.
    for number, line in enumerate(read_text(Path(path)).split("\n"), start=1):
        if line.strip():
            value = _parse(line, f"{path}:{number}")
            if not isinstance(value, dict):
                raise UserError(f"{path}:{number}: expected an object {{…}}, got {_kind(value)}")
            yield number, value


def build(cls: type[T], mapping: Mapping[str, Any], where: str) -> T:
    """Return `cls` (a dataclass) from a mapping, checked key by key and type by type.

    Raises UserError for unknown keys (with the nearest known one), missing keys and wrong types.
    """
    if not isinstance(mapping, Mapping):
        raise UserError(f"{where}: expected a table of fields, got {_kind(mapping)}")
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in mapping:
        if key not in fields:
            raise unknown("key", str(key), fields, where)
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    for name, field in fields.items():
        if name in mapping:
            values[name] = _convert(hints[name], mapping[name], f"{where}: {name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UserError(f"{where}: key '{name}' is missing")
    return cls(**values)


def to_jsonable(record: Any) -> Any:
    """Return dataclasses as dicts and tuples as lists, recursively; other values as they are."""
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        return {f.name: to_jsonable(getattr(record, f.name)) for f in dataclasses.fields(record)}
    if isinstance(record, Mapping):
        return {str(key): to_jsonable(value) for key, value in record.items()}
    if isinstance(record, list | tuple):
        return [to_jsonable(value) for value in record]
    return record


def rounded(value: Any) -> Any:
    """Return JSON with 12 significant digits: the last bits of a sum differ between processors."""
    if isinstance(value, float):
        return float(f"{value:.12g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value


def write_json(path: Path, obj: Any) -> None:
    """Write deterministic JSON in one step: a reader sees the old file or the new one, whole."""
    text = json.dumps(
        to_jsonable(obj), sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False
    )
    write_text(path, text + "\n")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text as `write_bytes` does."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically; an OSError (disk full, read-only) becomes a UserError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(0o644)  # mkstemp makes files for the owner alone
            os.replace(temporary, path)  # noqa: PTH105 - the name says what it does
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); what was there is unchanged"
        ) from None


def file_sha256(path: Path | str) -> str:
    """Return the hex SHA-256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical_sha256(obj: Any) -> str:
    """Return the hex SHA-256 of a value's canonical JSON: independent of key order and layout."""
    text = json.dumps(
        to_jsonable(obj), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def read_text(path: Path) -> str:
    """Return a UTF-8 file's text without a byte order mark; UserError when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def _parse(text: str, where: str) -> Any:
    def refuse(constant: str) -> Any:
        raise UserError(f"{where}: {constant} is not valid JSON; leave the value out or write null")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise UserError(f"{where}: key '{twice}' is given twice")
        return result

    def number(digits: str) -> float:
        return _finite(digits, where)

    try:
        value = json.loads(text, parse_constant=refuse, parse_float=number, object_pairs_hook=once)
        if "\\ud" in text or "\\uD" in text:
            # Half of a surrogate pair is legal JSON, but no text: nothing could write it again.
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise UserError(
            f"{where}: not valid JSON: {error.msg} at {line}column {error.colno}"
        ) from None
    except UnicodeEncodeError:
        raise UserError(
            f"{where}: half of a surrogate pair (\\ud800 to \\udfff); write the whole character"
        ) from None
    except ValueError as error:  # an integer of thousands of digits
        raise UserError(f"{where}: not valid JSON: {error}") from None
    except RecursionError:
        raise UserError(f"{where}: nested too deeply") from None
    return value


def _finite(digits: str, where: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise UserError(f"{where}: {digits} is not a finite number; correct it or leave it out")
    return number


def _refuse_dates(value: Any, where: str) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            _refuse_dates(item, f"{where}: {key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _refuse_dates(item, f"{where}[{index}]")
    elif isinstance(value, datetime.date | datetime.time):
        raise UserError(f"{where}: is read as a date; put it in quotes to make it a text")


def _kind(value: Any) -> str:
    names = {bool: "a boolean", int: "an integer", float: "a number", str: "a string"}
    if value is None:
        return "null"
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, list | tuple):
        return "a list"
    return names.get(type(value), type(value).__name__)


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        kinds = [a for a in args if a is not type(None)]
        several = len(kinds) > 1 and all(dataclasses.is_dataclass(kind) for kind in kinds)
        return _convert(_of_kind(kinds, value, where) if several else kinds[0], value, where)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return build(hint, value, where)
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise UserError(f"{where}: expected a table, got {_kind(value)}")
        return {str(k): _convert(args[1], v, f"{where}.{k}") for k, v in value.items()}
    if origin is not None and isinstance(origin, type) and issubclass(origin, Sequence):
        return _convert_sequence(args, value, where)
    return _scalar(hint, value, where)


def _of_kind(classes: Sequence[Any], value: Any, where: str) -> Any:
    """Return the dataclass whose field `kind` has the table's kind as default; the first is the
    one for a table that names none."""
    if not isinstance(value, Mapping):
        raise UserError(f"{where}: expected a table of fields, got {_kind(value)}")
    by_kind = {cls.__dataclass_fields__["kind"].default: cls for cls in classes}
    wanted = value.get("kind", next(iter(by_kind)))
    if not isinstance(wanted, str) or wanted not in by_kind:
        raise unknown("kind", str(wanted), by_kind, where)
    return by_kind[wanted]


def _convert_sequence(args: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise UserError(f"{where}: expected a list, got {_kind(value)}")
    fixed = len(args) > 0 and args[-1] is not Ellipsis and len(args) > 1
    if fixed and len(args) != len(value):
        raise UserError(f"{where}: expected {len(args)} values, got {len(value)}")
    hints = args if fixed else (args[0],) * len(value)
    return tuple(
        _convert(hint, item, f"{where}[{index}]")
        for index, (hint, item) in enumerate(zip(hints, value, strict=True))
    )


def _scalar(hint: Any, value: Any, where: str) -> Any:
    wanted = {bool: "true or false", int: "an integer", float: "a number", str: "a string"}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    # bool is an int in Python, but `limit = true` is a mistake.
    if hint in wanted and (type(value) is hint):
        return value
    raise UserError(f"{where}: expected {wanted.get(hint, hint)}, got {_kind(value)}")
