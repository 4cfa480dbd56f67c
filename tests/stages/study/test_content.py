"""Content with the language ignored, against exact_match and by hand."""

import pytest

from mpm_eval.schema import Prediction
from mpm_eval.stages.study.content import content
from tests.stages.conftest import MakeRun, MakeTask


def test_a_right_answer_in_the_wrong_language_counts(
    make_task: MakeTask, make_run: MakeRun
) -> None:
    task = make_task()
    outputs = {(f"{i}", "de"): f"en {i}" for i in range(8)}
    folder = make_run(task, outputs) / task.name
    found = content(folder, "")
    assert {tag: share.value for tag, share in found.items()} == {"en": 100, "de": 100, "zh": 100}


def test_the_answer_to_another_sample_counts_in_no_language(
    make_task: MakeTask, make_run: MakeRun
) -> None:
    task = make_task()
    folder = make_run(task, {("3", "de"): "en 4", ("4", "de"): ""}) / task.name
    assert content(folder, "")["de"].value == pytest.approx(100 * 6 / 8)


def test_failed_samples_are_counted_and_not_scored(make_task: MakeTask, make_run: MakeRun) -> None:
    task = make_task()
    failed = Prediction("3", "de", "?", "", error="corrupt picture")
    folder = make_run(task, {("3", "de"): failed, ("5", "de"): "no"}) / task.name
    share = content(folder, "")["de"]
    assert (share.value, share.n, share.n_failed) == (pytest.approx(100 * 6 / 7), 7, 1)


def test_only_the_subset_is_counted(make_task: MakeTask, make_run: MakeRun) -> None:
    task = make_task()
    folder = make_run(task, {("3", "de"): "no"}) / task.name
    assert content(folder, "category=detail")["de"].value == pytest.approx(75)
    assert content(folder, "category=conversation")["de"].value == 100
    assert content(folder, "category=other")["de"].value is None
