"""A JSONL file beside its pictures, read line by line from where it is needed."""

from array import array
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from mpm_eval.errors import UserError
from mpm_eval.strict import file_sha256
from training.streams.config import StreamConfig
from training.streams.rows import BadSample, Row, parse_object
from training.streams.sources import chunks, fingerprint, require_columns

CHUNK = 100  # lines of one shard: a shuffle mixes lines from ten places of the file and more


class LineSource:
    """Lines of one file; pictures are named relative to its folder, or to `images` in it.

    A link leads out of the folder only as `images` itself.
    """

    def __init__(self, config: StreamConfig) -> None:
        self._file = Path(config.source)
        if not self._file.is_file():
            raise UserError(f"{config.source}: no such file")
        self.folders = (self._file.parent, self._file.parent / "images")
        self._offsets, self._numbers, num_lines = _index(self._file)
        self.num_shards = len(self._offsets)
        self.num_rows = chunks(num_lines, CHUNK)
        self.fingerprint = fingerprint([self._file])
        require_columns(config, self)

    def rows(self, shard: int, start: int) -> Iterator[Callable[[], Row]]:
        """Yield a loader for each line of a chunk; see `Source.rows`."""
        count = 0
        with self._file.open("rb") as file:
            file.seek(self._offsets[shard])
            for number, line in enumerate(file, start=self._numbers[shard]):
                if count == self.num_rows[shard]:
                    return
                if line.strip():
                    if count >= start:
                        yield partial(self._load, number, line)
                    count += 1

    def _load(self, number: int, line: bytes) -> Row:
        try:
            return Row(self._file.name, str(number), parse_object(line))
        except BadSample as error:
            return Row(self._file.name, str(number), {}, str(error))

    def identity(self) -> str:
        """Return the SHA-256 of the file's bytes; the pictures it names are not read."""
        return file_sha256(self._file)


def _index(path: Path) -> tuple["array[int]", "array[int]", int]:
    """Return where each chunk begins, as byte and as line number, and how many lines there are."""
    offsets, numbers = array("Q"), array("Q")
    position = count = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                if count % CHUNK == 0:
                    offsets.append(position)
                    numbers.append(number)
                count += 1
            position += len(line)
    if not count:
        raise UserError(f"{path}: is empty; write one object a line")
    return offsets, numbers, count
