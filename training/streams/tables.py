"""Tables in the formats of Hugging Face `datasets`: parquet, save_to_disk, and the hub."""

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mpm_eval.errors import UserError, unknown
from mpm_eval.strict import canonical_sha256
from training.streams.config import StreamConfig
from training.streams.rows import Row
from training.streams.sources import (
    Source,
    check_columns,
    chunks,
    content_sha256,
    fingerprint,
    names_of,
    require_columns,
)

BATCH = 100  # rows of a parquet file in memory at once, and of a shard of save_to_disk
_SAVED = ("dataset_dict.json", "state.json", "dataset_info.json")


def open_folder(config: StreamConfig, folder: Path) -> Source:
    """Return a folder of `save_to_disk` or of parquet files; raises UserError for any other."""
    if any((folder / name).is_file() for name in _SAVED):
        return SavedSource(config, folder)
    split = config.split
    patterns = [f"{split}*.parquet", f"data/{split}*.parquet", f"{split}/**/*.parquet"]
    found = [f for p in (patterns if split else ["**/*.parquet"]) for f in folder.glob(p)]
    if not found:
        wanted = f" of split '{split}' ({', '.join(patterns)})" if split else ""
        raise UserError(
            f"{folder}: is no folder of save_to_disk and has no parquet files{wanted}; "
            + ('split = "" takes all parquet files; ' if split else "")
            + "tars are given as FOLDER/*.tar"
        )
    return ParquetSource(config, folder, sorted(set(found)))


