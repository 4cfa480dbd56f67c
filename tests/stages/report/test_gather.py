"""Which results a report is made from, and the mistakes that are one line."""

from pathlib import Path

import pytest

from mpm_eval.errors import UserError
from mpm_eval.stages.report.gather import gather
from mpm_eval.stages.score import score_run
from mpm_eval.strict import write_json
from tests.stages.conftest import MakeRun, MakeTask


def test_tasks_languages_and_names_come_from_the_results(
    make_task: MakeTask, make_run: MakeRun
) -> None:
    runs = [make_run(make_task(), run=name) for name in ("first", "second")]
    for run in runs:
        score_run(run)
    found = gather(runs, languages=["zh", "en"])
    assert [run.name for run in found.runs] == ["m (first)", "m (second)"]
    assert found.tasks == ("animals",)
    assert found.languages == ("en", "zh")
    assert found.runs[0].tasks["animals"].items is not None


def test_missing_or_foreign_items_are_a_problem_of_the_task(scored_run: Path) -> None:
    (scored_run / "animals" / "items.parquet").unlink()
    side = gather([scored_run]).runs[0].tasks["animals"]
    assert side.items is None
    assert "mpm-eval score" in side.problem


def test_mistakes_are_one_line(scored_run: Path, make_task: MakeTask, make_run: MakeRun) -> None:
    unscored = make_run(make_task(), run="unscored")
    for arguments, message in (
        (([scored_run, scored_run],), "given twice"),
        (([unscored],), "not scored yet"),
        (([scored_run / "nowhere"],), "not a run folder"),
        (([scored_run], None, ["fr"]), "--languages: no run has 'fr'"),
        (([scored_run], ["transfer_de"]), "--task: no run has a result of transfer_de"),
        (([scored_run], ["anmals"]), "unknown task 'anmals'"),
    ):
        with pytest.raises(UserError, match=message) as error:
            gather(*arguments)
        assert "\n" not in str(error.value)


def test_a_task_that_is_not_scored_can_be_left_out(scored_run: Path) -> None:
    write_json(scored_run / "other" / "manifest.json", {})
    with pytest.raises(UserError, match="other: not scored yet"):
        gather([scored_run])
    assert gather([scored_run], ["animals"]).tasks == ("animals",)
