"""Small logs of other programs in exactly their formats, and a way to import them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpm_eval.stages.interchange.imported import Log
from mpm_eval.stages.interchange.run_writer import Choice, write_imported
from mpm_eval.stages.result_schema import Result, load_result

FIXTURES = Path(__file__).parent / "fixtures"
DATE = "2026-01-31T12-00-00.123456"
XNLI_DE = FIXTURES / "lm-eval" / f"samples_xnli_de_{DATE}.jsonl"
XNLI_FR = FIXTURES / "lm-eval" / f"samples_xnli_fr_{DATE}.jsonl"
MGSM = FIXTURES / "lm-eval" / f"samples_mgsm_direct_de_{DATE}.jsonl"
RESULTS = FIXTURES / "lm-eval" / f"results_{DATE}.json"
DOGS = FIXTURES / "lmms-eval" / "20260131_120000_samples_dogs_de.jsonl"
JUDGED = FIXTURES / "vlmevalkit" / "my_vlm_MMBench_DEV_exact_matching_result.tsv"
TOTALS = FIXTURES / "vlmevalkit" / "my_vlm_MMBench_DEV_acc.csv"
INSPECT = FIXTURES / "inspect" / "2026-01-31T12-00-00+00-00_fragen_t.json"

Import = Callable[..., Result]


@pytest.fixture
def import_logs(tmp_path: Path) -> Import:
    """Return a function that imports logs into tmp_path/run and returns the one task's result."""

    def make(logs: list[Log], **choice: Any) -> Result:
        choice = {"name": "m", "language": "de", **choice}
        run, tasks, _ = write_imported(logs, Choice(**choice), tmp_path / "run")
        return load_result(run / tasks[0] / "result.json")

    return make


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def values(result: Result, subset: str = "") -> dict[str, tuple[Any, int, int]]:
    """Return (value, n, n_failed) by metric."""
    return {s.metric: (s.value, s.n, s.n_failed) for s in result.scores if s.subset == subset}
