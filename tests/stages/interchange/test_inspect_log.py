"""Logs of inspect: epochs, letters, failures, and what is refused in one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpm_eval.errors import UserError
from mpm_eval.stages.interchange.inspect_log import read_inspect
from tests.stages.interchange.conftest import INSPECT, Import, values

Content = dict[str, Any]


def changed(tmp_path: Path, change: Callable[[Content], Any]) -> Path:
    content = json.loads(INSPECT.read_text(encoding="utf-8"))
    change(content)
    path = tmp_path / "log.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_letters_become_numbers_and_an_epoch_is_a_member_of_its_samples_cluster(
    import_logs: Import,
) -> None:
    (log,) = read_inspect([INSPECT])
    found = {r.id: (r.values.get("match"), r.cluster, r.error) for r in log.records}
    assert found == {
        "q1": (1.0, "q1", ""),
        "q2": (0.5, "q2", ""),
        "q3": (0.0, "q3", ""),
        "q1#2": (0.0, "q1", ""),
        "q2#2": (1.0, "q2", ""),
        "q3#2": (None, "q3", "out of time"),
    }
    assert log.records[1].prompt == "Antworte.\n\nFrage 2?"
    result = import_logs([log])
    assert values(result) == {"mean:match": (0.5, 5, 1), "mean:graded": (0.45, 5, 1)}
    assert result.task.name == "org_fragen"
    assert result.scores[0].signature.startswith("mean:graded|from:inspect,0.3.200|v:1|")
    assert result.decoding == {"temperature": 0.5}


def test_its_own_mean_is_over_epochs_first() -> None:
    (log,) = read_inspect([INSPECT])
    assert log.checks["match"].theirs == pytest.approx((0.5 + 0.75 + 0) / 3)
    assert all(check.agrees for check in log.checks.values())


def test_a_score_of_several_values_is_several_metrics(tmp_path: Path) -> None:
    def change(content: Content) -> None:
        for sample in content["samples"]:
            sample["scores"] = {"two": {"value": {"a": 1, "b": "no", "c": [1]}}}

    (log,) = read_inspect([changed(tmp_path, change)])
    assert log.metrics == ("two,a", "two,b")
    assert log.records[0].values == {"two,a": 1.0, "two,b": 0.0}
    assert log.left_out == {"two,c": "a value is list, not one number per sample"}


def test_nan_marks_a_sample_that_a_scorer_could_not_score(
    tmp_path: Path, import_logs: Import
) -> None:
    def change(content: Content) -> None:
        content["samples"][0]["scores"]["match"]["value"] = float("nan")
        content["results"]["scores"] = []

    result = import_logs(read_inspect([changed(tmp_path, change)]))
    assert values(result)["mean:match"] == (0.375, 4, 2)


def test_texts_that_are_kept_apart_are_put_back(tmp_path: Path) -> None:
    def change(content: Content) -> None:
        content["samples"][0]["input"] = "attachment://0ab1"
        content["samples"][0]["attachments"] = {"0ab1": "Eine lange Frage?"}

    (log,) = read_inspect([changed(tmp_path, change)])
    assert log.records[0].prompt == "Eine lange Frage?"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(version=1), "version 1 of the log format, 2 is read"),
        (lambda c: c.pop("version"), "no field 'version'; is this a sample log of inspect?"),
        (lambda c: c.update(status="error"), "the evaluation ended with status 'error'"),
        (lambda c: c.update(samples=[]), "no samples"),
        (lambda c: c["samples"].pop(), "5 samples, its results count 6; the file is cut off"),
        (lambda c: c["samples"].append(c["samples"][0]), "second sample with id 'q1' and epoch 1"),
        (lambda c: c["samples"][1].pop("id"), "sample 2: no field 'id'"),
        (lambda c: c["samples"][1].update(epoch=0), "epoch: expected a number from 1, got 0"),
        (lambda c: c["samples"].__setitem__(0, 3), "sample 1: expected an object"),
        (lambda c: c["samples"][0]["scores"].update(match=1), "scores: match: expected an object"),
        (lambda c: c["samples"][0]["scores"]["match"].pop("value"), "no field 'value'"),
        (
            lambda c: c["samples"][0]["scores"]["match"].update(value=float("inf")),
            "match is inf, which cannot be averaged",
        ),
    ],
)
def test_a_bad_log_is_one_clear_line(
    tmp_path: Path, change: Callable[[Content], Any], message: str
) -> None:
    path = changed(tmp_path, change)
    with pytest.raises(UserError) as error:
        read_inspect([path])
    assert str(error.value).startswith(str(path)) and message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_cut_off_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    path.write_bytes(INSPECT.read_bytes()[:2000])
    with pytest.raises(UserError, match="not valid JSON: "):
        read_inspect([path])
