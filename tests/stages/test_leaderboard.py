"""Leaderboards: what is shown, what is left out, and that nothing else changes a byte."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from mpm_eval.errors import UserError
from mpm_eval.schema import Score
from mpm_eval.stages.leaderboard import escape, write_leaderboard
from mpm_eval.stages.result_schema import (
    DataIdentity,
    ModelIdentity,
    Result,
    TaskIdentity,
    ZeroShot,
)
from mpm_eval.strict import write_json

SIGNATURE = "exact_match|v:1|ci:bootstrap,percentile|resamples:2000|seed:0|clusters:80"


def score(language: str, value: float | None = 50.0, **fields: Any) -> Score:
    content: dict[str, Any] = {
        "metric": "exact_match",
        "language": language,
        "value": value,
        "ci95": None if value is None else (value - 2.4, value + 2.4),
        "n": 100,
        "n_failed": 0,
        "higher_is_better": True,
        "signature": SIGNATURE,
        "label": "pivot" if language == "en" else "zero-shot",
        **fields,
    }
    return Score(**content)


def add(
    runs: Path,
    run: str,
    *scores: Score,
    model: str = "m",
    task: str = "animals",
    version: int = 1,
    task_sha256: str = "a" * 64,
    data_sha256: str = "b" * 64,
    limit: int | None = None,
    kind: str = "generate",
    main_subset: str = "",
) -> Path:
    shown = scores or (score("en"), score("zh"))
    languages = tuple(dict.fromkeys(s.language for s in shown))
    result = Result(
        schema_version=1,
        task=TaskIdentity(
            task, version, task_sha256, kind, shown[0].metric, main_subset, "en", "Name it"
        ),
        model=ModelIdentity(model, "c" * 64, model, {}),
        data=DataIdentity(data_sha256, {}),
        decoding={},
        seed=0,
        limit=limit,
        languages=languages,
        num_samples=200,
        num_failed=0,
        predictions_sha256="d" * 64,
        versions={},
        zero_shot={tag: ZeroShot("unknown", "") for tag in languages},
        scores=tuple(shown),
        skipped=(),
    )
    path = runs / run / task / "result.json"
    write_json(path, result)
    return path


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "results" / "runs"


def board(runs: Path, **options: Any) -> str:
    path = write_leaderboard(runs, runs.parent, **options)[0]
    return path.read_text(encoding="utf-8")


def test_a_row_has_value_half_width_and_mark_per_language_in_the_usual_order(runs: Path) -> None:
    add(runs, "x", score("fr", 10, label="supervised"), score("zh", 61.26), score("en", 70))
    text = board(runs)
    assert "| model | en | zh | fr |" in text
    assert "| m | 70.0 ±2.4 P | 61.3 ±2.4 Z | 10.0 ±2.4 S |" in text
    for mark in ("**P** pivot", "**Z** zero-shot", "**Q** quasi", "**S** sup", "**?** unknown"):
        assert mark in text


def test_below_the_table_are_n_metric_signature_and_version(runs: Path) -> None:
    add(runs, "x", version=3)
    text = board(runs)
    assert "n = 100 in every cell." in text
    assert "Main metric: exact_match." in text
    assert "- Signature: `exact_match|v:1`" in text
    assert "- Intervals: `bootstrap,percentile|resamples:2000|seed:0`" in text
    assert f"Task version 3 (`{'a' * 12}`)" in text
    assert "n_failed" not in text


def test_failures_and_unequal_n_are_named(runs: Path) -> None:
    add(runs, "x", score("en"), score("zh", n=98, n_failed=2))
    text = board(runs)
    assert "n of m: en 100, zh 98." in text
    assert "Failed, not scored (n_failed) of m: zh 2." in text


def test_models_scored_with_other_settings_are_told_apart(runs: Path) -> None:
    add(runs, "x", model="old")
    add(runs, "y", score("en", signature="exact_match|v:2|ci:none"), model="new")
    text = board(runs)
    assert "- Signature (en) of new: `exact_match|v:2`" in text
    assert "- Signature (en, zh) of old: `exact_match|v:1`" in text
    assert "Not all models of this table were scored with the same settings." in text


def test_a_missing_language_or_value_is_a_dash(runs: Path) -> None:
    add(runs, "x", score("en"), score("zh", None, n=0, n_failed=100), model="a")
    add(runs, "y", score("en"), model="b")
    text = board(runs)
    assert "| a | 50.0 ±2.4 P | – |" in text
    assert "| b | 50.0 ±2.4 P | – |" in text


def test_the_main_subset_is_what_is_shown(runs: Path) -> None:
    cell = "cell=unseen"
    add(runs, "x", score("en", 90), score("en", 40, subset=cell), main_subset=cell)
    text = board(runs)
    assert "| m | 40.0 ±2.4 P |" in text
    assert "Main metric: exact_match, on cell=unseen." in text
    assert "90.0" not in text


def test_transfer_has_a_section_without_the_pivot(runs: Path) -> None:
    add(runs, "x", score("en"), score("zh"),
        score("zh", 12.5, metric="transfer_gap"), score("zh", 75, metric="retention"))  # fmt: skip
    text = board(runs)
    gap = text[text.index("### Transfer gap") : text.index("### Retention")]
    assert "| model | zh |" in gap
    assert "| m | 12.5 ±2.4 Z |" in gap
    assert "| m | 75.0 ±2.4 Z |" in text[text.index("### Retention") :]


def test_a_probe_has_a_table_per_metric_and_only_its_headline_layer(runs: Path) -> None:
    rows = [score("zh", 33, metric=m, subset=s, label="unknown")
            for m in ("retrieval_p1", "retrieval_floor") for s in ("", "layer=1")]  # fmt: skip
    add(runs, "x", *rows, task="alignment", kind="probe")
    text = board(runs)
    for metric in ("retrieval_p1", "retrieval_floor"):
        part = text[text.index(f"### {metric}\n") :]
        assert "| model | zh |\n|---|--:|\n| m | 33.0 ±2.4 ? |\n\n" in part
    assert "layer" not in text


def test_csv_and_json_have_every_score_unrounded(runs: Path) -> None:
    third = 100 / 3
    add(runs, "x", score("en", third), score("en", 1.5, metric="chrf", subset="category=a"),
        score("zh", None, n=0))  # fmt: skip
    paths = write_leaderboard(runs, runs.parent)
    assert [p.name for p in paths] == ["leaderboard.md", "leaderboard.csv", "leaderboard.json"]
    with paths[1].open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["metric"], r["language"], r["subset"]) for r in rows] == [
        ("exact_match", "en", ""), ("chrf", "en", "category=a"), ("exact_match", "zh", ""),
    ]  # fmt: skip
    assert float(rows[0]["value"]) == third
    assert float(rows[0]["ci95_low"]) == third - 2.4
    assert (rows[0]["n"], rows[0]["label"], rows[0]["main_metric"]) == ("100", "pivot", "True")
    assert rows[2]["value"] == rows[2]["ci95_low"] == ""
    content = json.loads(paths[2].read_text())
    assert content["rows"][0]["value"] == third
    assert content["rows"][2]["value"] is None
    assert list(content["rows"][0]) == sorted(content["rows"][0])


def test_the_same_results_give_the_same_bytes_in_any_order_of_writing(runs: Path) -> None:
    add(runs, "x", model="b")
    add(runs, "y", model="a")
    first = [p.read_bytes() for p in write_leaderboard(runs, runs.parent)]
    for name in ("x", "y"):
        (runs / name / "animals" / "result.json").unlink()
    add(runs, "y", model="a")
    add(runs, "x", model="b")
    assert [p.read_bytes() for p in write_leaderboard(runs, runs.parent)] == first
    text = first[0].decode()
    assert text.index("| a |") < text.index("| b |")


def test_the_header_is_the_command_that_makes_the_files(runs: Path) -> None:
    add(runs, "x")
    add(runs, "x", task="beasts")
    text = board(runs, tasks=["animals"], languages=["zh", "en"])
    assert (
        "`mpm-eval leaderboard --runs results/runs --out results --task animals "
        "--languages zh,en`" in text
    )
    assert "beasts" not in text


def test_languages_choose_the_columns_and_the_rows(runs: Path) -> None:
    add(runs, "x", score("en"), score("zh"), score("de"))
    text = board(runs, languages=["de"])
    assert "| model | de |" in text
    content = json.loads((runs.parent / "leaderboard.json").read_text())
    assert {r["language"] for r in content["rows"]} == {"de"}


def test_a_limited_run_is_left_out_with_a_reason(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(runs, "x")
    add(runs, "quick", model="quick", limit=5)
    text = board(runs)
    reason = "quick/animals: limited to 5 samples per language"
    assert f"- {reason}" in text[text.index("## Left out") :]
    assert reason in capsys.readouterr().err
    assert "| quick |" not in text
    assert json.loads((runs.parent / "leaderboard.json").read_text())["left_out"] == [reason]


def test_only_limited_runs_make_no_leaderboard(runs: Path) -> None:
    add(runs, "quick", limit=5)
    with pytest.raises(UserError, match=r"every result is left out.*limited to 5"):
        board(runs)


def test_older_versions_of_a_task_are_left_out(runs: Path) -> None:
    add(runs, "old", model="old", version=1, task_sha256="1" * 64)
    add(runs, "new", model="new", version=2)
    text = board(runs)
    assert "| new |" in text
    assert "| old |" not in text
    assert "old/animals: version 1 of the task, the newest is 2" in text


def test_one_version_with_two_task_files_or_data_is_refused(runs: Path) -> None:
    add(runs, "x")
    add(runs, "y", task_sha256="1" * 64)
    with pytest.raises(UserError, match=r"animals version 1: 'x' and 'y'.*different task files"):
        board(runs)
    add(runs, "y", data_sha256="1" * 64)
    with pytest.raises(UserError, match=r"animals version 1: 'x' and 'y'.*different data"):
        board(runs)


def test_two_runs_of_one_name_are_told_apart_by_their_folder(runs: Path) -> None:
    add(runs, "first")
    add(runs, "deep/second")
    text = board(runs)
    assert "| m (first) |" in text
    assert "| m (deep/second) |" in text


def test_an_empty_folder_says_what_to_run(runs: Path) -> None:
    with pytest.raises(UserError, match=r"no result.json in it; make one with: mpm-eval run"):
        board(runs)


def test_an_unknown_task_is_named(runs: Path) -> None:
    add(runs, "x")
    with pytest.raises(UserError, match="unknown task 'animal'; did you mean 'animals'"):
        board(runs, tasks=["animal"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mpm-tiny", "mpm-tiny"),
        ("my_model", "my_model"),
        ("a|b", r"a\|b"),
        ("<img src=x>", "&lt;img src=x&gt;"),
        ("**bold** `code` [x](y)", r"\*\*bold\*\* \`code\` \[x\](y)"),
        ("two\nlines", "two lines"),
        (r"back\|slash", r"back\\\|slash"),
        ("_x_", r"\_x\_"),
    ],
)
def test_names_are_shown_as_they_are(text: str, expected: str) -> None:
    assert escape(text) == expected


def test_a_hostile_model_name_stays_in_its_cell(runs: Path) -> None:
    add(runs, "x", model="evil | 99.9 |\n| <script>")
    (row,) = [line for line in board(runs).splitlines() if "evil" in line]
    assert row.replace(r"\|", "").count("|") == 4
    assert "<" not in row
