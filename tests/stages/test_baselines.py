"""Baselines: what is kept, the same bytes each time, and every damage as one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpm_eval.errors import UserError
from mpm_eval.items import read_items
from mpm_eval.stages.baselines import (
    list_baselines,
    load_baseline,
    load_side,
    save_baseline,
)
from mpm_eval.stages.gate import gate
from mpm_eval.stages.gate_rules import Rule, Rules
from mpm_eval.stages.pairing import run_sides
from mpm_eval.stages.score import score_run
from tests.stages.conftest import MakeRun, MakeTask


@pytest.fixture
def run(make_task: MakeTask, make_run: MakeRun) -> Path:
    folder = make_run(make_task(), {("3", "de"): "falsch"})
    make_run(make_task("beasts"))
    score_run(folder)
    return folder


@pytest.fixture
def kept(run: Path, tmp_path: Path) -> Path:
    return save_baseline(run, tmp_path / "kept", "main")


def test_a_baseline_holds_the_scores_and_items_of_its_run(run: Path, kept: Path) -> None:
    sides = load_baseline(kept)
    assert list(sides) == ["animals", "beasts"]
    side, made = sides["animals"], run_sides(run)["animals"]
    assert side.items is not None and made.items is not None
    assert side.items.items == made.items.items
    assert [s for s in made.result.scores if s.subset == ""] == list(side.result.scores)
    assert (side.result.model, side.result.data) == (made.result.model, made.result.data)


def test_a_run_passes_the_gate_against_the_baseline_made_of_it(run: Path, kept: Path) -> None:
    rules = Rules((Rule(margin=5.0, min_n=4),))
    report = gate(load_side(kept), load_side(run), rules)
    assert (report.exit_code, len(report.verdicts)) == (0, 6)


def test_saving_twice_writes_the_same_bytes(run: Path, kept: Path) -> None:
    before = {path: path.read_bytes() for path in kept.parent.rglob("*") if path.is_file()}
    save_baseline(run, kept.parent, "main", force=True)
    assert before == {p: p.read_bytes() for p in kept.parent.rglob("*") if p.is_file()}
    assert len(before) == 3


def test_a_baseline_is_replaced_only_by_force_and_then_whole(run: Path, kept: Path) -> None:
    with pytest.raises(UserError, match=r"main\.json: there is a baseline already; give another"):
        save_baseline(run, kept.parent, "main")
    save_baseline(run, kept.parent, "main", ["beasts"], force=True)
    assert list(load_baseline(kept)) == ["beasts"]
    assert [path.name for path in (kept.parent / "main").iterdir()] == ["beasts.parquet"]


def test_a_limited_run_s_baseline_is_named_and_listed_as_limited(
    make_task: MakeTask, make_run: MakeRun, tmp_path: Path
) -> None:
    run = make_run(make_task(), {(str(i), t): None for i in range(4, 8) for t in ("en", "de", "zh")},
                   limit=4)  # fmt: skip
    score_run(run)
    path = save_baseline(run, tmp_path / "kept")
    assert path.name == "m-limit4.json"
    (row,) = list_baselines(tmp_path / "kept")
    assert (row["baseline"], row["model"], row["limit"], row["n"]) == ("m-limit4", "m", "4", 12)
    assert (row["tasks"], row["languages"]) == (["animals"], ["en", "de", "zh"])


def test_a_probe_without_items_has_none_to_keep(run: Path, tmp_path: Path) -> None:
    for task in ("animals", "beasts"):
        path = run / task / "result.json"
        result = json.loads(path.read_text())
        result["task"]["kind"] = "probe"
        path.write_text(json.dumps(result))
        (run / task / "items.parquet").unlink()
    path = save_baseline(run, tmp_path / "kept", "probes")
    assert load_baseline(path)["animals"].items is None
    assert not (tmp_path / "kept" / "probes").exists()


@pytest.mark.parametrize(
    ("name", "tasks", "message"),
    [
        ("main", ["animal"], "unknown task 'animal'; did you mean 'animals'?"),
        ("../main", None, "--name: '../main' is no name of a baseline"),
        ("main.json", None, "--name: 'main.json' is no name of a baseline"),
        (".hidden", None, "--name: '.hidden' is no name"),
    ],
)
def test_what_cannot_be_saved_is_said(
    run: Path, tmp_path: Path, name: str, tasks: list[str] | None, message: str
) -> None:
    with pytest.raises(UserError) as caught:
        save_baseline(run, tmp_path / "kept", name, tasks)
    assert message in str(caught.value) and not (tmp_path / "kept").exists()


def test_a_control_run_is_no_baseline(make_task: MakeTask, make_run: MakeRun, run: Path) -> None:
    path = run / "animals" / "result.json"
    result = json.loads(path.read_text())
    path.write_text(json.dumps({**result, "control": "blank"}))
    with pytest.raises(UserError, match="a run with --control blank is a floor, no baseline"):
        save_baseline(run, run.parent / "kept", "x")


def edited(path: Path) -> None:
    text = path.read_text()
    assert '"value": 87.5' in text
    path.write_text(text.replace('"value": 87.5', '"value": 67.5'))


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def newer(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 2}))


def items_truncated(path: Path) -> None:
    truncated(path.parent / "main" / "animals.parquet")


def items_swapped(path: Path) -> None:
    (path.parent / "main" / "animals.parquet").write_bytes(
        (path.parent / "main" / "beasts.parquet").read_bytes()
    )


def items_missing(path: Path) -> None:
    (path.parent / "main" / "animals.parquet").unlink()


def no_baseline(path: Path) -> None:
    path.write_text('{"a": 1}')


def a_list(path: Path) -> None:
    path.write_text("[]")


def missing(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (edited, r"main\.json: has been edited since it was saved"),
        (truncated, r"main\.json: not valid JSON"),
        (newer, r"main\.json: written by a newer mpm-eval"),
        (items_truncated, r"animals\.parquet: not the items that .*main\.json was saved with"),
        (items_swapped, r"animals\.parquet: not the items that"),
        (items_missing, r"animals\.parquet: no such file; it belongs to"),
        (no_baseline, r"main\.json: not a baseline"),
        (a_list, r"main\.json: not a baseline"),
        (missing, r"main\.json: no such file"),
    ],
)
def test_a_damaged_baseline_is_one_line(
    kept: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(kept)
    with pytest.raises(UserError, match=message) as caught:
        load_side(kept)
    assert "\n" not in str(caught.value)
    if damage is not missing:
        with pytest.raises(UserError, match=message):
            list_baselines(kept.parent)


def test_a_renamed_baseline_and_its_folder_of_items_are_told_apart(kept: Path) -> None:
    with pytest.raises(UserError, match=r"the items of a baseline; give its file: .*main\.json"):
        load_side(kept.parent / "main")
    other = kept.rename(kept.with_name("old.json"))
    with pytest.raises(UserError, match="is the baseline 'main'; give the file its name back"):
        load_side(other)


def test_a_task_name_that_leaves_the_folder_is_refused(kept: Path) -> None:
    from mpm_eval.strict import canonical_sha256

    content: dict[str, Any] = json.loads(kept.read_text())
    content["tasks"][0]["result"]["task"]["name"] = "../../animals"
    digest = {k: v for k, v in content.items() if k != "sha256"}
    kept.write_text(json.dumps({**content, "sha256": canonical_sha256(digest)}))
    with pytest.raises(UserError, match="is no name of a file"):
        load_side(kept)


def test_no_folder_of_baselines_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder; save a baseline with: mpm-eval baseline"):
        list_baselines(tmp_path / "none")


def test_the_committed_baselines_load() -> None:
    folder = Path(__file__).resolve().parents[2] / "results" / "baselines"
    rows = list_baselines(folder)
    assert rows and all(row["n"] > 0 and row["failed"] == 0 for row in rows)
    for row in rows:
        for task, side in load_baseline(Path(row["file"])).items():
            path = folder / row["baseline"] / f"{task}.parquet"
            assert side.items is None or read_items(path).items == side.items.items
