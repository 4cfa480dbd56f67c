"""The result file: its records, its published JSON Schemas, and the loader for every version."""

import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from mpm_eval.errors import UserError, unknown
from mpm_eval.schema import KINDS, LABELS, RESULT_SCHEMA_VERSION, OptionScore, Score, Task
from mpm_eval.strict import build, read_json


@dataclass(frozen=True, slots=True)
class TaskIdentity:
    """The task of a result: what its numbers are numbers of."""

    name: str
    version: int
    sha256: str
    kind: str  # one of schema.KINDS
    main_metric: str
    main_subset: str
    pivot: str
    description: str = ""


@dataclass(frozen=True, slots=True)
class DataIdentity:
    """The data of a result."""

    sha256: str
    description: Mapping[str, Any]  # revision, licence


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """The model of a result."""

    name: str
    sha256: str
    spec: str
    identity: Mapping[str, Any]  # revision, device, dtype, card hash


@dataclass(frozen=True, slots=True)
class ZeroShot:
    """A zero-shot label and the counts behind it."""

    label: str  # one of schema.LABELS
    evidence: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """A metric that was asked for and not computed for a language."""

    metric: str
    language: str
    reason: str


@dataclass(frozen=True, slots=True)
class Note:
    """A number that helps to read one score: name says which, e.g. n_unpaired."""

    metric: str
    language: str
    subset: str
    name: str
    value: float | int | None


@dataclass(frozen=True, slots=True)
class Result:
    """result.json: every score of one model on one task, with everything that made it."""

    schema_version: int
    task: TaskIdentity
    model: ModelIdentity
    data: DataIdentity
    decoding: Mapping[str, Any]
    seed: int
    limit: int | None  # samples per language; None: all of them
    languages: tuple[str, ...]
    num_samples: int  # over all languages, failed ones included
    num_failed: int
    predictions_sha256: str  # of the sorted predictions: the order of a resumed run is no matter
    versions: Mapping[str, str]
    zero_shot: Mapping[str, ZeroShot]  # language -> label and evidence
    scores: tuple[Score, ...]
    skipped: tuple[Skipped, ...]
    notes: tuple[Note, ...] = ()
    control: str = ""  # what was done to the data on purpose; "" for a plain run
    judging: Mapping[str, Any] = field(default_factory=dict)  # judge, mode, hash of its scores


@dataclass(frozen=True, slots=True)
class PredictionLine:
    """One line of a predictions file, the harness's own or somebody else's."""

    id: str
    language: str
    output: str | None = None  # what the model wrote
    choice: int | None = None  # index of the chosen option, from 0
    option_scores: tuple[OptionScore, ...] = ()
    ranking: tuple[str, ...] = ()  # ids of candidates, best first
    error: str = ""  # set: the sample failed and is counted, never scored
    prompt: str = ""
    input_sha256: str = ""


SCHEMAS: dict[str, type] = {"result": Result, "prediction": PredictionLine, "task": Task}

# set by the reader of task files, never written by a user
_NOT_IN_A_TASK_FILE = ("sha256", "path")
_ENUMS = {(TaskIdentity, "kind"): KINDS, (Task, "kind"): KINDS,
          (ZeroShot, "label"): LABELS, (Score, "label"): LABELS}  # fmt: skip


def json_schema(name: str) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of "result", "prediction" or "task".

    "prediction" is one line of predictions.jsonl; "task" is a parsed task file. Raises UserError
    for another name.
    """
    if name not in SCHEMAS:
        raise unknown("schema", name, SCHEMAS)
    schema = _object(SCHEMAS[name])
    if name == "task":
        for key in _NOT_IN_A_TASK_FILE:
            del schema["properties"][key]
    if name == "result":
        schema["properties"]["schema_version"] = {"const": RESULT_SCHEMA_VERSION}
    if name == "prediction":
        schema["properties"]["choice"]["anyOf"][0]["minimum"] = 0
        # an empty error or an empty list of scores or ids is the same as none
        schema["anyOf"] = [
            {"required": ["output"], "properties": {"output": {"type": "string"}}},
            {"required": ["choice"], "properties": {"choice": {"type": "integer"}}},
            {"required": ["option_scores"], "properties": {"option_scores": {"minItems": 1}}},
            {"required": ["ranking"], "properties": {"ranking": {"minItems": 1}}},
            {"required": ["error"], "properties": {"error": {"minLength": 1}}},
        ]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": name, **schema}


def load_result(path: Path) -> Result:
    """Return the result in `path`, of this schema version or an older one.

    Raises UserError for a newer version, a missing or unknown field or a wrong type.
    """
    content = read_json(path)
    version = content.get("schema_version") if isinstance(content, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise UserError(
            f"{path}: schema_version: expected a number from 1 to {RESULT_SCHEMA_VERSION}, "
            f"got {version!r}; score the run again to write a valid result"
        )
    if version > RESULT_SCHEMA_VERSION:
        raise UserError(
            f"{path}: schema_version: {version} is newer than {RESULT_SCHEMA_VERSION}, the newest "
            "this program knows; install a newer mpm-eval"
        )
    result: Result = build(Result, content, str(path))
    return result


def _object(record: type) -> dict[str, Any]:
    hints = typing.get_type_hints(record)
    properties: dict[str, Any] = {}
    for item in fields(record):
        properties[item.name] = _schema(hints[item.name])
        if (record, item.name) in _ENUMS:
            properties[item.name] = {"enum": list(_ENUMS[record, item.name])}
    return {
        "type": "object",
        "properties": properties,
        "required": [item.name for item in fields(record) if _is_required(item)],
        "additionalProperties": False,
    }


def _is_required(item: "Field[Any]") -> bool:
    return item.default is MISSING and item.default_factory is MISSING


_PLAIN: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    Any: {},
}


def _schema(hint: Any) -> dict[str, Any]:
    """Return the schema of one type hint; raises TypeError for a hint no record uses."""
    if hint in _PLAIN:
        return dict(_PLAIN[hint])
    if is_dataclass(hint) and isinstance(hint, type):
        return _object(hint)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_schema(argument) for argument in arguments]}
    if origin is tuple and arguments[-1] is Ellipsis:
        return {"type": "array", "items": _schema(arguments[0])}
    if origin is tuple:
        items = [_schema(argument) for argument in arguments]
        return {"type": "array", "prefixItems": items, "items": False, "minItems": len(items)}
    if origin is Mapping:
        return {"type": "object", "additionalProperties": _schema(arguments[1])}
    raise TypeError(f"no JSON Schema for {hint!r}")
