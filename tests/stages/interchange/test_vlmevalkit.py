"""Judged files of VLMEvalKit: what their cells mean, and what is refused in one line."""

import csv
import json
import sys
from pathlib import Path

import pytest

from mpm_eval.errors import UserError
from mpm_eval.stages.interchange.vlmevalkit import read_vlmevalkit
from tests.stages.interchange.conftest import JUDGED, TOTALS, Import, values


def table(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_row_becomes_a_sample_and_a_call_that_failed_is_never_scored(
    import_logs: Import,
) -> None:
    (log,) = read_vlmevalkit([JUDGED])
    assert [record.id for record in log.records] == ["0", "1", "2", "3"]
    assert log.records[1].output == 'It is blue, "B"'
    assert log.records[1].prompt == "Which\ncolour?\nA. red\nB. blue"
    assert log.records[0].references == ("A",)
    assert log.records[3].error == "Failed to obtain answer via API."
    assert log.kind == "choose"
    result = import_logs([log], task="mmb")
    assert values(result) == {"mean:hit": (pytest.approx(2 / 3), 3, 1)}
    assert values(result, "category=animals") == {"mean:hit": (1.0, 1, 1)}


def test_its_own_total_counts_failed_calls_as_wrong_and_is_compared_as_such() -> None:
    (log,) = read_vlmevalkit([JUDGED, TOTALS])
    assert (log.checks["hit"].theirs, log.checks["hit"].ours) == (0.5, 0.5)


def test_a_total_in_per_cent_is_compared_too(tmp_path: Path) -> None:
    (log,) = read_vlmevalkit([JUDGED, table(tmp_path / "x_acc.csv", '"Overall"\n"50.0"\n')])
    assert log.checks["hit"].agrees


def test_json_rows_are_read_as_those_of_a_table(tmp_path: Path) -> None:
    with JUDGED.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    numbers = [{**row, "index": float(row["index"]), "hit": int(row["hit"])} for row in rows]
    path = table(tmp_path / "x.json", json.dumps(numbers))
    (read,), (expected,) = read_vlmevalkit([path]), read_vlmevalkit([JUDGED])
    assert read.records == expected.records


def test_an_empty_score_and_a_rejected_judgement_are_failures_not_zeros(
    tmp_path: Path, import_logs: Import
) -> None:
    text = "index\tprediction\tscore\na\tx\t1\nb\ty\t\nc\tz\t-1\nd\tw\tnan\n"
    logs = read_vlmevalkit([table(tmp_path / "x.tsv", text)])
    assert values(import_logs(logs, task="t")) == {"mean:score": (1.0, 1, 3)}


def test_a_column_that_is_not_known_is_read_when_it_is_named(tmp_path: Path) -> None:
    path = table(tmp_path / "x.csv", "index,prediction,Bertscore\n1,x,0.5\n")
    (log,) = read_vlmevalkit([path], ["bertscore"])
    assert log.records[0].values == {"bertscore": 0.5}


def test_samples_of_one_picture_are_one_cluster(tmp_path: Path) -> None:
    text = "index,prediction,hit,image_path\n1,x,1,a.png\n2,x,1,a.png\n"
    (log,) = read_vlmevalkit([table(tmp_path / "x.csv", text)])
    assert [record.cluster for record in log.records] == ["a.png", "a.png"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.tsv", "", ": no samples"),
        ("x.tsv", "index\tprediction\thit\n", ": no samples"),
        ("x.tsv", "index\tprediction\n1\tx\n", ": no column of scores (hit, score, "),
        ("x.tsv", "question\thit\nx\t1\n", ": no column 'index'; it has question, hit"),
        ("x.tsv", "index\tprediction\thit\n1\tx\t1\n1\ty\t0\n", ":3: second row with index 1"),
        ("x.tsv", "index\tprediction\thit\n1\tx\t1\n2\ty\n", ":3: 2 cells, the header has 3"),
        ("x.tsv", 'index\tprediction\thit\n1\t"x\t1\n', ": not a table: unexpected end of data"),
        ("x.tsv", "index\tprediction\thit\thit\n1\tx\t1\t1\n", ":2: a column is there twice"),
        ("x.csv", "index,prediction,hit\n,x,1\n", ":2: index is empty"),
        ("x.csv", "index,prediction,hit\n1,x,inf\n", ":2: hit is inf, which cannot be averaged"),
        ("x.json", "[{]", ": not valid JSON"),
        ("x.json", "{}", ": expected a list of rows"),
        ("x.json", "[1]", ": row 1: expected an object"),
        ("x.pkl", "", ": not a table of VLMEvalKit"),
    ],
)
def test_a_bad_table_is_one_clear_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = table(tmp_path / name, text)
    with pytest.raises(UserError) as error:
        read_vlmevalkit([path])
    assert str(path) in str(error.value) and message in str(error.value)
    assert "\n" not in str(error.value)


def test_text_in_a_column_of_scores_leaves_it_out(tmp_path: Path) -> None:
    path = table(tmp_path / "x.csv", "index,prediction,hit,score\n1,x,1,good\n")
    (log,) = read_vlmevalkit([path])
    assert log.metrics == ("hit",)
    assert log.left_out == {"score": "a value is 'good', not one number per sample"}


def test_xlsx_names_the_package_that_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    path = table(tmp_path / "x.xlsx", "")
    with pytest.raises(UserError, match="pip install openpyxl"):
        read_vlmevalkit([path])
