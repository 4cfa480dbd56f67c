"""Small scored runs, one of them hostile, and Chromium without a window."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpm_eval.schema import Prediction
from mpm_eval.stages.score import score_run
from tests.stages.conftest import MakeRun, MakeTask

Chromium = Callable[..., str]
MILLION = "1 MB " * 200_000

HOSTILE = (
    "<script>document.title='taken over'</script>",
    "</script><script>document.title='taken over'</script>",
    "<!--<script>document.title='taken over'",
    "<img src=x onerror=\"document.title='taken over'\">",
    "<svg onload=\"document.title='taken over'\"><a href=\"javascript:document.title='x'\">go</a>",
    "\u202eetirw ot thgir\u202c and \u2067isolated",
    "null \x00 escape \x1b[31m delete \x7f feed \x0c end",
    MILLION,
)


@pytest.fixture
def scored_run(make_task: MakeTask, make_run: MakeRun) -> Path:
    """Return a run of eight samples in three languages: two wrong, one failed."""
    failed = Prediction("2", "zh", "zh 2?", error="out of memory")
    run = make_run(
        make_task(metrics=["exact_match", "fidelity"]),
        {("0", "de"): "the cat is here", ("1", "en"): "wrong", ("2", "zh"): failed},
    )
    score_run(run)
    return run


@pytest.fixture
def hostile_run(make_task: MakeTask, make_run: MakeRun) -> Path:
    """Return a run in which outputs, ids, categories, description and model name are markup."""
    attack = HOSTILE[1]
    rows: list[dict[str, Any]] = [
        {
            "id": f"{i}{attack}",
            "language": tag,
            "question": f"{tag} {i} {attack}",
            "references": [f"{tag} {attack}"],
            "category": f"{attack}{i % 2}",
        }
        for tag in ("en", "ar")
        for i in range(len(HOSTILE))
    ]
    task = make_task(
        "animals", rows, languages=["en", "ar"], description=f"Name {attack} \u202eturned \x1b[31m"
    )
    outputs = {(f"{i}{attack}", "en"): text for i, text in enumerate(HOSTILE)}
    model = {"name": attack, "spec": attack, "sha256": "a" * 64, "identity": {attack: attack}}
    run = make_run(task, outputs, model=model)
    score_run(run)
    return run


@pytest.fixture
def chromium(tmp_path: Path) -> Chromium:
    """Return a function that opens an address and returns the page as it ends up.

    Skips without Chromium; fails when the console has messages other than `refused` of the
    page's policy.
    """
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip(f"none of {', '.join(names)} is installed; install Debian's chromium")

    def run(address: str, *arguments: str, refused: int = 0) -> str:
        done = subprocess.run(
            [
                program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
                "--no-first-run", "--disable-background-networking", "--disable-sync",
                "--disable-component-update", "--enable-logging=stderr", "--hide-scrollbars",
                f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=3000",
                *arguments, address,
            ],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        said = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
        assert len(said) == refused, said
        assert all("Content Security P" in line for line in said)
        return done.stdout

    return run
