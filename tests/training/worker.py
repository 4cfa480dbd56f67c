"""Trains `tiny` in a process of its own, for tests that launch several or kill one."""

import json
import os
import sys
from pathlib import Path

from training.interface import train


def main(out: str, *overrides: str) -> None:
    """Print one line [stage, steps done, mean loss of the last steps] per step, once in all."""

    def told(stage: str, done: int, _total: int, loss: float, _speed: float) -> None:
        if os.environ.get("RANK", "0") == "0":
            print(json.dumps([stage, done, loss]), flush=True)

    train("tiny", Path(out), overrides, told)


if __name__ == "__main__":
    main(*sys.argv[1:])
