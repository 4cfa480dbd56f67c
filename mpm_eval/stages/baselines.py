"""Baselines: results and items of a run kept as small files that are reviewed like code.

`NAME.json` holds the results, to be read in a diff, and the hash of each `NAME/TASK.parquet`, the
items that a gate compares sample by sample. The same run gives the same bytes.
"""

import hashlib
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mpm_eval.errors import UserError, unknown
from mpm_eval.items import FILE as ITEMS_FILE
from mpm_eval.items import read_items
from mpm_eval.stages.generate import default_folder
from mpm_eval.stages.pairing import Side, run_sides
from mpm_eval.stages.result_schema import Result
from mpm_eval.strict import (
    build,
    canonical_sha256,
    file_sha256,
    read_json,
    to_jsonable,
    write_bytes,
    write_json,
)

FOLDER = Path("results/baselines")
SCHEMA_VERSION = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class BaselineTask:
    """One task of a baseline."""

    result: Result  # its rows of the main subset and of all samples, without notes
    items_sha256: str  # of NAME/TASK.parquet; "" for a probe without items


@dataclass(frozen=True, slots=True)
class Baseline:
    """NAME.json."""

    schema_version: int
    name: str
    tasks: tuple[BaselineTask, ...]  # by name
    sha256: str = ""  # of all the other fields: an edited number is no measured one


def save_baseline(
    run: Path,
    folder: Path = FOLDER,
    name: str | None = None,
    tasks: Sequence[str] | None = None,
    force: bool = False,
) -> Path:
    """Keep a scored run as a baseline and return its file.

    Without a name it is called as the run folder of its model would be, so that the limit of a
    limited run is in it. Raises UserError for an unscored run, a task it does not have, a control
    run, and a baseline that is there already unless `force`.
    """
    sides = run_sides(run)
    for task in tasks or ():
        if task not in sides:
            raise unknown("task", task, sides, str(run))
    chosen = {task: side for task, side in sorted(sides.items()) if not tasks or task in tasks}
    for side in chosen.values():
        if side.result.control:
            raise UserError(
                f"{side.where}: a run with --control {side.result.control} is a floor, "
                "no baseline; save a plain run"
            )
    first = next(iter(chosen.values())).result
    name = name or default_folder(first.model.name, first.limit, first.seed).name
    if not _NAME.fullmatch(name) or name.endswith(".json"):
        raise UserError(
            f"--name: '{name}' is no name of a baseline; use letters, digits, '.', '_' and '-', "
            "and leave .json out"
        )
    path = folder / f"{name}.json"
    if not force and (path.exists() or _items_folder(path).exists()):
        raise UserError(f"{path}: there is a baseline already; give another --name, or --force")
    _write(path, name, chosen)
    return path


def load_baseline(path: Path) -> dict[str, Side]:
    """Return the tasks of a baseline by name, each hash checked.

    Raises UserError for a file that is missing, truncated, edited, renamed or of a newer version.
    """
    baseline = _read(path)
    found = {}
    for task in baseline.tasks:
        name = task.result.task.name
        where = f"{path}: {name}"
        items = None
        if task.items_sha256:
            file = _items_folder(path) / f"{name}.parquet"
            if not file.is_file():
                raise UserError(f"{file}: no such file; it belongs to {path}, restore it")
            if file_sha256(file) != task.items_sha256:
                raise UserError(
                    f"{file}: not the items that {path} was saved with; restore both, or save "
                    "the baseline again"
                )
            items = read_items(file)
        found[name] = Side(task.result, items, where)
    return found


def load_side(path: Path) -> dict[str, Side]:
    """Return the tasks of a baseline (a .json file) or of a run folder."""
    if path.suffix == ".json" and not path.is_dir():
        return load_baseline(path)
    file = path.parent / f"{path.name}.json"
    if path.is_dir() and file.is_file():
        raise UserError(f"{path}: the items of a baseline; give its file: {file}")
    return run_sides(path)


def list_baselines(folder: Path = FOLDER) -> list[dict[str, Any]]:
    """Return one row per baseline in a folder, by name; UserError for a damaged one."""
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder; save a baseline with: mpm-eval baseline save RUN"
        )
    rows = []
    for path in sorted(folder.glob("*.json")):
        sides = load_baseline(path)
        results = [side.result for side in sides.values()]
        rows.append(
            {
                "baseline": path.stem,
                "model": _joined(r.model.name for r in results),
                "weights": _joined(r.model.sha256[:12] for r in results),
                "tasks": list(sides),
                "languages": list(dict.fromkeys(tag for r in results for tag in r.languages)),
                "limit": _joined("none" if r.limit is None else str(r.limit) for r in results),
                "n": sum(r.num_samples - r.num_failed for r in results),
                "failed": sum(r.num_failed for r in results),
                "zero-shot": sorted(
                    {t for r in results for t, z in r.zero_shot.items() if z.label == "zero-shot"}
                ),
                "file": str(path),
            }
        )
    return rows


def _write(path: Path, name: str, sides: dict[str, Side]) -> None:
    folder = _items_folder(path)
    tasks = []
    for task, side in sides.items():
        digest = ""
        if side.items is not None:
            content = (Path(side.where) / ITEMS_FILE).read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            write_bytes(folder / f"{task}.parquet", content)
        tasks.append(BaselineTask(_small(side.result), digest))
    baseline = Baseline(SCHEMA_VERSION, name, tuple(tasks))
    # last: until it is there, the hashes of the old file do not fit, which loading reports
    write_json(path, replace(baseline, sha256=_digest(baseline)))
    for file in folder.glob("*.parquet") if folder.is_dir() else ():
        if file.stem not in sides:  # of the baseline that was replaced
            file.unlink()
    if folder.is_dir() and not any(folder.iterdir()):
        shutil.rmtree(folder)


def _small(result: Result) -> Result:
    """Return the result without rows that no rule can select."""
    subsets = ("", result.task.main_subset)
    scores = tuple(score for score in result.scores if score.subset in subsets)
    return replace(result, scores=scores, notes=())


def _read(path: Path) -> Baseline:
    content = read_json(path)
    version = content.get("schema_version") if isinstance(content, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise UserError(
            f"{path}: not a baseline (no schema_version); save one with: mpm-eval baseline save RUN"
        )
    if version > SCHEMA_VERSION:
        raise UserError(f"{path}: written by a newer mpm-eval; install a newer version")
    baseline: Baseline = build(Baseline, content, str(path))
    if baseline.sha256 != _digest(baseline):
        raise UserError(
            f"{path}: has been edited since it was saved; restore it, or save the baseline again"
        )
    if baseline.name != path.stem:
        raise UserError(
            f"{path}: is the baseline '{baseline.name}'; give the file its name back: "
            f"{baseline.name}.json"
        )
    for task in baseline.tasks:
        if Path(task.result.task.name).name != task.result.task.name:
            raise UserError(f"{path}: task '{task.result.task.name}' is no name of a file")
    return baseline


def _digest(baseline: Baseline) -> str:
    content = to_jsonable(baseline)
    del content["sha256"]
    digest: str = canonical_sha256(content)
    return digest


def _items_folder(path: Path) -> Path:
    return path.with_suffix("")


def _joined(values: Any) -> str:
    return ", ".join(dict.fromkeys(values))
