"""The overview, and the commands that make a run again."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from mpm_eval.stages.report.gather import gather
from mpm_eval.stages.report.tables import commands, matrix, shown
from mpm_eval.stages.result_schema import load_result
from mpm_eval.stages.score import score_run
from tests.stages.conftest import MakeRun, MakeTask


def test_the_overview_has_a_cell_per_language_and_a_remark_of_failures(scored_run: Path) -> None:
    (task,) = matrix(gather([scored_run]))
    (row,) = task.rows
    assert (task.name, task.metric) == ("animals", "exact_match")
    assert [score and score.value for score in row.scores] == ["87.5", "87.5", "100.0"]
    assert row.remarks == ("1 of 24 samples failed",)


def test_numbers_have_one_decimal_and_a_true_minus(scored_run: Path) -> None:
    score = load_result(scored_run / "animals" / "result.json").scores[0]
    made = shown(replace(score, value=-12.34, ci95=(-20.0, -0.01)))
    assert (made.value, made.interval) == ("−12.3", "−20.0 to 0.0")
    assert (shown(replace(score, value=None, ci95=None)).interval) == "–"


def command_of(run: Path) -> list[str]:
    (command,) = commands(gather([run]).runs[0])
    return shlex.split(command.text)


def test_the_command_makes_the_run_again(make_task: MakeTask, make_run: MakeRun) -> None:
    task = make_task()
    model = {"name": "x", "spec": "my folder/it's", "sha256": "", "identity": {}}
    run = make_run(task, model=model, limit=4, seed=7, languages=["en", "de"], outputs={
        (str(i), tag): None for i in range(4, 8) for tag in ("en", "de")
    })  # fmt: skip
    score_run(run)
    assert command_of(run) == [
        "mpm-eval", "run", "--task", task.path, "--model", "my folder/it's",
        "--languages", "en,de", "--limit", "4", "--seed", "7",
    ]  # fmt: skip


def test_all_languages_of_the_task_need_no_option(scored_run: Path) -> None:
    assert command_of(scored_run)[-4:] == ["--model", "m", "--seed", "0"]


def test_predictions_of_others_are_scored_again(make_task: MakeTask, make_run: MakeRun) -> None:
    task = make_task()
    model = {"name": "theirs", "spec": "predictions", "sha256": "", "identity": {}}
    run = make_run(task, model=model)
    score_run(run)
    file = str(run / "animals" / "predictions.jsonl")
    assert command_of(run) == [
        "mpm-eval", "score", "--predictions", file, "--task", task.path, "--name", "theirs",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["a; rm -rf ~", "$(id)", "--out"])
def test_a_hostile_name_stays_one_word_of_the_command(
    make_task: MakeTask, make_run: MakeRun, name: str
) -> None:
    run = make_run(make_task(), model={"name": name, "spec": name, "sha256": "", "identity": {}})
    score_run(run)
    assert name in command_of(run)
