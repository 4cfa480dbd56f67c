"""Tables for programs: the same tidy rows as CSV, JSON and Parquet."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mpm_eval.results import Found, score_row
from mpm_eval.stages.leaderboard.collect import Entry

if TYPE_CHECKING:
    from mpm_eval.stages.leaderboard.standings import Standings

_LEFT_OUT = ("limit", "predictions_sha256")  # no limited run is ranked; result.json has the hash


def tidy_rows(entries: Sequence[Entry], found: "Mapping[str, Standings]") -> list[dict[str, Any]]:
    """Return a row per score, then the mean and the worst target language of each entry.

    Beside the columns of `load_results`: role (model, floor, ceiling), main_metric, summary ("" for
    a score, else mean or worst; a mean has no language) and, where models are ranked by it,
    rank_low and rank_high. A probe's single layers are left to `load_results`.
    """
    return [row for entry in entries for row in _rows(entry, found[entry.result.task.name])]


def _rows(entry: Entry, found: "Standings") -> Iterator[dict[str, Any]]:
    task, standing = entry.result.task, found.rows[entry.folder]
    for score in entry.result.scores:
        if task.kind == "probe" and score.subset not in ("", task.main_subset):
            continue
        is_main = (score.metric, score.subset) == (task.main_metric, task.main_subset)
        rank = found.ranks.get(score.language, {}).get(entry.folder) if is_main else None
        yield _row(entry, score, rank)
    if standing.mean is None or standing.worst is None:
        return
    worst = entry.score(task.main_metric, standing.worst, task.main_subset)
    assert worst is not None
    low, high = standing.mean_ci95 or (None, None)
    mean = {"language": "", "value": _rounded(standing.mean), "label": "", "n": None,
            "ci95_low": _rounded(low), "ci95_high": _rounded(high), "n_failed": None}  # fmt: skip
    for summary, changed in (("mean", mean), ("worst", {})):
        rank = found.ranks.get(summary, {}).get(entry.folder)
        yield {**_row(entry, worst, rank), "summary": summary, **changed}


def _row(entry: Entry, score: Any, rank: tuple[int, int] | None) -> dict[str, Any]:
    row = score_row(Found(entry.run, entry.folder, entry.result), score)
    low, high = rank or (None, None)
    return {
        **{key: value for key, value in row.items() if key not in _LEFT_OUT},
        "role": entry.role,
        "main_metric": score.metric == entry.result.task.main_metric,
        "summary": "",
        "rank_low": low,
        "rank_high": high,
    }


def _rounded(value: float | None) -> float | None:
    """Return a value to 12 digits, as in results: the last ones differ between machines."""
    return None if value is None else float(f"{value:.12g}")


def to_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows as CSV, with their keys as the first line."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def to_parquet(rows: Sequence[dict[str, Any]]) -> bytes:
    """Return rows as a Parquet file, with the types of `load_results`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
    floats = ("value", "ci95_low", "ci95_high")
    numbers = ("rank_low", "rank_high", "n", "n_failed")
    fields = []
    for key, value in rows[0].items():
        kind = float if key in floats else int if key in numbers else type(value)
        fields.append(pa.field(key, types[kind]))
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), pa.schema(fields)), buffer, compression="zstd")
    return buffer.getvalue()
