"""What `mpm-eval list` shows."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mpm_eval.data._local import DATA
from mpm_eval.languages import EMOJI_LANGUAGES, GROUPS, LANGUAGES
from mpm_eval.listing import rows
from tests.conftest import Command
from tests.data.benchmarks.conftest import write_xgqa


def ready() -> dict[str, str]:
    return {row["task"]: row["ready offline"] for row in rows("tasks")}


def test_tasks_say_whether_they_are_ready_offline_or_what_they_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DATA, str(tmp_path))
    before = ready()
    assert (before["emoji_choice"], before["xgqa"]) == ("yes", "needs xgqa")
    folder = write_xgqa(tmp_path)
    assert ready()["xgqa"] == "yes"
    (folder / "de/test.json").unlink()
    assert ready()["xgqa"] == "needs xgqa/data/few_shot/de/test.json"


@pytest.mark.slow
def test_the_column_is_in_the_table_of_the_command(mpm_eval: Command) -> None:
    listed = json.loads(mpm_eval("list", "tasks", "--json").stdout)
    assert {"yes"} < {row["ready offline"] for row in listed}


def test_listing_tasks_reads_no_data_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from mpm_eval.listing import rows; rows('tasks'); "
        "print(*{'torch', 'pandas', 'datasets', 'huggingface_hub', 'PIL', 'httpx'}"
        " & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "")


def test_the_emoji_languages_stay_the_first_sixteen() -> None:
    assert tuple(LANGUAGES)[:16] == EMOJI_LANGUAGES == GROUPS["emoji"]
    assert all(tag in LANGUAGES for members in GROUPS.values() for tag in members)
