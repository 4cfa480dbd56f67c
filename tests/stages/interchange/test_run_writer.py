"""Imported runs: what is written, adding languages, and that every reader of runs takes them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mpm_eval.errors import UserError
from mpm_eval.items import read_items
from mpm_eval.stages.cells import Selection
from mpm_eval.stages.compare import compare_runs
from mpm_eval.stages.interchange.imported import Check, Log, Record
from mpm_eval.stages.interchange.inspect_log import read_inspect
from mpm_eval.stages.interchange.lm_eval import read_lm_eval
from mpm_eval.stages.interchange.run_writer import Choice, write_imported
from mpm_eval.stages.pairing import run_sides
from mpm_eval.stages.result_schema import load_result
from mpm_eval.stats import estimate
from tests.conftest import Command
from tests.stages.interchange.conftest import DOGS, INSPECT, MGSM, XNLI_DE, XNLI_FR, Import, values


def log_of(**fields: object) -> Log:
    records = tuple(
        Record(f"s{i}", "p", "o", ("r",), {"acc": float(i % 2)}, f"c{i // 2}", "a" * 64)
        for i in range(6)
    )
    log = Log("lm-eval", Path("log.jsonl"), "task", "generate", ("acc",), records)
    return replace(log, **fields)  # type: ignore[arg-type]


def files(run: Path) -> dict[str, bytes]:
    return {str(p.relative_to(run)): p.read_bytes() for p in run.rglob("*") if p.is_file()}


def test_a_log_becomes_a_run_that_says_where_it_is_from(tmp_path: Path) -> None:
    run, tasks, notes = write_imported(
        read_lm_eval([XNLI_DE], "lm-eval"), Choice("m", "de"), tmp_path / "run"
    )
    assert (tasks, notes) == (["xnli_de"], [])
    assert sorted(files(run)) == [
        "run.json", "xnli_de/items.parquet", "xnli_de/manifest.json", "xnli_de/predictions.jsonl",
        "xnli_de/result.json",
    ]  # fmt: skip
    result = load_result(run / "xnli_de" / "result.json")
    (score,) = result.scores
    assert (score.value, score.n, score.n_failed, score.label) == (0.75, 4, 0, "unknown")
    assert score.signature.startswith("mean:acc|from:lm-eval,0.4.9|v:1|ci:")
    assert result.versions["lm-eval"] == "0.4.9"
    assert result.model.identity == {"source_model": "org/model"}
    items = read_items(run / "xnli_de" / "items.parquet")
    assert [list(row) for row in items.statistics["mean:acc"] if row is not None] == [
        [1.0, 1.0], [0.0, 1.0], [1.0, 1.0], [1.0, 1.0],
    ]  # fmt: skip


def test_value_and_interval_are_those_of_the_bootstrap_over_clusters(import_logs: Import) -> None:
    (score,) = import_logs([log_of()]).scores
    rows = np.array([[float(i % 2), 1.0] for i in range(6)])
    expected = estimate(rows, [f"c{i // 2}" for i in range(6)], lambda t: t[..., 0] / t[..., 1])
    assert score.value == expected.value
    assert score.ci95 == expected.ci95


def test_importing_twice_changes_no_byte(tmp_path: Path) -> None:
    for out in ("a", "a", "b"):
        write_imported(read_inspect([INSPECT]), Choice("m", "de"), tmp_path / out)
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_languages_of_one_task_are_added_in_any_order_to_the_same_scores(tmp_path: Path) -> None:
    logs = {tag: read_lm_eval([p], "lm-eval") for tag, p in (("de", XNLI_DE), ("fr", XNLI_FR))}
    for out, order in (("a", ("de", "fr")), ("b", ("fr", "de"))):
        for tag in order:
            write_imported(logs[tag], Choice("m", tag, "xnli"), tmp_path / out)
    a, b = (load_result(tmp_path / out / "xnli" / "result.json") for out in "ab")
    assert a.languages == ("de", "fr")
    assert a.scores == b.scores
    assert (a.task, a.data, a.predictions_sha256) == (b.task, b.data, b.predictions_sha256)
    assert {s.language: s.value for s in a.scores} == {"de": 0.75, "fr": 0.5}
    assert a.num_samples == 8
    assert run_sides(tmp_path / "a")["xnli"].items is not None  # they belong to the result
    compared = compare_runs(tmp_path / "a", tmp_path / "b", Selection())
    assert len(compared.cells) == 2


def test_a_language_that_is_there_with_other_content_is_refused(tmp_path: Path) -> None:
    write_imported(read_lm_eval([XNLI_DE], "lm-eval"), Choice("m", "de", "xnli"), tmp_path)
    before = files(tmp_path)
    with pytest.raises(UserError, match="language 'de' is there with other content"):
        write_imported(read_lm_eval([XNLI_FR], "lm-eval"), Choice("m", "de", "xnli"), tmp_path)
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"settings": {"num_fewshot": "5"}}, "must share the program and settings of the task"),
        ({"program": "lmms-eval"}, "must share the program and settings of the task"),
        ({"model": "other"}, 'must share the model: "" is there, "other" is given'),
        ({"decoding": {"temperature": 1}}, "must share the decoding"),
        ({"limit": 6}, "must share the limit"),
        ({"program_version": "2"}, "must share the versions"),
        ({"metrics": ("f1",), "records": ()}, "no metric 'acc'"),
    ],
)
def test_languages_of_another_task_are_refused(
    tmp_path: Path, fields: dict[str, object], message: str
) -> None:
    choice = Choice("m", "de", "t", metrics=("acc",))
    write_imported([log_of()], choice, tmp_path)
    with pytest.raises(UserError, match=message):
        write_imported([log_of(**fields)], replace(choice, language="fr"), tmp_path)


def test_a_language_without_the_main_metric_is_refused(tmp_path: Path) -> None:
    write_imported([log_of()], Choice("m", "de", "t"), tmp_path)
    records = tuple(replace(r, values={"f1": 1.0}) for r in log_of().records)
    with pytest.raises(UserError, match="its main metric is mean:acc, the log has mean:f1"):
        write_imported([log_of(metrics=("f1",), records=records)], Choice("m", "fr", "t"), tmp_path)


def test_an_import_that_was_stopped_is_done_again_by_the_same_command(tmp_path: Path) -> None:
    de, fr = Choice("m", "de", "xnli"), Choice("m", "fr", "xnli")
    for choice, path in ((de, XNLI_DE), (fr, XNLI_FR)):
        write_imported(read_lm_eval([path], "lm-eval"), choice, tmp_path / "whole")
    write_imported(read_lm_eval([XNLI_DE], "lm-eval"), de, tmp_path / "run")
    for name in ("predictions.jsonl", "items.parquet"):  # all but result.json, which is last
        data = (tmp_path / "whole" / "xnli" / name).read_bytes()
        (tmp_path / "run" / "xnli" / name).write_bytes(data)
    write_imported(read_lm_eval([XNLI_FR], "lm-eval"), fr, tmp_path / "run")
    assert files(tmp_path / "run") == files(tmp_path / "whole")


def test_a_metric_that_is_no_mean_of_its_samples_is_left_out_and_said(tmp_path: Path) -> None:
    records = tuple(replace(r, values={**r.values, "perplexity": -2.0}) for r in log_of().records)
    log = log_of(
        metrics=("perplexity", "acc"),
        records=records,
        checks={"perplexity": Check(7.389, -2.0), "acc": Check(0.5, 0.5)},
        checked_with="results.json",
    )
    run, _, notes = write_imported([log], Choice("m", "de"), tmp_path / "a")
    assert notes == [
        "task: left out perplexity: lm-eval reports 7.389, the mean of its samples is -2: it is no "
        "mean of them, or results.json is of another run"
    ]
    result = load_result(run / "task" / "result.json")
    assert result.task.main_metric == "mean:acc"
    assert [skipped.metric for skipped in result.skipped] == ["mean:perplexity"]
    with pytest.raises(UserError, match=r"perplexity: lm-eval reports 7\.389"):
        write_imported([log], Choice("m", "de", metrics=("perplexity",)), tmp_path / "b")


def test_what_was_not_compared_with_the_programs_own_value_is_said(tmp_path: Path) -> None:
    _, _, notes = write_imported([log_of()], Choice("m"), tmp_path / "run")
    assert notes == ["task: not compared with a value of lm-eval itself: acc"]


def test_a_failed_sample_is_counted_and_its_value_never_used(import_logs: Import) -> None:
    records = list(log_of().records)
    records[0] = replace(records[0], error="timeout", values={"acc": 1000.0})
    result = import_logs([log_of(records=tuple(records))])
    assert values(result) == {"mean:acc": (pytest.approx(3 / 5), 5, 1)}
    assert result.num_failed == 1


def test_only_failed_samples_have_no_value(import_logs: Import) -> None:
    records = tuple(replace(r, error="timeout", values={}) for r in log_of().records)
    assert values(import_logs([log_of(records=records)])) == {"mean:acc": (None, 0, 6)}


def test_a_metric_can_be_chosen_and_its_direction_said(import_logs: Import) -> None:
    result = import_logs(
        read_lm_eval([MGSM], "lm-eval"),
        metrics=("exact_match,flexible-extract",),
        lower_is_better=("exact_match,flexible-extract",),
    )
    assert result.task.main_metric == "mean:exact_match,flexible-extract"
    assert [score.higher_is_better for score in result.scores] == [False]


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (Choice("../m"), "--name: '../m' cannot name a folder"),
        (Choice("m", task="a/b"), "--task: 'a/b' cannot name a folder"),
        (Choice("m", "German"), "--language: 'German' is no language tag"),
        (Choice("m", metrics=("f1",)), "no metric 'f1'; known: acc"),
    ],
)
def test_a_bad_choice_is_one_clear_line(tmp_path: Path, choice: Choice, message: str) -> None:
    with pytest.raises(UserError) as error:
        write_imported([log_of()], choice, tmp_path / "run")
    assert message in str(error.value)
    assert not (tmp_path / "run").exists()


def test_several_logs_are_not_one_task(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="2 logs cannot be one task in one language"):
        write_imported([log_of(), log_of()], Choice("m", task="t"), tmp_path / "run")


def test_a_log_that_does_not_name_its_task_asks_for_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not say which task it is of; name it with --task"):
        write_imported([log_of(task="")], Choice("m"), tmp_path / "run")


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds files of something else"):
        write_imported([log_of()], Choice("m"), tmp_path)
    write_imported([log_of()], Choice("m"), tmp_path / "run")
    with pytest.raises(UserError, match="holds a run of another model"):
        write_imported([log_of()], Choice("other"), tmp_path / "run")


@pytest.mark.slow
def test_the_commands_read_an_imported_run(mpm_eval: Command) -> None:
    done = mpm_eval("import", "lmms-eval", DOGS, "--name", "m", "--language", "de", "--out", "run")
    assert done.returncode == 0, done.stderr
    assert "note: dogs_de: left out anls: a value is a dict" in done.stderr
    shown = mpm_eval("show", "run", "--json")
    assert json.loads(shown.stdout)[0]["scores"][0]["value"] == pytest.approx(2 / 3)
    assert mpm_eval("compare", "run", "run").returncode == 0
    report = mpm_eval("report", "run", "--out", "report.html")
    assert report.returncode == 0, report.stderr
    again = mpm_eval("score", "run")
    assert again.returncode == 2
    assert "imported from another program" in again.stderr and again.stderr.count("\n") == 1


@pytest.mark.slow
def test_an_unknown_format_and_a_missing_file_are_one_line(mpm_eval: Command) -> None:
    for format_, message in (("lmeval", "did you mean 'lm-eval'?"), ("inspect", "no such file")):
        failed = mpm_eval("import", format_, "x.eval", "--name", "m")
        assert failed.returncode == 2
        assert message in failed.stderr and failed.stderr.count("\n") == 1
