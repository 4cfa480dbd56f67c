"""The stream: epochs of shards, divided between processes, shuffled, resumable at a sample."""

import itertools
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mpm_eval.errors import UserError
from mpm_eval.strict import build, canonical_sha256, to_jsonable
from training.streams.config import BINDING, StreamConfig, StreamSample
from training.streams.rows import BadSample, Row, to_sample
from training.streams.sources import open_source

_KEPT = 5  # reasons that are kept
_FEW = 100  # samples or shards below which the share of broken ones is taken of this many


@dataclass(frozen=True, slots=True)
class Piece:
    """What a process reads of one shard."""

    shard: int
    start: int = 0
    length: int | None = None  # None: to the end


@dataclass
class Progress:
    """Where a stream stands. Its block is up to `shuffle_buffer` samples that begin at `row`."""

    epoch: int = 0
    piece: int = 0  # of the epoch, where the block begins
    row: int = 0  # in the piece
    taken: int = 0  # of the block: given, or broken
    seen: int = 0  # in this epoch, and of these
    seen_bad: int = 0
    bad_shards: int = 0
    num_bad: int = 0  # in all epochs
    bad: tuple[str, ...] = ()  # the first of them


@dataclass(frozen=True)
class Setting:
    """What must be the same when a stream goes on."""

    seed: int
    rank: int
    world_size: int
    config: str  # SHA-256 of what decides order and content
    data: str  # SHA-256 of names and sizes


_BINDING = {
    "seed": "another seed",
    "rank": "another rank",
    "world_size": "another number of processes",
    "config": "other columns, split, language, revision or shuffle_buffer",
    "data": "other files: their names or sizes changed",
}


@dataclass(frozen=True)
class _State:
    setting: Setting
    progress: Progress = field(default_factory=Progress)


