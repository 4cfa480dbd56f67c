"""The kinds of data a stream can come from, behind one interface."""

import hashlib
import itertools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from mpm_eval.errors import UserError, unknown
from mpm_eval.strict import canonical_sha256
from training.streams.config import StreamConfig
from training.streams.rows import Row

_END = 1 << 20  # bytes at each end of a big file that stand for its content
_PEEK = 100  # rows whose columns are looked at before training starts


class Source(Protocol):
    """Data in shards. Rows of a shard come in a fixed order, whenever and wherever it is read."""

    num_shards: int
    fingerprint: str  # of names and sizes: cheap, to notice that data changed since a state

    @property
    def num_rows(self) -> Sequence[int] | None:
        """The rows of each shard; None when only reading would tell."""
        ...

    @property
    def folders(self) -> Sequence[Path]:
        """Where pictures that are given by name lie."""
        ...

    def rows(self, shard: int, start: int) -> Iterator[Callable[[], Row]]:
        """Yield a loader for each row from number `start` on.

        A loader must be called before the next one is asked for, or never: the payload of a row
        that belongs to another rank is not read. A shard that breaks off ends in a row with a
        problem and `ends_shard`.
        """
        ...

    def identity(self) -> str:
        """Return the SHA-256 of names, sizes and contents, or of a pinned revision."""
        ...


def open_source(config: StreamConfig) -> Source:
    """Return the data that `config.source` names.

    Raises UserError for what is none of the known kinds, for missing files and columns.
    """
    from training.streams import lines, tables, tars

    source, path = config.source, Path(config.source)
    if source.startswith("pipe:"):
        raise UserError(f"{source}: pipe: is refused, no commands are run; give files")
    if "://" in source:
        raise UserError(f"{source}: URLs are not opened; download the files, or give a hub id")
    if source.endswith(".tar"):
        return tars.TarSource(config)
    if path.suffix == ".jsonl":
        return lines.LineSource(config)
    if path.is_dir():
        return tables.open_folder(config, path)
    hub_id = re.fullmatch(r"([\w.-]+(?:/[\w.-]+)?)(?::([\w.-]+))?", source)
    if hub_id and not path.exists() and not path.suffix.startswith(".json"):
        return tables.HubSource(config, hub_id[1], hub_id[2] or "")
    raise UserError(
        f"{source}: no such folder, and neither a .jsonl file, tars (shards/{{00..09}}.tar) nor a "
        "hub id (owner/name); a list in a .json file becomes lines by jq -c '.[]'"
    )


def require_columns(config: StreamConfig, source: Source) -> None:
    """Raise UserError for a column that none of the first rows has, with the columns there are."""
    loaders = itertools.chain.from_iterable(source.rows(i, 0) for i in range(source.num_shards))
    rows = [load() for load in itertools.islice(loaders, _PEEK)]
    known = {name for row in rows for name in row.columns}
    if not known:
        problem = next((f": {row.shard}: {row.problem}" for row in rows if row.problem), "")
        raise UserError(f"{config.source}: no sample can be read{problem}")
    check_columns(config, known)


def check_columns(config: StreamConfig, known: set[str]) -> None:
    """Raise UserError for a column that is not among the `known` ones."""
    for key, name in config.columns.items():
        if name not in known:
            raise unknown("column", name, known, f"{config.source}: {key}")


def chunks(num_rows: int, size: int) -> list[int]:
    """Return the sizes of the parts of a table that is cut every `size` rows."""
    whole, rest = divmod(num_rows, size)
    return [size] * whole + [rest] * (rest > 0)


def names_of(files: Sequence[Path]) -> list[str]:
    """Return the paths below the folder that all files share: the same on every machine."""
    folder = os.path.commonpath([file.parent for file in files])
    return [file.relative_to(folder).as_posix() for file in files]


def fingerprint(files: Sequence[Path]) -> str:
    """Return the SHA-256 of the files' names and sizes; raises UserError when one is gone."""
    try:
        sizes = [file.stat().st_size for file in files]
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror})") from None
    return canonical_sha256(list(zip(names_of(files), sizes, strict=True)))


def content_sha256(files: Sequence[Path]) -> str:
    """Return the SHA-256 of names, sizes and contents; of big files, of both ends."""
    found = []
    for name, file in zip(names_of(files), files, strict=True):
        try:
            size, digest = file.stat().st_size, hashlib.sha256()
            with file.open("rb") as opened:
                if size <= 2 * _END:
                    digest.update(opened.read())
                else:
                    digest.update(opened.read(_END))
                    opened.seek(-_END, os.SEEK_END)
                    digest.update(opened.read())
        except OSError as error:
            raise UserError(f"{file}: cannot be read ({error.strerror})") from None
        found.append([name, size, digest.hexdigest()])
    return canonical_sha256(found)
