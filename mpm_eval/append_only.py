"""Append-only files of lines that survive kill -9, in a folder held by one process alone."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from mpm_eval.errors import UserError


@contextlib.contextmanager
def held(folder: Path, or_else: str = "") -> Iterator[None]:
    """Hold a folder for this process alone; it is made where it is missing.

    Raises UserError when another process holds it (`or_else` says what to do beside waiting), and
    when it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("a")
    except OSError as error:
        raise unwritable(folder, error) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{folder}: another process is writing here; wait for it{or_else}"
            ) from None
        except OSError as error:  # e.g. a network folder without locks
            raise unwritable(folder, error) from None
        yield


def append(path: Path, lines: bytes) -> None:
    """Write whole lines in one go and wait until they are on the disk.

    Raises UserError when they cannot be written; the file is then as it was.
    """
    size = path.stat().st_size if path.exists() else 0
    try:
        # one descriptor per batch, unbuffered: nothing is left to flush after a failure
        with path.open("ab", buffering=0) as file:
            view = memoryview(lines)
            while view:
                view = view[file.write(view) :]
            os.fsync(file.fileno())
    except OSError as error:
        with contextlib.suppress(OSError):  # the next process cuts what cannot be cut now
            os.truncate(path, size)
        raise unwritable(path.parent, error) from None


def cut_torn_line(path: Path) -> None:
    """Cut what kill -9 left behind the last line break."""
    if not path.exists():
        return
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        try:
            os.truncate(path, whole)
        except OSError as error:
            raise unwritable(path.parent, error) from None


def unwritable(folder: Path, error: OSError) -> UserError:
    """Return the error for a folder that cannot be written."""
    return UserError(
        f"{folder}: cannot be written ({error.strerror}); what was there is unchanged, "
        "run the same command again when it can be"
    )
