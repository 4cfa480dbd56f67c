"""Progress on stderr: a bar on a terminal, a line every ten seconds elsewhere."""

import math
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

_LINE_EVERY_S = 10.0
_PATIENCE_S = 2.0  # shorter work shows nothing


class _Progress:
    """What both kinds share: one bar per name, quiet until there is something to wait for."""

    def __init__(self) -> None:
        self._bars: Progress | None = None
        self._ids: dict[str, int] = {}
        self._began = self._told = time.monotonic()

    def __enter__(self):  # type: ignore[no-untyped-def]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def show(self, name: str, done: int, total: int, note: str = "") -> None:
        """Show that `done` of `total` are done."""
        now = time.monotonic()
        if now - self._began < _PATIENCE_S:
            return
        if sys.stderr.isatty():
            self._bar(name, done, total, note)
        elif now - self._told >= _LINE_EVERY_S or (done == total and self._told > self._began):
            self._told = now
            print(f"{name}: {done}/{total}{' ' if note else ''}{note}", file=sys.stderr, flush=True)

    def _bar(self, name: str, done: int, total: int, note: str) -> None:
        if self._bars is None:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
            )

            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._bars.start()
        if name not in self._ids:
            self._ids[name] = self._bars.add_task(name, total=total, note=note)
        self._bars.update(self._ids[name], completed=done, total=total, note=note)  # type: ignore[arg-type]


class SampleProgress(_Progress):
    """Progress of the stage generate: task, samples done, samples in all."""

    def __call__(self, task: str, done: int, total: int) -> None:
        self.show(task, done, total)


class TrainProgress(_Progress):
    """Progress of training: stage, steps done and in all, loss, examples per second."""

    def __call__(self, stage: str, done: int, total: int, loss: float, speed: float) -> None:
        note = "" if math.isnan(loss) else f"loss {loss:.3f}  {speed:.0f} examples/s"
        self.show(stage, done, total, note)
