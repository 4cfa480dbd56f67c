"""The task files of the benchmarks: what they must say, and prompts in the script of their language."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from mpm_eval.backends.echo import open_echo
from mpm_eval.data import open_dataset
from mpm_eval.errors import UserError
from mpm_eval.metrics import load_metric
from mpm_eval.metrics.fidelity import scripts, scripts_of
from mpm_eval.stages.generate import run_tasks
from mpm_eval.stages.score import score_run
from mpm_eval.tasks import list_tasks, load_task
from tests.data.benchmarks.conftest import (
    write_marvl,
    write_maxm,
    write_mmbench,
    write_multi30k,
    write_xgqa,
    write_xm3600,
    write_xvnli,
)

READERS = (
    "xm3600",
    "multi30k",
    "coco_cn",
    "xflickrco",
    "xgqa",
    "maxm",
    "marvl",
    "xvnli",
    "mmbench",
)
TASKS = {task.name: task for task in list_tasks() if task.data["source"] in READERS}
LANGUAGES = {
    "coco_cn": 1, "marvl": 5, "maxm": 7, "mmbench": 2, "multi30k": 4, "xflickrco_image": 8,
    "xflickrco_text": 8, "xgqa": 8, "xm3600": 36, "xvnli": 5,
}  # fmt: skip


def test_the_benchmarks_are_these_in_so_many_languages() -> None:
    assert {name: len(task.languages) for name, task in TASKS.items()} == LANGUAGES


@pytest.mark.parametrize("name", sorted(TASKS))
def test_a_benchmark_names_licence_source_and_a_pinned_copy_or_says_there_is_none(
    name: str,
) -> None:
    task = TASKS[name]
    assert task.licence and task.citation and str(task.data["origin"]).startswith("https://")
    pinned = re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", str(task.data.get("hub", "")))
    assert bool(pinned) != ("local files only" in task.description)


@pytest.mark.parametrize("name", sorted(TASKS))
def test_prompts_and_options_are_in_the_script_of_their_language(name: str) -> None:
    task = TASKS[name]
    for tag, prompt in task.prompts.items():
        written = scripts(prompt.replace("{question}", ""))
        assert written and written <= scripts_of(tag), tag
    for tag, words in task.data.get("options", {}).items():
        assert all(scripts(word) and scripts(word) <= scripts_of(tag) for word in words), tag
        assert len(set(words)) == len(words)


@pytest.mark.parametrize("name", sorted(TASKS))
def test_a_missing_folder_is_one_line_with_the_place_the_files_and_their_source(
    name: str, root: Path
) -> None:
    task = load_task(name)
    with pytest.raises(UserError) as caught:
        open_dataset(task)
    message = str(caught.value)
    assert "\n" not in message
    assert str(root / str(task.data["path"])) in message
    assert str(task.data["origin"]) in message
    assert str(task.data["file"]).rpartition(".")[2] in message


@pytest.mark.parametrize(
    ("name", "write", "languages"),
    [
        pytest.param("xm3600", write_xm3600, ["en", "quz", "th"], marks=pytest.mark.slow),
        ("multi30k", write_multi30k, ["en", "cs"]),
        ("xgqa", write_xgqa, ["en", "bn"]),
        ("maxm", write_maxm, ["en", "he"]),
        ("marvl", write_marvl, ["sw", "ta"]),
        ("xvnli", write_xvnli, ["en", "ar"]),
        ("mmbench", write_mmbench, ["en", "zh"]),
    ],
)
def test_a_model_that_knows_the_answers_gets_the_best_value(
    name: str, write: Callable[[Path], Path], languages: list[str], root: Path, tmp_path: Path
) -> None:
    write(root)
    task = load_task(name)
    run = run_tasks(
        [task], open_echo("", 0), model_spec="echo", languages=languages, out=tmp_path / "run"
    )
    (result,) = score_run(run)
    found = {
        s["language"]: s["value"]
        for s in result["scores"]
        if s["metric"] == task.main_metric and not s["subset"]
    }
    best = load_metric(task.main_metric).range[1]
    # CIDEr of fewer than four words stays below its best value
    assert found.keys() == set(languages) and result["num_failed"] == 0
    assert all(value == pytest.approx(best) or name == "xm3600" for value in found.values())
