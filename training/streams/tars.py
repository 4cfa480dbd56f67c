"""WebDataset tars, read by the standard library's `tarfile`.

Not by the package `webdataset`: it opens `pipe:` and URLs through a shell, its decoders unpickle
.pyd and .pth members, and its shuffle cannot be resumed at a sample.
"""

import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mpm_eval.errors import UserError
from training.streams.config import StreamConfig
from training.streams.rows import MAX_BYTES, BadSample, Row, parse_object
from training.streams.sources import content_sha256, fingerprint, names_of, require_columns

PICTURES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")
# WebDataset's rule: the key is all up to the first dot of the file's name
_NAME = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)", re.DOTALL)
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_Member = tuple[str, tarfile.TarInfo]  # its ending, in lower case


def expand(pattern: str) -> list[Path]:
    """Return the files of a pattern with {first..last} ranges or with the wildcards of a shell.

    Raises UserError for the first file that is missing, and when nothing matches.
    """
    files: list[Path] = []
    for name in _numbered(pattern):
        path = Path(name)
        if path.is_file():
            files.append(path)
        elif any(sign in name for sign in "*?["):
            found = sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
            if not found:
                raise UserError(f"{pattern}: no file matches")
            files += found
        else:
            raise UserError(f"{pattern}: no file {path}; correct the range or get the file")
    return files


def _numbered(pattern: str) -> Iterator[str]:
    match = _RANGE.search(pattern)
    if match is None:
        yield pattern
        return
    first, last = match[1], match[2]
    if int(first) > int(last):
        raise UserError(f"{pattern}: the range {match[0]} is empty; write the lower number first")
    for number in range(int(first), int(last) + 1):
        digits = str(number).zfill(len(first))
        yield from _numbered(pattern[: match.start()] + digits + pattern[match.end() :])


class TarSource:
    """Tars of samples: neighbouring members that share the name before the first dot."""

    num_rows = None
    folders: tuple[Path, ...] = ()

    def __init__(self, config: StreamConfig) -> None:
        self._files = expand(config.source)
        self._names = names_of(self._files)
        columns = config.columns
        image = columns.pop("image_column")
        self._pictures = PICTURES if image == "image" else (image,)
        self._texts = {*columns.values(), *(("txt",) if "caption" in columns.values() else ())}
        self.num_shards = len(self._files)
        self.fingerprint = fingerprint(self._files)
        require_columns(config, self)

    def rows(self, shard: int, start: int) -> Iterator[Callable[[], Row]]:
        """Yield a loader for each sample of a tar; see `Source.rows`."""
        name = self._names[shard]
        number, key, members = 0, "", list[_Member]()
        try:
            with tarfile.open(self._files[shard], "r:") as tar:
                for found, member in _members(tar):
                    if found != key and members:
                        if number >= start:
                            yield partial(self._load, tar, name, key, members)
                        number, members = number + 1, []
                    key = found
                    members.append(member)
                if members and number >= start:
                    yield partial(self._load, tar, name, key, members)
        except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
            # The sample at the break is lost with the rest: nobody knows if it is whole.
            if number >= start:
                yield partial(Row, name, key, {}, f"the tar breaks off: {error}", True)

    def _load(self, tar: tarfile.TarFile, shard: str, key: str, members: Sequence[_Member]) -> Row:
        try:
            return Row(shard, key, self._columns(tar, members))
        except BadSample as error:
            return Row(shard, key, {}, str(error))
        except (tarfile.TarError, OSError) as error:
            return Row(shard, key, {}, f"cannot be read from the tar: {error}")

    def _columns(self, tar: tarfile.TarFile, members: Sequence[_Member]) -> dict[str, Any]:
        """Return the columns; of members that the configuration does not name, the name alone."""
        files = dict(members)
        if len(files) < len(members):
            raise BadSample(f"has a member twice among {', '.join(e for e, _ in members)}")
        pictures = [ending for ending in self._pictures if ending in files]
        if len(pictures) > 1:
            raise BadSample(f"has {len(pictures)} pictures; give image_column an ending")
        columns: dict[str, Any] = dict.fromkeys(files)
        if "json" in files:
            columns |= parse_object(_read(tar, files["json"]))
        for ending in self._texts & files.keys():
            columns[ending] = _text(_read(tar, files[ending]), ending)
        if "txt" in files:
            columns["caption"] = columns["txt"]
        if pictures:
            columns[pictures[0]] = _read(tar, files[pictures[0]])
        if not files.keys().isdisjoint(PICTURES):
            columns["image"] = columns[pictures[0]] if pictures else None
        return columns

    def identity(self) -> str:
        return content_sha256(self._files)


def _members(tar: tarfile.TarFile) -> Iterator[tuple[str, _Member]]:
    """Yield (key, (ending, member)) of the files in a tar.

    Raises tarfile.ReadError unless the tar ends in its end mark, which `tarfile` does not ask for:
    it takes a broken header, and a cut between two members, for the end.
    """
    while (member := tar.next()) is not None:
        # else all headers of the shard stay in memory
        tar.members.clear()  # type: ignore[attr-defined]
        match = _NAME.fullmatch(member.name.removeprefix("./"))
        if match and member.isfile() and not member.issparse():
            yield match[1], (match[2].lower(), member)
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
        raise tarfile.ReadError("no end mark")


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.size > MAX_BYTES:
        raise BadSample(f"'{member.name}' has more than {MAX_BYTES} bytes")
    file = tar.extractfile(member)
    assert file is not None  # it is a regular file
    return file.read()


def _text(content: bytes, ending: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadSample(f".{ending}: not UTF-8") from None
