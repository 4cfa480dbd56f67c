"""Parts: the languages of an imported task in its folder: read, brought together, written."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mpm_eval.errors import UserError
from mpm_eval.items import FILE as ITEMS_FILE
from mpm_eval.items import Items, read_items, write_items
from mpm_eval.schema import Prediction
from mpm_eval.stages.result_schema import DataIdentity, Result, load_result
from mpm_eval.store import read_predictions, to_line
from mpm_eval.strict import canonical_sha256, rounded, to_jsonable, write_json, write_text

SPEC = "import"  # of the model of every imported run
# fields of a result that a manifest has too
_SHARED = ("data", "model", "seed", "limit", "decoding", "languages", "versions")


@dataclass(frozen=True, slots=True)
class Part:
    """One language of one task, as it lies in a run folder."""

    result: Result
    items: Items
    predictions: tuple[Prediction, ...]


def data_of(program: str, languages: Mapping[str, Mapping[str, str]]) -> DataIdentity:
    """Return the data of the languages: each with its task in the program and its hash."""
    digest = canonical_sha256({tag: source["sha256"] for tag, source in languages.items()})
    return DataIdentity(digest, {"source": f"samples of {program}", "languages": dict(languages)})


def merged(folder: Path, new: Part) -> Part:
    """Return the part together with the languages that the folder has.

    Raises UserError for other content of a language that is there, and for a task that is not the
    same in both.
    """
    if not (folder / "result.json").exists():
        return _sealed(new)
    old = _read_part(folder)
    (language,) = new.result.languages
    _require_same_task(folder, old.result, new.result)
    if language in old.result.languages:
        kept = _of_languages(old, [language])
        if _content(kept) != _content(new):
            raise UserError(
                f"{folder}: language '{language}' is there with other content; choose another "
                f"--out, or remove {folder}"
            )
        return old
    if not set(new.items.statistics) & {old.result.task.main_metric}:
        raise UserError(
            f"{folder}: its main metric is {old.result.task.main_metric}, the log has "
            f"{', '.join(new.items.statistics)}; choose another --out"
        )
    return _sealed(_added(old, new))


def _added(old: Part, new: Part) -> Part:
    names = list(dict.fromkeys([*old.items.statistics, *new.items.statistics]))
    statistics = {}
    for name in names:
        rows: list[Sequence[float] | None] = []
        for items in (old.items, new.items):
            rows += items.statistics.get(name, [None] * len(items.items))
        statistics[name] = rows
    languages = {**_sources(old.result), **_sources(new.result)}
    program = str(old.result.data.description["source"]).removeprefix("samples of ")
    result = replace(
        old.result,
        data=data_of(program, languages),
        languages=(*old.result.languages, *new.result.languages),
        num_samples=old.result.num_samples + new.result.num_samples,
        num_failed=old.result.num_failed + new.result.num_failed,
        zero_shot={**old.result.zero_shot, **new.result.zero_shot},
        scores=(*old.result.scores, *new.result.scores),
        skipped=(*old.result.skipped, *new.result.skipped),
    )
    items = Items((*old.items.items, *new.items.items), statistics, "")
    return Part(result, items, (*old.predictions, *new.predictions))


def _sealed(part: Part) -> Part:
    """Return the part with sorted rows and the hash that ties its files together."""
    predictions = sorted(part.predictions, key=lambda p: p.key)
    digest = canonical_sha256([to_line(p) for p in predictions])
    result = replace(
        part.result,
        predictions_sha256=digest,
        scores=tuple(sorted(part.result.scores, key=lambda s: (s.metric, s.language, s.subset))),
        skipped=tuple(sorted(part.result.skipped, key=lambda s: (s.metric, s.language))),
    )
    return Part(result, replace(part.items, predictions_sha256=digest), part.predictions)


def _read_part(folder: Path) -> Part:
    result = load_result(folder / "result.json")
    if result.model.spec != SPEC:
        raise UserError(f"{folder}: holds a result that was not imported; choose another --out")
    part = Part(
        result,
        read_items(folder / ITEMS_FILE),
        tuple(read_predictions(folder / "predictions.jsonl")),
    )
    # result.json is written last: what an import that was stopped left beside it does not count
    return _of_languages(part, result.languages)


def _of_languages(part: Part, languages: Iterable[str]) -> Part:
    kept = [i for i, item in enumerate(part.items.items) if item.language in set(languages)]
    statistics = {name: [rows[i] for i in kept] for name, rows in part.items.statistics.items()}
    items = replace(
        part.items, items=tuple(part.items.items[i] for i in kept), statistics=statistics
    )
    predictions = tuple(p for p in part.predictions if p.language in set(languages))
    return Part(part.result, items, predictions)


def _content(part: Part) -> Any:
    statistics = {
        name: [None if row is None else [float(x) for x in row] for row in rows]
        for name, rows in part.items.statistics.items()
        if any(row is not None for row in rows)
    }
    return part.items.items, statistics, part.predictions


def _require_same_task(folder: Path, old: Result, new: Result) -> None:
    aspects = [
        ("program and settings of the task", old.task.sha256[:12], new.task.sha256[:12]),
        ("model", _source_model(old), _source_model(new)),
        ("decoding", old.decoding, new.decoding),
        ("limit", old.limit, new.limit),
        ("versions", _program_versions(old), _program_versions(new)),
    ]
    for what, was, now in aspects:
        if was != now:
            raise UserError(
                f"{folder}: the languages of one task must share the {what}: {_short(was)} is "
                f"there, {_short(now)} is given; choose another --task or --out"
            )


def _source_model(result: Result) -> str:
    return str(result.model.identity.get("source_model", ""))


def _program_versions(result: Result) -> dict[str, str]:
    own = ("mpm-eval", "scoring:numpy", "scoring:scipy")
    return {name: version for name, version in result.versions.items() if name not in own}


def _short(value: Any) -> str:
    text = json.dumps(to_jsonable(value), ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _sources(result: Result) -> dict[str, Mapping[str, str]]:
    return dict(result.data.description["languages"])


def write_part(folder: Path, part: Part) -> None:
    """Write the files of a task folder, result.json last: without it the others do not count."""
    result = part.result
    manifest = {
        "schema_version": 1,
        "task": {
            "name": result.task.name,
            "version": result.task.version,
            "sha256": result.task.sha256,
        },
        **{name: getattr(result, name) for name in _SHARED},
        "training_record": None,
    }
    lines = [
        json.dumps(to_line(p), ensure_ascii=False, sort_keys=True) + "\n" for p in part.predictions
    ]
    write_json(folder / "manifest.json", manifest)
    write_text(folder / "predictions.jsonl", "".join(lines))
    write_items(folder / ITEMS_FILE, part.items)
    write_json(folder / "result.json", rounded(to_jsonable(result)))
