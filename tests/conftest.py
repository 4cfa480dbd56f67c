"""Shared by all tests: a small local task, and a way to run the command line as a user does."""

# Before torch is imported: two threads in each of two workers wait for each other most of the time.
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image

LANGUAGES = ("en", "de")

TASK = """
version = 1
kind = "{kind}"
description = "Name the colour."
languages = ["en", "de"]
metrics = ["{metric}"]
main_metric = "{metric}"

[data]
source = "jsonl"
path = "pictures"

[prompts]
en = "What is this?"
de = "Was ist das?"
"""


def write_task(folder: Path, kind: str = "generate", number: int = 12, name: str = "small") -> Path:
    """Write a task of `number` samples in two languages, with pictures, and return its file."""
    pictures = folder / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    lines = []
    for index in range(number):
        Image.new("RGB", (16, 16), (index * 9 % 256, 80, 120)).save(pictures / f"{index}.png")
        for language in LANGUAGES:
            line: dict[str, object] = {
                "id": f"s{index}",
                "language": language,
                "image": f"{index}.png",
                "references": [f"{language} colour {index}"],
            }
            if kind == "choose":
                line["options"] = [f"{language} colour {index}", "other", "third"]
                line["answer"] = 0
            lines.append(json.dumps(line))
    (pictures / "samples.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    metric = "accuracy" if kind == "choose" else "exact_match"
    path = folder / f"{name}.toml"
    path.write_text(TASK.format(kind=kind, metric=metric), encoding="utf-8")
    return path


Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def mpm_eval(tmp_path: Path) -> Command:
    """Run `mpm-eval ARGUMENTS` in a process of its own, in an empty folder."""

    def run(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command(arguments), cwd=tmp_path, capture_output=True, text=True, env=environment()
        )

    return run


def command(arguments: Sequence[str | Path]) -> list[str]:
    return [sys.executable, "-m", "mpm_eval", *map(str, arguments)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "120"}
