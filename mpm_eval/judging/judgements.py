"""The judgements of a task folder: append-only JSONL that survives kill -9, and judge.json."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from mpm_eval.append_only import append, cut_torn_line, held
from mpm_eval.errors import UserError
from mpm_eval.judging.protocol import Judging
from mpm_eval.schema import Judgement
from mpm_eval.strict import build, read_json, read_jsonl, to_jsonable, write_json

JUDGEMENTS, JUDGE = "judgements.jsonl", "judge.json"
_MAY_GROW = ("repeats",)


class JudgementFile:
    """The judgements of a task folder, held by this process alone; get one from `open`."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / JUDGEMENTS

    @classmethod
    @contextlib.contextmanager
    def open(cls, folder: Path, judging: Judging) -> "Iterator[JudgementFile]":
        """Yield the file, locked, with half a last line (as kill -9 leaves it) cut off.

        Raises UserError when another process holds the folder, when it holds judgements of
        another judge or protocol (each difference is named), or when it cannot be written.
        """
        with held(folder):
            _agree(folder, judging)
            cut_torn_line(folder / JUDGEMENTS)
            yield cls(folder)

    def append(self, judgement: Judgement) -> None:
        """Write one judgement and wait until it is on the disk; UserError when it cannot be."""
        line = json.dumps(
            to_jsonable(judgement), ensure_ascii=False, sort_keys=True, allow_nan=False
        )
        append(self.path, line.encode("utf-8", "replace") + b"\n")


def read_judging(folder: Path) -> Judging | None:
    """Return the judge and protocol of a task folder; None when nothing was judged in it."""
    path = folder / JUDGE
    return build(Judging, read_json(path), str(path)) if path.is_file() else None


def read_judgements(folder: Path) -> dict[str, Judgement]:
    """Return the judgements of a folder by request; of one asked again, the last.

    Raises UserError with file and line for a bad line, and for half a last one.
    """
    path = folder / JUDGEMENTS
    if not path.is_file():
        return {}
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        raise UserError(
            f"{path}: the last line was cut off when judging stopped; run the same command to "
            "continue"
        )
    found: dict[str, Judgement] = {}
    for number, line in read_jsonl(path):
        judgement = build(Judgement, line, f"{path}:{number}")
        found[judgement.request_sha256] = judgement
    return found


def _agree(folder: Path, judging: Judging) -> None:
    """Write judge.json, or compare it with the one whose judgements are there."""
    old, path = read_judging(folder), folder / JUDGEMENTS
    if path.is_file() and path.stat().st_size:
        if old is None:
            raise UserError(
                f"{folder}: holds {JUDGEMENTS} without {JUDGE}, so nothing says who judged; "
                "move it away"
            )
        different = _differences(old, judging)
        if different:
            raise UserError(
                f"{folder}: was judged with something else: {'; '.join(different)}; judge a copy "
                f"of the run, or delete {JUDGE} and {JUDGEMENTS} in it"
            )
    if old != judging:
        write_json(folder / JUDGE, judging)


def _differences(old: Judging, new: Judging) -> list[str]:
    was, now = to_jsonable(old), to_jsonable(new)
    return [
        f"{name} was {was[name]!r}, is {now[name]!r}"
        for name in was
        if name not in _MAY_GROW and was[name] != now[name]
    ]
