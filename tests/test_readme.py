"""The README's examples run as they stand, and what it names exists."""

import json
import re
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mpm_eval import backends, metrics
from mpm_eval.cards import open_model
from mpm_eval.metrics import Item, load_metric
from mpm_eval.stages.generate import run_tasks
from mpm_eval.stages.score import score_run
from mpm_eval.tasks import load_task

REPOSITORY = Path(__file__).resolve().parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def example(name: str) -> str:
    """Return the code block that follows the marker of one example."""
    match = re.search(rf"<!-- example: {name} -->\n```\w+\n(.*?)```", README, re.DOTALL)
    assert match, f"README has no example '{name}'"
    return match.group(1)


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    """The README's task with its two samples."""
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (32, 32), "white").save(tmp_path / "photos" / "1.png")
    (tmp_path / "photos" / "samples.jsonl").write_text(example("samples"), encoding="utf-8")
    path = tmp_path / "animals.toml"
    path.write_text(example("task"), encoding="utf-8")
    return path


def module_of(code: str, monkeypatch: pytest.MonkeyPatch) -> str:
    module = types.ModuleType("readme_example")
    module.__dict__["np"] = np
    exec(code, module.__dict__)  # the README's own code
    monkeypatch.setitem(sys.modules, "readme_example", module)
    return "readme_example"


def main_values(run: Path) -> dict[str, Any]:
    (result,) = score_run(run)
    wanted = result["task"]["main_metric"]
    return {
        row["language"]: row["value"]
        for row in result["scores"]
        if row["metric"] == wanted and not row["subset"]
    }


def test_the_task_runs(animals: Path, tmp_path: Path) -> None:
    run = run_tasks(
        [load_task(animals)], open_model("echo"), model_spec="echo", out=tmp_path / "run"
    )
    assert main_values(run) == {"en": 100.0, "de": 100.0}


def test_the_backend_runs(animals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = module_of(example("backend"), monkeypatch)
    monkeypatch.setitem(backends.BACKENDS, "constant", f"{name}:open_constant")
    run = run_tasks(
        [load_task(animals)], open_model("constant"), model_spec="constant", out=tmp_path / "run"
    )
    assert main_values(run) == {"en": 100.0, "de": 0.0}


def test_the_metric_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    name = module_of(example("metric"), monkeypatch)
    monkeypatch.setitem(metrics.METRICS, "brevity", f"{name}:Brevity")
    metric = load_metric("brevity")
    items = [Item(text, ("x",), "en") for text in ("a dog", "a dog in the rain")]
    totals = metric.statistics(items, "en").sum(0)
    assert float(metric.aggregate(totals)) == 50.0


def test_the_examples_are_under_20_lines_of_code() -> None:
    for name in ("task", "backend", "metric"):
        lines = [line for line in example(name).splitlines() if line.strip()]
        assert len(lines) < 20, name


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    for target in ("demo", "test"):
        assert f"make {target}" in README
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    assert "make test" in (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8")


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (REPOSITORY / target).exists(), target


def test_the_sample_lines_are_json() -> None:
    assert [json.loads(line)["language"] for line in example("samples").splitlines()] == [
        "en",
        "de",
    ]
