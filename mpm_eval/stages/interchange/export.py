"""Export: a run's samples with their texts and values, and as one tidy table."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpm_eval.data import Dataset
from mpm_eval.errors import UserError
from mpm_eval.items import FILE as ITEMS_FILE
from mpm_eval.items import Item, Items, read_items
from mpm_eval.metrics import load_metric
from mpm_eval.schema import Prediction, Sample
from mpm_eval.stages.result_schema import Result, load_result
from mpm_eval.stages.run_folder import chosen_folders, open_task_folder
from mpm_eval.store import read_predictions
from mpm_eval.strict import write_bytes, write_text

# columns before those of the metrics
COLUMNS = (
    "task", "model", "label", "id", "language", "question", "prompt", "references", "output",
    "error", "category", "cell", "cluster",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answered:
    """One sample in one language: what was asked, answered and measured."""

    item: Item
    prediction: Prediction
    sample: Sample | None  # None: its task or data are not here
    # metric -> value of this sample alone, None where it failed; without metrics that do not apply
    values: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class ExportedTask:
    """One task of a run."""

    folder: Path
    result: Result
    metrics: tuple[str, ...]
    answered: tuple[Answered, ...]
    dataset: Dataset | None


def read_tasks(
    run: Path, tasks: Sequence[str] | None = None
) -> tuple[list[ExportedTask], list[str]]:
    """Return the tasks of a scored run that have samples, and what is missing of them and why.

    Raises UserError for a task that is not scored, items or predictions that are not those of the
    result, and a run of probes only.
    """
    found: list[ExportedTask] = []
    notes: list[str] = []
    for folder in chosen_folders(run, tasks):
        path = folder / "result.json"
        if not path.is_file():
            raise UserError(f"{folder}: not scored yet; score it with: mpm-eval score {run}")
        result = load_result(path)
        if result.task.kind == "probe":
            notes.append(f"{result.task.name}: left out, a probe has no answers")
            continue
        found.append(_read_task(folder, result, notes))
    if not found:
        raise UserError(f"{run}: nothing to export; {'; '.join(notes)}")
    return found, notes


def export_table(
    run: Path, out: Path, form: str, tasks: Sequence[str] | None = None
) -> tuple[list[Path], list[str]]:
    """Write one row per sample and language as "parquet" or "csv"; return files and notes.

    A metric is a column, null where it does not apply and where the sample failed; a value is
    that of the sample alone, on the metric's own scale. References are a list, in CSV as JSON.
    """
    found, notes = read_tasks(run, tasks)
    metrics = list(dict.fromkeys(name for task in found for name in task.metrics))
    rows = [row for task in found for row in _rows(task, metrics)]
    if form == "parquet":
        write_bytes(out, _parquet(rows, metrics))
    else:
        write_text(out, _csv(rows, metrics))
    return [out], notes


def _read_task(folder: Path, result: Result, notes: list[str]) -> ExportedTask:
    items = read_items(folder / ITEMS_FILE)
    if items.predictions_sha256 != result.predictions_sha256:
        raise UserError(f"{folder / ITEMS_FILE}: not of the result beside it; score the run again")
    predictions = {p.key: p for p in read_predictions(folder / "predictions.jsonl")}
    dataset, samples = None, {}
    try:
        opened = open_task_folder(folder)
        dataset = opened.dataset
        samples = {s.key: s for members in opened.samples().values() for s in members}
    except UserError as error:
        notes.append(f"{result.task.name}: without questions, references and pictures: {error}")
    values = {name: _values(items, name) for name in items.statistics}
    answered = []
    for i, item in enumerate(items.items):
        if item.key not in predictions:
            raise UserError(
                f"{folder}: no prediction for sample '{item.id}' ({item.language}); "
                "score the run again"
            )
        known = {name: column[i] for name, column in values.items() if _applies(items, name, i)}
        answered.append(Answered(item, predictions[item.key], samples.get(item.key), known))
    return ExportedTask(folder, result, tuple(items.statistics), tuple(answered), dataset)


def _applies(items: Items, name: str, i: int) -> bool:
    return items.statistics[name][i] is not None


def _values(items: Items, name: str) -> list[float | None]:
    """Return the metric of each item alone; None where it failed or is undefined."""
    import numpy as np

    rows = items.statistics[name]
    known = [i for i, row in enumerate(rows) if row is not None and len(row)]
    found: list[float | None] = [None] * len(rows)
    if known:
        statistics_NS = np.array([rows[i] for i in known], dtype=np.float64)
        for i, value in zip(known, load_metric(name).aggregate(statistics_NS), strict=True):
            found[i] = float(value) if np.isfinite(value) else None
    return found


def _rows(task: ExportedTask, metrics: Sequence[str]) -> Iterator[dict[str, Any]]:
    for one in task.answered:
        item, sample = one.item, one.sample
        yield {
            "task": task.result.task.name,
            "model": task.result.model.name,
            "label": task.result.zero_shot[item.language].label,
            "id": item.id,
            "language": item.language,
            "question": sample.question if sample else None,
            "prompt": one.prediction.prompt,
            "references": list(sample.references) if sample else None,
            "output": one.prediction.output,
            "error": item.error,
            "category": item.category,
            "cell": item.cell,
            "cluster": item.cluster,
            **{name: None if item.error else one.values.get(name) for name in metrics},
        }


def _parquet(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {name: pa.string() for name in COLUMNS}
    types["references"] = pa.list_(pa.string())
    types |= {name: pa.float64() for name in metrics}
    table = pa.table({name: pa.array([r[name] for r in rows], t) for name, t in types.items()})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _csv(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, [*COLUMNS, *metrics], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        references = row["references"]
        packed = "" if references is None else json.dumps(references, ensure_ascii=False)
        writer.writerow({**row, "references": packed})
    return text.getvalue()
