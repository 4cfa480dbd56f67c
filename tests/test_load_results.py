"""Results as a table: one row per score, whatever the folder."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import mpm_eval
from mpm_eval import load_results
from mpm_eval.errors import UserError
from tests.stages.leaderboard_runs import add, score

REPOSITORY = Path(__file__).resolve().parents[1]


def test_a_row_is_a_score_with_the_identity_of_its_result(tmp_path: Path) -> None:
    add(tmp_path, "runs/x", score("en", 61.5), score("zh", None, n=0, n_failed=9), version=3)
    english, chinese = load_results(tmp_path).to_dict("records")
    assert (english["task"], english["task_version"], english["model"]) == ("animals", 3, "m")
    assert (english["run"], english["language"], english["value"]) == ("runs/x", "en", 61.5)
    assert (english["ci95_low"], english["ci95_high"]) == (59.1, 63.9)
    assert english["task_sha256"] == "a" * 64 and english["predictions_sha256"] == "d" * 64
    assert pd.isna(chinese["value"]) and pd.isna(chinese["ci95_low"])
    assert (chinese["n"], chinese["n_failed"], chinese["label"]) == (0, 9, "zero-shot")


def test_limited_runs_and_controls_are_in_it_and_can_be_told_apart(tmp_path: Path) -> None:
    add(tmp_path, "x", score("en"))
    add(tmp_path, "quick", score("en"), limit=5)
    add(tmp_path, "grey", score("en"), control="blank")
    table = load_results(str(tmp_path)).set_index("run")
    assert table.loc["quick", "limit"] == 5 and pd.isna(table.loc["x", "limit"])
    assert list(table["control"]) == ["blank", "", ""]


def test_the_types_do_not_depend_on_what_is_missing(tmp_path: Path) -> None:
    add(tmp_path / "a", "x", score("en", None))
    add(tmp_path / "b", "x", score("en"), limit=3)
    first, second = load_results(tmp_path / "a"), load_results(tmp_path / "b")
    assert first.dtypes.to_dict() == second.dtypes.to_dict()
    assert str(first["value"].dtype) == "float64" and str(first["limit"].dtype) == "Int64"


def test_a_result_without_scores_gives_no_rows_and_the_same_columns(tmp_path: Path) -> None:
    path = add(tmp_path, "x", score("en"))
    columns = list(load_results(tmp_path).columns)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "scores": []}))
    table = load_results(tmp_path)
    assert len(table) == 0 and list(table.columns) == columns


def test_a_run_folder_is_a_folder_of_results_too(tmp_path: Path) -> None:
    add(tmp_path, "x", score("en"))
    assert set(load_results(tmp_path / "x")["run"]) == {"."}


def test_the_committed_results_load_whole() -> None:
    folder = REPOSITORY / "results" / "runs"
    table = load_results(folder)
    number = sum(len(json.loads(p.read_text())["scores"]) for p in folder.glob("*/*/result.json"))
    assert len(table) == number > 500
    assert not table.duplicated(["task", "run", "language", "metric", "subset"]).any()


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        (".", "no run in it has a result.json"),
        ("none", "no such folder"),
        ("x/animals", "no run in"),
    ],
)
def test_a_folder_without_results_says_what_to_run(
    tmp_path: Path, folder: str, message: str
) -> None:
    if folder == "x/animals":
        add(tmp_path, "x")
    with pytest.raises(UserError, match=f"{message}.*; make one with: mpm-eval run"):
        load_results(tmp_path / folder)


def test_a_damaged_result_is_named(tmp_path: Path) -> None:
    path = add(tmp_path, "x")
    path.write_text("{")
    with pytest.raises(UserError, match=r"x/animals/result\.json: not valid JSON"):
        load_results(tmp_path)


def test_importing_the_package_imports_no_pandas() -> None:
    code = "import sys, mpm_eval; assert not {'pandas', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'load_result'"):
        mpm_eval.load_result  # noqa: B018 - reading it is the test