class ParquetSource:
    """Parquet files, each row group a shard: read by pyarrow, which knows their rows in advance."""

    def __init__(self, config: StreamConfig, folder: Path, files: Sequence[Path]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.folders = (folder,)
        self._files, self._names = files, names_of(files)
        self._columns = list(config.columns.values())
        self._groups: list[tuple[int, int]] = []  # file, row group; -1 for a file without footer
        self.num_rows: list[int] = []
        known: set[str] = set()
        for number, file in enumerate(files):
            try:
                metadata = pq.read_metadata(file)
            except (OSError, ValueError, pa.ArrowException):
                self._groups.append((number, -1))
                self.num_rows.append(1)  # one row that says so
                continue
            known |= set(metadata.schema.to_arrow_schema().names)
            for group in range(metadata.num_row_groups):
                self._groups.append((number, group))
                self.num_rows.append(metadata.row_group(group).num_rows)
        self.num_shards = len(self._groups)
        self.fingerprint = fingerprint(files)
        if known:
            check_columns(config, known)
        else:
            require_columns(config, self)

    def rows(self, shard: int, start: int) -> Iterator[Callable[[], Row]]:
        """Yield a loader for each row of a row group; see `Source.rows`."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        number, group = self._groups[shard]
        name, place = self._names[number], max(group, 0)
        count = 0
        try:
            with pq.ParquetFile(self._files[number]) as file:
                first = sum(file.metadata.row_group(i).num_rows for i in range(place))
                for batch in file.iter_batches(BATCH, row_groups=[place], columns=self._columns):
                    for index in range(max(0, start - count), batch.num_rows):
                        yield partial(_row_of, batch, index, name, str(first + count + index))
                    count += batch.num_rows
        except (OSError, ValueError, pa.ArrowException) as error:
            if count >= start:
                reason = f"cannot be read: {_one_line(error)}"
                yield partial(Row, name, f"row group {place}", {}, reason, True)

    def identity(self) -> str:
        return content_sha256(self._files)


def _row_of(batch: Any, index: int, shard: str, key: str) -> Row:
    try:
        return Row(shard, key, batch.slice(index, 1).to_pylist()[0])
    except ValueError as error:  # bytes that are no UTF-8 in a column of texts
        return Row(shard, key, {}, _one_line(error))


class SavedSource:
    """A folder of `save_to_disk`, which `datasets` maps into memory: nothing is loaded before."""

    def __init__(self, config: StreamConfig, folder: Path) -> None:
        datasets = _datasets(config)
        try:
            table = datasets.load_from_disk(str(folder))
        except (OSError, ValueError) as error:
            raise UserError(f"{folder}: {_one_line(error)}") from None
        if isinstance(table, datasets.DatasetDict):
            if config.split not in table:
                raise unknown("split", config.split, table, f"{folder}: split")
            table = table[config.split]
        elif config.split and table.split is not None and str(table.split) != config.split:
            raise UserError(
                f"{folder}: holds split '{table.split}', not '{config.split}'; correct split"
            )
        check_columns(config, set(table.column_names))
        # another format, saved with the data, would give tensors
        self._table = _undecoded(table.with_format(None), config)
        self._name, self.folders = folder.name, (folder,)
        self._files = sorted(p for p in folder.rglob("*") if p.suffix in (".arrow", ".json"))
        self.num_rows = chunks(len(table), BATCH)
        self.num_shards = len(self.num_rows)
        self.fingerprint = fingerprint(self._files)

    def rows(self, shard: int, start: int) -> Iterator[Callable[[], Row]]:
        """Yield a loader for each row of a chunk; see `Source.rows`."""
        first = shard * BATCH
        for index in range(first + start, first + self.num_rows[shard]):
            yield partial(self._load, index)

    def _load(self, index: int) -> Row:
        try:
            return Row(self._name, str(index), self._table[index])
        except (OSError, ValueError) as error:
            return Row(self._name, str(index), {}, _one_line(error))

    def identity(self) -> str:
        return content_sha256(self._files)


class HubSource:
    """A data set of the hub at a pinned commit, streamed by `datasets`: no disk is filled."""

    num_rows = None
    folders: tuple[Path, ...] = ()

    def __init__(self, config: StreamConfig, hub_id: str, name: str) -> None:
        if not re.fullmatch(r"[0-9a-f]{40}", config.revision):
            raise UserError(
                f"{config.source}: no such file or folder; for a data set of the hub give its "
                f"commit as revision, 40 hexadecimal digits (got '{config.revision}')"
            )
        if not config.split:
            raise UserError(f"{config.source}: split: is empty; a hub data set needs one")
        datasets = _datasets(config)
        self._where = f"{config.source} at {config.revision[:8]}"
        try:
            table = datasets.load_dataset(
                hub_id,
                name or None,
                revision=config.revision,
                split=config.split,
                streaming=True,
            )
            known = set(table.column_names or next(iter(table), {}))
        except _failures() as error:
            raise self._unreachable(error) from None
        check_columns(config, known)
        self._table = _undecoded(table, config)
        self.num_shards = self._table.num_shards
        self.fingerprint = canonical_sha256(
            [hub_id, name, config.revision, config.split, self.num_shards]
        )

    def rows(self, shard: int, start: int) -> Iterator[Callable[[], Row]]:
        """Yield a loader for each row of a shard; see `Source.rows`.

        Raises UserError when the hub cannot be reached: that breaks no sample, and the state of
        the stream goes on where it stopped.
        """
        table = self._table.shard(num_shards=self.num_shards, index=shard).skip(start)
        rows: Iterator[dict[str, Any]] | None = None
        for number in itertools.count(start):
            try:
                rows = rows or iter(table)
                columns = next(rows)
            except StopIteration:
                return
            except _failures() as error:
                raise self._unreachable(error) from None
            yield partial(Row, f"shard {shard}", str(number), columns)

    def identity(self) -> str:
        """Return the SHA-256 of id, config, commit and split: they name the content."""
        return self.fingerprint

    def _unreachable(self, error: Exception) -> UserError:
        return UserError(
            f"{self._where}: cannot be read: {_one_line(error)}; check id, config, split and "
            "network, then start again: training resumes"
        )


def _datasets(config: StreamConfig) -> Any:
    try:
        import datasets
    except ImportError:
        raise UserError(
            f"{config.source}: needs the package datasets; pip install 'mpm-eval[hub]'"
        ) from None
    return datasets


def _failures() -> tuple[type[Exception], ...]:
    """What `datasets` raises for a broken network or file; its own errors are among the first."""
    import httpx

    return (OSError, ValueError, RuntimeError, httpx.HTTPError)


def _undecoded(table: Any, config: StreamConfig) -> Any:
    """Return the wanted columns with pictures as bytes: a broken one must not end the stream."""
    from datasets import Image

    table = table.select_columns(list(config.columns.values()))
    column = config.image_column
    if table.features is not None and isinstance(table.features[column], Image):
        table = table.cast_column(column, Image(decode=False))
    return table


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
