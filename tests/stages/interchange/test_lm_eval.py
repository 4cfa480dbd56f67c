"""Logs of lm-eval and lmms-eval: what they mean, and what is refused in one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpm_eval.errors import UserError
from mpm_eval.stages.interchange.lm_eval import read_lm_eval
from tests.stages.interchange.conftest import (
    DOGS,
    FIXTURES,
    MGSM,
    RESULTS,
    XNLI_DE,
    Import,
    lines_of,
    values,
    write_lines,
)

Lines = list[dict[str, Any]]


def test_a_choice_is_the_option_with_the_best_log_probability() -> None:
    (log,) = read_lm_eval([XNLI_DE], "lm-eval")
    assert (log.task, log.kind, log.program_version, log.model) == (
        "xnli_de", "choose", "0.4.9", "org/model",
    )  # fmt: skip
    assert [record.output for record in log.records] == ["ja", "nein", "nein", "ja"]
    assert [record.values["acc"] for record in log.records] == [1.0, 0.0, 1.0, 1.0]
    assert log.records[0].prompt == "de premise 0, "
    assert log.checks["acc"].theirs == log.checks["acc"].ours == 0.75
    assert log.limit is None


def test_filters_of_one_sample_are_metrics_of_their_own(import_logs: Import) -> None:
    logs = read_lm_eval([MGSM], "lm-eval")
    assert logs[0].decoding == {"do_sample": False, "until": ["Frage:"]}
    result = import_logs(logs)
    assert values(result) == {
        "mean:exact_match,strict-match": (pytest.approx(1 / 3), 3, 0),
        "mean:exact_match,flexible-extract": (pytest.approx(2 / 3), 3, 0),
    }
    assert {skipped.metric for skipped in result.skipped} == {
        "mean:bleu,strict-match", "mean:bleu,flexible-extract",
    }  # fmt: skip
    assert result.num_samples == 3
    assert result.limit == 3  # of 250: never ranked


def test_the_output_is_what_the_model_wrote_not_what_a_filter_left_of_it() -> None:
    (log,) = read_lm_eval([MGSM], "lm-eval")
    assert log.records[0].output == "Schritt für Schritt … 18"


def test_a_folder_holds_one_log_per_task() -> None:
    logs = read_lm_eval([FIXTURES / "lm-eval"], "lm-eval")
    assert [log.task for log in logs] == ["mgsm_direct_de", "xnli_de", "xnli_fr"]


def test_older_lines_without_filter_and_metrics_are_read(tmp_path: Path) -> None:
    rows = lines_of(XNLI_DE)
    for row in rows:
        del row["filter"], row["metrics"]
    (log,) = read_lm_eval([write_lines(tmp_path / XNLI_DE.name, rows)], "lm-eval")
    assert log.metrics == ("acc",)
    assert not log.checks  # no results beside it
    assert log.program_version == ""


def test_numbers_that_numpy_wrote_as_strings_are_numbers(tmp_path: Path) -> None:
    rows = lines_of(XNLI_DE)
    rows[0]["acc"], rows[1]["acc"] = "True", "0.5"
    (log,) = read_lm_eval([write_lines(tmp_path / XNLI_DE.name, rows)], "lm-eval")
    assert [record.values["acc"] for record in log.records] == [1.0, 0.5, 1.0, 1.0]


def test_lmms_eval_keeps_raw_responses_only_where_they_differ(import_logs: Import) -> None:
    logs = read_lm_eval([DOGS], "lmms-eval")
    assert [r.output for r in logs[0].records] == ["Ja", "<think>…</think>Nein", "Ja"]
    assert [r.cluster for r in logs[0].records] == [
        "images/0.png", "images/0.png", "images/1.png",
    ]  # fmt: skip
    assert logs[0].records[0].prompt == "Ist das ein Hund? (0)"
    result = import_logs(logs)
    assert values(result) == {"mean:accuracy": (pytest.approx(2 / 3), 3, 0)}
    assert result.skipped[0].reason == "a value is a dict, not one number per sample"


def test_a_null_value_is_counted_as_failed_and_not_averaged(
    tmp_path: Path, import_logs: Import
) -> None:
    rows = lines_of(XNLI_DE)
    rows[0]["acc"] = None
    logs = read_lm_eval([write_lines(tmp_path / XNLI_DE.name, rows)], "lm-eval")
    assert values(import_logs(logs)) == {"mean:acc": (pytest.approx(2 / 3), 3, 1)}


def test_the_direction_of_a_metric_is_that_of_the_results(tmp_path: Path) -> None:
    results = json.loads(RESULTS.read_text())
    results["higher_is_better"]["xnli_de"]["acc"] = False
    (tmp_path / RESULTS.name).write_text(json.dumps(results))
    path = write_lines(tmp_path / XNLI_DE.name, lines_of(XNLI_DE))
    (log,) = read_lm_eval([path], "lm-eval")
    assert log.lower_is_better == {"acc"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.append(rows[0]), ":5: second sample with doc_id 0, the first is in "),
        (lambda rows: rows[0].pop("doc_id"), ":1: no field 'doc_id'; is this a sample log of lm-"),
        (lambda rows: rows[1].pop("filtered_resps"), ":2: no field 'filtered_resps'"),
        (lambda rows: rows[2].pop("acc"), ":3: no field 'acc'"),
        (lambda rows: rows[3].update(acc=float("nan")), ":4: acc is nan, which cannot be averaged"),
        (lambda rows: rows[3].update(acc=float("inf")), ":4: acc is inf, which cannot be averaged"),
        (lambda rows: rows[3].update(acc=10**400), ":4: acc is too large"),
        (
            lambda rows: rows.append({**rows[0], "filter": "x", "doc_hash": "other"}),
            ":5: another document with doc_id 0; the file mixes tasks",
        ),
        (lambda rows: rows.clear(), ": no samples; log them with --log_samples"),
    ],
)
def test_a_bad_line_is_one_clear_line(
    tmp_path: Path, change: Callable[[Lines], Any], message: str
) -> None:
    rows = lines_of(XNLI_DE)
    change(rows)
    path = write_lines(tmp_path / "samples.jsonl", rows)
    with pytest.raises(UserError) as error:
        read_lm_eval([path], "lm-eval")
    assert f"{path}{message}" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_line_cut_off_is_named(tmp_path: Path) -> None:
    path = tmp_path / XNLI_DE.name
    path.write_bytes(XNLI_DE.read_bytes()[:-40])
    with pytest.raises(UserError, match=r":4: not valid JSON: .*"):
        read_lm_eval([path], "lm-eval")


def test_samples_that_the_results_count_and_the_log_lacks_are_refused(tmp_path: Path) -> None:
    path = write_lines(tmp_path / XNLI_DE.name, lines_of(XNLI_DE)[:-1])
    with pytest.raises(UserError, match=r"3 samples, .* counts 4; the file is cut off"):
        read_lm_eval([path, RESULTS], "lm-eval")


def test_results_of_another_task_are_refused(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    results.write_text('{"results": {"other": {}}}')
    with pytest.raises(UserError, match="no results of task 'xnli_de'"):
        read_lm_eval([XNLI_DE, results], "lm-eval")


def test_two_logs_of_one_task_are_refused(tmp_path: Path) -> None:
    for date in ("2026-01-31T12-00-00", "2026-02-01T12-00-00"):
        write_lines(tmp_path / f"samples_xnli_de_{date}.jsonl", lines_of(XNLI_DE))
    with pytest.raises(UserError, match="a second log of task 'xnli_de'"):
        read_lm_eval([tmp_path], "lm-eval")


def test_a_folder_without_logs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no sample log of lm-eval in it"):
        read_lm_eval([tmp_path], "lm-eval")
