"""Lost in translation: right in the pivot language, wrong in another, sample by sample."""

from pathlib import Path

import pytest

from mpm_eval.errors import UserError
from mpm_eval.stages.lost import lost_in_translation
from mpm_eval.stages.score import score_run
from tests.conftest import Command, write_task
from tests.stages.conftest import MakeRun, MakeTask
from tests.stages.test_score import failed

OUTPUTS = {
    ("0", "de"): "falsch",  # lost
    ("1", "de"): "falsch",
    ("1", "en"): "wrong",  # not right in English either
    ("2", "en"): "wrong",
    ("3", "de"): failed("3", "de"),  # nothing is known of it
    ("4", "zh"): "错",
}


@pytest.fixture
def folder(make_task: MakeTask, make_run: MakeRun) -> Path:
    run = make_run(make_task(), OUTPUTS)
    score_run(run)
    return run / "animals"


def test_what_is_right_in_the_pivot_and_wrong_in_a_language_is_listed(folder: Path) -> None:
    german, chinese = lost_in_translation(folder)
    assert (german.language, german.num_right_in_pivot) == ("de", 5)
    (lost,) = german.lost
    assert (lost.id, lost.pivot_output, lost.output, lost.reference) == (
        "0", "en 0", "falsch", "de 0",
    )  # fmt: skip
    assert (chinese.num_right_in_pivot, [one.id for one in chinese.lost]) == (6, ["4"])


def test_one_language_can_be_asked_for(folder: Path) -> None:
    assert [found.language for found in lost_in_translation(folder, ["zh"])] == ["zh"]


def test_a_language_that_was_not_run_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="unknown language 'fr'"):
        lost_in_translation(folder, ["fr"])


def test_a_run_without_the_pivot_has_nothing_to_compare(
    make_task: MakeTask, make_run: MakeRun
) -> None:
    run = make_run(make_task(), languages=["de", "zh"])
    score_run(run)
    with pytest.raises(UserError, match="no samples in the pivot language 'en'"):
        lost_in_translation(run / "animals")


@pytest.mark.slow
def test_the_command_lists_them_and_as_json(mpm_eval: Command, tmp_path: Path) -> None:
    task = write_task(tmp_path)
    assert mpm_eval("run", "--task", task, "--model", "echo:pivot", "--out", "r").returncode == 0
    shown = mpm_eval("show", "r", "--lost")
    assert "small, de: 12 of 12 right in the pivot language are lost" in shown.stdout
    assert '"num_right_in_pivot": 12' in mpm_eval("show", "r", "--lost", "--json").stdout
    wrong = mpm_eval("show", "r", "--lost", "--task", "smoll")
    assert wrong.returncode == 2 and "did you mean 'small'" in wrong.stderr


@pytest.mark.slow
def test_a_control_is_recorded_and_keeps_its_own_run(mpm_eval: Command, tmp_path: Path) -> None:
    task = write_task(tmp_path)
    arguments = ("run", "--task", task, "--model", "echo")
    assert mpm_eval(*arguments, "--control", "blank").returncode == 0
    folder = tmp_path / "results" / "runs" / "echo-blank" / "small"
    assert '"control": "blank"' in (folder / "manifest.json").read_text()
    assert '"control": "blank"' in (folder / "result.json").read_text()
    again = mpm_eval("score", folder.parent)
    assert again.returncode == 0, again.stderr
    mixed = mpm_eval(*arguments, "--out", folder.parent)
    assert mixed.returncode == 2 and "holds a run with control 'blank', not ''" in mixed.stderr


PARAPHRASES = """
[paraphrases]
en = ["Which colour?", "Name it."]
de = ["Welche Farbe?", "Nenne sie."]
"""


@pytest.mark.slow
def test_the_worst_prompt_is_noted(mpm_eval: Command, tmp_path: Path) -> None:
    task = write_task(tmp_path)
    task.write_text(task.read_text() + PARAPHRASES)
    done = mpm_eval("run", "--task", task, "--model", "echo:half", "--out", "r")
    assert done.returncode == 0, done.stderr
    from mpm_eval.stages.result_schema import load_result

    result = load_result(tmp_path / "r" / "small" / "result.json")
    values = {
        s.subset: s.value for s in result.scores
        if s.metric == "exact_match" and s.language == "de"
    }  # fmt: skip
    prompts = [values[f"category=prompt {number}"] for number in (1, 2, 3)]
    notes = {n.name: n.value for n in result.notes if n.language == "de"}
    assert notes["worst_prompt"] == min(filter(None, prompts)) < max(filter(None, prompts))
    assert "with the worst of the prompts" in mpm_eval("show", "r").stdout
