"""What a report says of an answer, and which samples it shows."""

from itertools import pairwise
from pathlib import Path

import pytest

from mpm_eval.metrics import load_metric
from mpm_eval.schema import Sample
from mpm_eval.stages.report.gather import gather
from mpm_eval.stages.report.samples import (
    Answer,
    Group,
    Member,
    TaskSamples,
    flips,
    pick,
    shares,
    task_samples,
    verdict,
)
from mpm_eval.stages.score import score_run
from tests.stages.conftest import MakeRun, MakeTask


@pytest.mark.parametrize(
    ("metric", "value", "in_language", "expected"),
    [
        ("exact_match", 100.0, 100.0, "right"),
        ("exact_match", 0.0, 100.0, "wrong"),
        ("exact_match", 0.0, 0.0, "language"),
        ("exact_match", None, None, "graded"),
        ("exact_match", None, 0.0, "language"),
        ("chrf", 43.2, None, "graded"),
        ("chrf", 0.0, None, "wrong"),
        ("accuracy_above_chance", 100.0, None, "right"),
        ("accuracy_above_chance", -33.3, None, "wrong"),
        ("in_pivot", 0.0, None, "right"),
        ("in_pivot", 100.0, None, "wrong"),
        ("mean:quality", 7.0, None, "graded"),
        ("relative_score", 80.0, None, "graded"),
    ],
)
def test_a_verdict_is_an_end_of_the_range_of_the_metric(
    metric: str, value: float | None, in_language: float | None, expected: str
) -> None:
    assert verdict(value, load_metric(metric), in_language) == expected


def test_answers_carry_verdicts_values_and_errors(scored_run: Path) -> None:
    samples = task_samples(gather([scored_run]), "animals")
    said = {
        (group.id, tag): member.answers[0]
        for group in samples.groups
        for tag, member in group.members.items()
    }
    assert samples.total == 8
    assert samples.metrics == ("exact_match", "fidelity")
    wrong_language = said["0", "de"]
    assert wrong_language == Answer("the cat is here", "language", (0.0, 0.0))
    assert said["1", "en"].verdict == "wrong"  # type: ignore[union-attr]
    assert said["2", "zh"] == Answer("", "failed", (None, None), "out of memory")
    assert said["5", "de"].verdict == "right"  # type: ignore[union-attr]


def test_without_items_answers_are_not_judged(scored_run: Path) -> None:
    (scored_run / "animals" / "items.parquet").unlink()
    samples = task_samples(gather([scored_run]), "animals")
    found = {a.verdict for g in samples.groups for m in g.members.values() for a in m.answers if a}
    assert found == {"unknown", "failed"}
    assert "mpm-eval score" in samples.notes[0]


def test_answers_that_changed_since_scoring_are_not_shown(scored_run: Path) -> None:
    path = scored_run / "animals" / "predictions.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace("wrong", "other"), encoding="utf-8")
    samples = task_samples(gather([scored_run]), "animals")
    assert samples.groups == ()
    assert "predictions have changed" in samples.notes[0]


def test_missing_data_leave_a_note(scored_run: Path, tmp_path: Path) -> None:
    (tmp_path / "animals" / "samples.jsonl").unlink()
    samples = task_samples(gather([scored_run]), "animals")
    assert samples.groups == ()
    assert samples.notes[0].startswith("samples not shown: ")


def test_a_second_run_of_other_data_is_left_out(make_task: MakeTask, make_run: MakeRun) -> None:
    first = make_run(make_task(), run="first")
    score_run(first)
    rows = [{"id": "0", "language": tag, "references": ["x"]} for tag in ("en", "de", "zh")]
    second = make_run(make_task(rows=rows), run="second")
    score_run(second)
    samples = task_samples(gather([second, first]), "animals")
    assert "answers other data" in samples.notes[0]
    assert samples.groups[0].members["en"].answers[1] is None


def group(number: int, *verdicts: str) -> Group:
    sample = Sample(str(number), "en", None, ("a",), str(number))
    answers = tuple(Answer("", verdict, ()) for verdict in verdicts)
    return Group(str(number), {"en": Member(sample, "?", answers)})


def test_a_flip_is_a_right_answer_in_one_run_only() -> None:
    right, wrong, failed, unknown = (
        Answer("", v, ()) for v in ("right", "wrong", "failed", "unknown")
    )
    assert flips([wrong, right]) == 1
    assert flips([right, failed]) == -1
    assert flips([wrong, failed]) == flips([right, right]) == 0
    assert flips([right, unknown]) == flips([right, None]) == flips([right]) == 0


def test_failed_and_flipped_samples_are_picked_first_the_rest_evenly() -> None:
    groups = [group(i, "right", "right") for i in range(100)]
    groups[7], groups[50] = group(7, "failed", "failed"), group(50, "right", "wrong")
    picked = pick(TaskSamples("t", (), tuple(groups), 100, 0, 0, (), None), 12)
    ids = [int(g.id) for g in picked.groups]
    assert len(ids) == 12
    assert ids == sorted(ids)
    assert {7, 50} <= set(ids)
    assert (picked.num_failed, picked.num_flipped) == (1, 1)
    others = [i for i in ids if i not in (7, 50)]
    assert all(8 <= b - a <= 12 for a, b in pairwise(others))


def test_failures_do_not_crowd_out_everything_else() -> None:
    groups = tuple(group(i, "failed" if i < 90 else "right", "right") for i in range(100))
    picked = pick(TaskSamples("t", (), groups, 100, 0, 0, (), None), 20)
    assert picked.num_failed == 5
    assert len(picked.groups) == 20


def test_shares_are_equal_and_none_is_larger_than_its_task() -> None:
    assert shares([5, 0, 1000, 1000], 105) == [5, 0, 50, 50]
    assert shares([3, 4], 100) == [3, 4]
    assert sum(shares([7, 9, 11], 10)) == 10
