"""Exports: tidy tables, logs of inspect, and the way back."""

import csv
import json
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mpm_eval.errors import UserError
from mpm_eval.items import read_items
from mpm_eval.schema import Prediction
from mpm_eval.stages.interchange.export import COLUMNS, export_table
from mpm_eval.stages.interchange.export_inspect import export_inspect
from mpm_eval.stages.interchange.inspect_log import read_inspect
from mpm_eval.stages.interchange.run_writer import Choice, write_imported
from mpm_eval.stages.result_schema import load_result
from mpm_eval.stages.score import score_run
from tests.conftest import Command
from tests.stages.conftest import MakeRun, MakeTask
from tests.stages.interchange.conftest import INSPECT

WRONG, FAILED = ("3", "de"), ("4", "de")


@pytest.fixture
def run(make_task: MakeTask, make_run: MakeRun) -> Path:
    """A scored run of eight samples in three languages: one failed in German, two are wrong."""
    failed = Prediction("4", "de", "de 4?", "", (), "out of memory")
    folder = make_run(
        make_task(), {WRONG: 'a "wrong"\nanswer', ("1", "zh"): "wrong", FAILED: failed}
    )
    score_run(folder)
    return folder


def header_of(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        content: dict[str, Any] = json.loads(archive.read("header.json"))
    return content


def test_a_row_is_a_sample_in_one_language(run: Path, tmp_path: Path) -> None:
    written, notes = export_table(run, tmp_path / "t.parquet", "parquet")
    assert (written, notes) == ([tmp_path / "t.parquet"], [])
    table = pd.read_parquet(written[0])
    assert list(table.columns) == [*COLUMNS, "exact_match"]
    assert len(table) == 24
    rows = table.set_index(["id", "language"])
    assert rows.loc[("0", "de"), "exact_match"] == 100.0
    assert rows.loc[WRONG, "exact_match"] == 0.0
    assert rows.loc[WRONG, "output"] == 'a "wrong"\nanswer'
    assert list(rows.loc[WRONG, "references"]) == ["de 3"]
    assert rows.loc[WRONG, "question"] == "de 3?"
    assert rows.loc[WRONG, "category"] == "detail"
    assert rows.loc[WRONG, "cluster"] == "picture 1"
    assert rows.loc[FAILED, "error"] == "out of memory"
    assert pd.isna(rows.loc[FAILED, "exact_match"])


def test_the_mean_of_a_column_is_the_score(run: Path, tmp_path: Path) -> None:
    export_table(run, tmp_path / "t.parquet", "parquet")
    means = pd.read_parquet(tmp_path / "t.parquet").groupby("language")["exact_match"].mean()
    result = load_result(run / "animals" / "result.json")
    for score in result.scores:
        if (score.metric, score.subset) == ("exact_match", ""):
            assert means[score.language] == pytest.approx(score.value)


def test_csv_holds_the_same_with_references_as_json(run: Path, tmp_path: Path) -> None:
    export_table(run, tmp_path / "t.csv", "csv")
    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as file:
        rows = {(r["id"], r["language"]): r for r in csv.DictReader(file)}
    assert len(rows) == 24
    assert rows[WRONG]["output"] == 'a "wrong"\nanswer'
    assert json.loads(rows[WRONG]["references"]) == ["de 3"]
    assert (rows[WRONG]["exact_match"], rows[FAILED]["exact_match"]) == ("0.0", "")


def test_exporting_twice_gives_the_same_bytes(run: Path, tmp_path: Path) -> None:
    for out in ("a", "b"):
        export_inspect(run, tmp_path / out)
        export_table(run, tmp_path / out / "t.parquet", "parquet")
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_a_run_whose_data_are_gone_is_exported_without_them(run: Path, tmp_path: Path) -> None:
    (tmp_path / "animals" / "samples.jsonl").unlink()
    _, notes = export_table(run, tmp_path / "t.parquet", "parquet")
    assert notes[0].startswith("animals: without questions, references and pictures: ")
    table = pd.read_parquet(tmp_path / "t.parquet")
    assert table["references"].isna().all()
    assert table["exact_match"].notna().sum() == 23


def test_what_is_not_scored_is_refused(make_task: MakeTask, make_run: MakeRun) -> None:
    folder = make_run(make_task())
    with pytest.raises(UserError, match="not scored yet"):
        export_table(folder, folder / "t.csv", "csv")


def test_items_of_other_predictions_are_refused(run: Path, tmp_path: Path) -> None:
    path = run / "animals" / "result.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "predictions_sha256": "0" * 64}))
    with pytest.raises(UserError, match="not of the result beside it"):
        export_table(run, tmp_path / "t.csv", "csv")


def test_a_log_of_inspect_has_the_fields_that_its_reader_requires(
    run: Path, tmp_path: Path
) -> None:
    written, _ = export_inspect(run, tmp_path / "logs")
    assert [path.name for path in written] == [
        "animals_en.eval", "animals_de.eval", "animals_zh.eval",
    ]  # fmt: skip
    header = header_of(written[1])
    assert (header["version"], header["status"]) == (2, "success")
    # fields without a default in inspect_ai's EvalSpec, EvalScore and EvalMetric
    assert {"created", "task", "dataset", "model", "config"} <= header["eval"].keys()
    (scorer,) = header["results"]["scores"]
    assert {"name", "scorer", "metrics"} <= scorer.keys()
    assert scorer["metrics"]["mean"]["value"] == pytest.approx(600 / 7)
    assert (scorer["scored_samples"], scorer["unscored_samples"]) == (7, 1)
    with zipfile.ZipFile(written[1]) as archive:
        sample = json.loads(archive.read("samples/3_epoch_1.json"))
        failed = json.loads(archive.read("samples/4_epoch_1.json"))
        summaries = json.loads(archive.read("summaries.json"))
    assert {"id", "epoch", "input", "target"} <= sample.keys()
    assert sample["target"] == ["de 3"]
    assert sample["scores"] == {"exact_match": {"value": 0.0}}
    assert failed["error"]["message"] == "out of memory"
    assert failed["scores"] == {}
    assert [s["id"] for s in summaries] == [str(i) for i in range(8)]


@pytest.mark.parametrize("from_log", [False, True])
def test_export_to_inspect_and_import_gives_the_same_items_and_scores(
    run: Path, tmp_path: Path, from_log: bool
) -> None:
    if from_log:
        run, _, _ = write_imported(read_inspect([INSPECT]), Choice("m", "de"), tmp_path / "first")
    task = next(p.parent for p in run.glob("*/result.json")).name
    for path in export_inspect(run, tmp_path / "logs")[0]:
        language = path.stem.rpartition("_")[2]
        write_imported(read_inspect([path]), Choice("m", language), tmp_path / "back")
    before, after = (read_items(r / task / "items.parquet") for r in (run, tmp_path / "back"))
    by_key = {item.key: item for item in after.items}
    assert [by_key[item.key] for item in before.items] == list(before.items)
    old, new = (load_result(r / task / "result.json") for r in (run, tmp_path / "back"))
    scores = {(s.metric.removeprefix("mean:"), s.language, s.subset): s for s in new.scores}
    compared = 0
    for score in old.scores:
        if "|of:" not in score.signature:  # a gap or a retention is of two languages
            found = scores[score.metric.removeprefix("mean:"), score.language, score.subset]
            assert found.value == pytest.approx(score.value)
            if "ci:wilson" not in score.signature:  # that of a proportion in per cent
                assert found.ci95 == pytest.approx(score.ci95)
            assert (found.n, found.n_failed) == (score.n, score.n_failed)
            compared += 1
    assert compared >= 2


def test_pictures_are_put_in_only_when_asked_for(
    make_task: MakeTask, make_run: MakeRun, tmp_path: Path
) -> None:
    from PIL import Image

    rows = [
        {"id": "0", "language": "en", "question": "?", "references": ["x"], "image": "a.png"},
        {"id": "1", "language": "en", "question": "?", "references": ["x"], "image": "b.png"},
    ]
    task = make_task("pictures", rows, languages=["en"])
    Image.new("RGB", (4, 4)).save(tmp_path / "pictures" / "a.png")
    (tmp_path / "pictures" / "b.png").write_bytes(b"no picture")
    folder = make_run(task)
    score_run(folder)
    for images in (False, True):
        (path,), notes = export_inspect(folder, tmp_path / "logs", images=images)
        with zipfile.ZipFile(path) as archive:
            sample = json.loads(archive.read("samples/0_epoch_1.json"))
            broken = json.loads(archive.read("samples/1_epoch_1.json"))
        assert isinstance(broken["input"], str)
        if images:
            text, picture = sample["input"][0]["content"]
            assert text == {"type": "text", "text": "?"}
            assert picture["image"].startswith("data:image/png;base64,iVBOR")
            assert notes[0].startswith("pictures: picture b.png left out: ")
        else:
            assert sample["input"] == "?"
            assert notes == []


def test_an_id_that_leads_out_of_a_log_is_refused(
    make_task: MakeTask, make_run: MakeRun, tmp_path: Path
) -> None:
    rows = [{"id": "../x", "language": "en", "question": "?", "references": ["x"]}]
    folder = make_run(make_task("odd", rows, languages=["en"]))
    score_run(folder)
    with pytest.raises(UserError, match=r"sample id '\.\./x' cannot name a file"):
        export_inspect(folder, tmp_path / "logs")


@pytest.mark.slow
def test_the_command_writes_and_names_its_files(run: Path, mpm_eval: Command) -> None:
    done = mpm_eval("export", run, "--to", "csv", "--out", "t.csv")
    assert (done.returncode, done.stdout) == (0, "t.csv\n"), done.stderr
    for arguments, message in (
        (("--to", "xml", "--out", "x"), "unknown format 'xml'"),
        (("--to", "csv", "--out", "x", "--images"), "--images: goes with --to inspect"),
        (("--to", "csv", "--out", "x", "--task", "animal"), "did you mean 'animals'?"),
    ):
        failed = mpm_eval("export", run, *arguments)
        assert failed.returncode == 2
        assert message in failed.stderr and failed.stderr.count("\n") == 1