class Stream:
    """Samples without end: epoch after epoch, in an order that follows from seed and epoch alone.

    Shards come in random order, and samples are shuffled in blocks of `shuffle_buffer` that follow
    each other. So a state is a position, and resuming reads one block again without decoding it; a
    buffer that refills one by one would have to replay its whole past.

    Processes share an epoch without overlap. Where the number of rows is known (parquet,
    save_to_disk, JSONL), each reads an equal, contiguous part of the shuffled shards. Elsewhere
    each takes whole shards if their number is a multiple of the processes, which costs no reading
    twice, and otherwise every world_size-th row. Rows that do not divide evenly are left out of the
    epoch. With whole shards, epochs are as long as the shards; no process ever waits, as no stream
    ends.

    A broken sample is counted and left out. Raises UserError when an epoch has more of them than
    `max_bad` allows, and for an epoch without a single sample.
    """

    def __init__(self, config: StreamConfig, seed: int, rank: int = 0, world_size: int = 1) -> None:
        """Open the data; raises UserError for missing files and columns, and wrong values."""
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} of {world_size}")
        config.check()
        self.config = config
        self._source = open_source(config)
        settings = {key: getattr(config, key) for key in BINDING}
        self._setting = Setting(
            seed, rank, world_size, canonical_sha256(settings), self._source.fingerprint
        )
        self._progress = Progress()
        self._samples = self._iterate()

    @classmethod
    def resume(
        cls,
        config: StreamConfig,
        seed: int,
        state: Mapping[str, Any],
        rank: int = 0,
        world_size: int = 1,
    ) -> "Stream":
        """Return a stream that gives next what the one that made `state` would have given next.

        The data may have moved and `max_bad` may differ. Raises UserError for a state of another
        seed, division, configuration or data.
        """
        stream = cls(config, seed, rank, world_size)
        found = build(_State, state, f"{config.source}: state")
        for key, what in _BINDING.items():
            if getattr(found.setting, key) != getattr(stream._setting, key):
                raise UserError(
                    f"{config.source}: the state was saved with {what}; go on with the same, or "
                    "start again"
                )
        stream._progress = found.progress
        return stream

    def __iter__(self) -> Iterator[StreamSample]:
        return self

    def __next__(self) -> StreamSample:
        return next(self._samples)

    def state(self) -> dict[str, Any]:
        """Return what `resume` needs to go on after the last sample given: a few kB of JSON."""
        state: dict[str, Any] = to_jsonable(_State(self._setting, self._progress))
        return state

    def identity(self) -> str:
        """Return the SHA-256 that names the data in a training record.

        Of file names, sizes and contents (of files above 2 MiB, of the first and the last MiB);
        of a JSONL file its bytes, not those of the pictures; of a hub data set its commit.
        """
        return self._source.identity()

    @property
    def num_bad(self) -> int:
        """Samples left out so far as broken; a shard that breaks off counts as one."""
        return self._progress.num_bad

    @property
    def bad(self) -> tuple[str, ...]:
        """The first of them, as "shard:key: reason"."""
        return self._progress.bad

    def _iterate(self) -> Iterator[StreamSample]:
        while True:
            progress, pieces = self._progress, self._pieces()
            rows = self._rows(pieces, progress.piece, progress.row)
            while True:
                block, after = self._block(rows)
                if after == (progress.piece, progress.row):
                    break  # nothing was left to read
                while block:
                    row = block.pop()
                    progress.taken += 1
                    progress.seen += 1
                    try:
                        sample = to_sample(row, self.config, self._source.folders)
                    except BadSample as error:
                        self._count(row, str(error), len(pieces))
                    else:
                        yield sample
                progress.piece, progress.row = after
                progress.taken = 0
            self._require_samples()
            self._progress = Progress(
                epoch=progress.epoch + 1, num_bad=progress.num_bad, bad=progress.bad
            )

    def _pieces(self) -> list[Piece]:
        """Return what this process reads in the epoch, in order."""
        order = list(range(self._source.num_shards))
        random.Random(f"{self._setting.seed}/{self._progress.epoch}").shuffle(order)
        rank, world_size = self._setting.rank, self._setting.world_size
        num_rows = self._source.num_rows
        if num_rows is None:
            mine = order if self._striped else order[rank::world_size]
            return [Piece(shard) for shard in mine]
        share = sum(num_rows) // world_size
        first, pieces = rank * share, []
        for shard in order:
            start = max(first, 0)
            length = min(num_rows[shard], first + share) - start
            if length > 0:
                pieces.append(Piece(shard, start, length))
            first -= num_rows[shard]
        return pieces

    @property
    def _striped(self) -> bool:
        """Whether every process reads all shards and takes every world_size-th row."""
        shards, processes = self._source.num_shards, self._setting.world_size
        return self._source.num_rows is None and shards % processes > 0

    def _rows(
        self, pieces: list[Piece], first_piece: int, first_row: int
    ) -> Iterator[tuple[Row, tuple[int, int]]]:
        """Yield this process's rows, each with the (piece, row) where reading goes on after it.

        A striped row is given when all processes have theirs, so that all have equally many.
        """
        group = self._setting.world_size if self._striped else 1
        place = self._setting.rank if self._striped else 0
        position, row = 0, None
        for number in range(first_piece, len(pieces)):
            piece = pieces[number]
            start = first_row if number == first_piece else 0
            length = None if piece.length is None else piece.length - start
            loaders = self._source.rows(piece.shard, piece.start + start)
            for index, load in enumerate(itertools.islice(loaders, length), start=start + 1):
                if position % group == place:
                    row = load()
                position += 1
                if position % group == 0:
                    assert row is not None
                    yield row, (number, index)

    def _block(
        self, rows: Iterator[tuple[Row, tuple[int, int]]]
    ) -> tuple[list[Row], tuple[int, int]]:
        """Return the rows of the block that are still to come, last first, and where it ends."""
        progress, setting = self._progress, self._setting
        block, after = [], (progress.piece, progress.row)
        for row, after in itertools.islice(rows, self.config.shuffle_buffer):  # noqa: B007
            block.append(row)
        if self.config.shuffle_buffer > 1:
            place = f"{progress.epoch}/{setting.rank}/{progress.piece}/{progress.row}"
            random.Random(f"{setting.seed}/{place}").shuffle(block)
        else:
            block.reverse()
        del block[len(block) - progress.taken :]
        return block, after

    def _count(self, row: Row, reason: str, num_shards: int) -> None:
        """Note a broken sample; raises UserError when there are too many."""
        progress, limit = self._progress, self.config.max_bad
        text = f"{row.shard}:{row.key}: {reason}"
        # names and reasons are data: nothing of it may steer a terminal
        text = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)[:300]
        progress.seen_bad += 1
        progress.bad_shards += row.ends_shard
        progress.num_bad += 1
        if len(progress.bad) < _KEPT:
            progress.bad += (text,)
        for bad, total, what in (
            (progress.seen_bad, progress.seen, "samples"),
            (progress.bad_shards, num_shards, "shards"),
        ):
            if bad / max(total, _FEW) > limit:
                raise UserError(
                    f"{self.config.source}: {text}; {bad} of {total} {what} are broken, more than "
                    f"max_bad = {limit} allows; mend or remove them, or raise max_bad"
                )

    def _require_samples(self) -> None:
        progress, world_size = self._progress, self._setting.world_size
        if progress.seen == 0 and world_size == 1:
            raise UserError(f"{self.config.source}: has no samples")
        if progress.seen == 0:
            raise UserError(
                f"{self.config.source}: has fewer samples than the {world_size} processes; "
                "start fewer, or give more data"
            )
        if progress.seen == progress.seen_bad:
            raise UserError(
                f"{self.config.source}: none of {progress.seen} samples can be used, the first: "
                f"{progress.bad[0]}"
            )
