"""Per-sample statistics of a task's results: what comparing, gating and ranking compute from.

`items.parquet` lies beside `result.json`. A row is a sample in one language; a metric's column
holds its row of statistics: null where the metric does not apply, [] where the sample failed.
"""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpm_eval.errors import UserError, unknown
from mpm_eval.strict import write_bytes

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

FILE = "items.parquet"
SCHEMA_VERSION = 1
_PREFIX = "statistics."
_METADATA = b"mpm-eval"


@dataclass(frozen=True, slots=True)
class Item:
    """One sample in one language, without its text."""

    id: str
    language: str
    cluster: str
    category: str
    cell: str
    error: str  # why it failed; "" where it did not
    input_sha256: str  # 16 digits, over prompt, options and picture; "" where unknown
    output_sha256: str  # 16 digits, over output and option scores

    @property
    def key(self) -> tuple[str, str]:
        return (self.id, self.language)

    def within(self, subset: str) -> bool:
        return subset in ("", f"category={self.category}", f"cell={self.cell}")


@dataclass(frozen=True, slots=True)
class Cell:
    """The items of one metric, language and subset that can be compared."""

    items: tuple[Item, ...]  # the scored ones, in the order of the samples
    statistics: "np.ndarray"  # x_NS, one row per scored item; shape (0, 0) without any
    failed: tuple[Item, ...]

    @property
    def clusters(self) -> list[str]:
        return [item.cluster for item in self.items]


@dataclass(frozen=True, slots=True)
class Items:
    """All items of one task with the statistics of each metric."""

    items: tuple[Item, ...]
    # metric -> one row per item; None: the metric does not apply, (): the item failed
    statistics: Mapping[str, Sequence[Sequence[float] | None]]
    predictions_sha256: str  # of the result that the items belong to

    def cell(self, metric: str, language: str, subset: str = "") -> Cell:
        """Return the items of a metric in a language and subset; UserError for another metric."""
        import numpy as np

        if metric not in self.statistics:
            raise unknown("metric", metric, self.statistics)
        scored, failed, rows = [], [], []
        for item, row in zip(self.items, self.statistics[metric], strict=True):
            if row is None or item.language != language or not item.within(subset):
                continue
            if item.error or not len(row):  # a judgement can fail where the answer did not
                failed.append(item)
            else:
                scored.append(item)
                rows.append(row)
        statistics_NS = np.array(rows, dtype=np.float64) if rows else np.zeros((0, 0))
        return Cell(tuple(scored), statistics_NS, tuple(failed))


def output_sha256(output: str, option_scores: Sequence[Any] = ()) -> str:
    """Return the 16 digits that say whether two outputs are the same."""
    text = json.dumps([output, [[s.logprob, s.num_tokens] for s in option_scores]])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_items(path: Path, items: Items) -> None:
    """Write items as Parquet, in one step."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {
        field.name: pa.array([getattr(item, field.name) for item in items.items], pa.string())
        for field in fields(Item)
    }
    for metric, rows in items.statistics.items():
        columns[_PREFIX + metric] = pa.array(rows, pa.list_(pa.float64()))
    meta = {"schema_version": SCHEMA_VERSION, "predictions_sha256": items.predictions_sha256}
    table = pa.table(columns).replace_schema_metadata({_METADATA: json.dumps(meta).encode()})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    write_bytes(path, buffer.getvalue())


def read_items(path: Path) -> Items:
    """Return the items in a file; UserError when it is missing, damaged or of a newer version."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise UserError(
            f"{path}: no such file; write it from the predictions with: "
            f"mpm-eval score {path.parent.parent}"
        )
    try:
        # Without threads: one that outlives the read can abort the process when it exits. Neither
        # this nor `_rows` loads pandas, as pq.read_table and to_numpy do: a quarter of a second.
        table = pq.ParquetFile(pa.BufferReader(path.read_bytes())).read(use_threads=False)
        meta = json.loads((table.schema.metadata or {})[_METADATA])
        version, digest = meta["schema_version"], meta["predictions_sha256"]
        columns = [table.column(field.name).to_pylist() for field in fields(Item)]
    except (pa.ArrowException, KeyError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:100]
        raise UserError(
            f"{path}: not a file of items ({reason}); score the run again to write it"
        ) from None
    if version > SCHEMA_VERSION:
        raise UserError(f"{path}: written by a newer mpm-eval; install a newer version")
    statistics = {
        name.removeprefix(_PREFIX): _rows(table.column(name))
        for name in table.column_names
        if name.startswith(_PREFIX)
    }
    return Items(tuple(Item(*row) for row in zip(*columns, strict=True)), statistics, digest)


def _rows(column: "pa.ChunkedArray") -> list[Sequence[float] | None]:
    # by way of numpy: a Python list of a hundred thousand lists takes ten times as long
    import numpy as np
    import pyarrow as pa

    array = column.combine_chunks()
    assert isinstance(array, pa.ListArray)
    inner = array.values
    buffer = inner.buffers()[1]
    values: Any = ()
    if len(inner):
        values = np.frombuffer(buffer, np.float64, len(inner), 8 * inner.offset)
    offsets = array.offsets.to_pylist()
    known = array.is_valid().to_pylist()
    return [
        values[start:end] if valid else None
        for start, end, valid in zip(offsets, offsets[1:], known, strict=False)
    ]
