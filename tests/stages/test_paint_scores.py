"""Scores of painted pictures, and everything that reads a result with numbers of whole sets."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from mpm_eval.errors import UserError
from mpm_eval.items import read_items
from mpm_eval.stages.cells import Selection
from mpm_eval.stages.compare import NOT_TESTED, compare_runs
from mpm_eval.stages.gate import gate
from mpm_eval.stages.gate_rules import Rule, Rules
from mpm_eval.stages.generate import run_tasks
from mpm_eval.stages.interchange.export import export_table
from mpm_eval.stages.leaderboard import write_leaderboard
from mpm_eval.stages.pairing import run_sides
from mpm_eval.stages.report import write_report
from mpm_eval.stages.score import score_predictions, score_run
from mpm_eval.stages.show import print_run
from tests.stages.paint_runs import Breaking, Eyes, Painter, colour, load, looked

__all__ = ["looked"]
pytestmark = pytest.mark.slow  # a hundred pictures a run
NUMBER = 105  # a hundred candidates and a few more
FEW: dict[str, Any] = {
    "number": 12,
    "metrics": ("clip_score", "fd_efficientnet_lite0", "kid_efficientnet_lite0"),
}


def scored(
    folder: Path, backend: Any = None, out: str = "run", number: int = NUMBER, **fields: Any
) -> dict[str, Any]:
    """Return the result of a run in folder/runs/out."""
    settings = {k: fields.pop(k) for k in ("control", "images_per_prompt", "limit") if k in fields}
    task = load(folder, number, **fields)
    run = run_tasks(
        [task], backend or Painter(), model_spec="x", out=folder / "runs" / out, **settings
    )
    (result,) = score_run(run)
    return result


def values(result: dict[str, Any], subset: str = "") -> dict[tuple[str, str], Any]:
    return {
        (s["metric"], s["language"]): s["value"] for s in result["scores"] if s["subset"] == subset
    }


def test_right_pictures_get_the_best_values_and_wrong_ones_are_counted(
    tmp_path: Path, looked: list[int]
) -> None:
    result = scored(tmp_path)
    found = values(result)
    # German is off by one for the 35 numbers that three divides
    assert found["top1_of_100", "en"] == 100 and found["top1_of_100", "de"] == pytest.approx(
        200 / 3
    )
    assert found["clip_score", "en"] == 100 and found["clip_score", "de"] == pytest.approx(200 / 3)
    assert found["consistency", "de"] == pytest.approx(200 / 3)
    assert ("consistency", "en") not in found
    assert found["diversity", "en"] == 100
    # 35 pairs of German pictures are alike: of 105 * 104 ordered pairs 70 have distance 0
    assert found["diversity", "de"] == pytest.approx(100 * (1 - 70 / (105 * 104)))
    assert found["transfer_gap", "de"] == pytest.approx(100 / 3)
    assert result["num_failed"] == 0 and result["num_samples"] == 2 * NUMBER


def test_identical_sets_have_distance_0_and_a_shift_is_its_square(
    tmp_path: Path, looked: list[int]
) -> None:
    class Shifted(Painter):
        def one(self, request: Any) -> Any:
            return colour(int(request.prompt.split()[1]) + 3)

    assert values(scored(tmp_path))["fd_efficientnet_lite0", "en"] == pytest.approx(0, abs=1e-6)
    result = scored(tmp_path, Shifted(), "shifted")
    # means 3 apart, covariances equal: |3|² (closed form)
    assert values(result)["fd_efficientnet_lite0", "en"] == pytest.approx(9, rel=1e-6)


def test_every_score_says_how_it_was_made(tmp_path: Path, looked: list[int]) -> None:
    painter = Painter(sampler="ddim", steps="50", guidance="3", device="cpu")
    result = scored(tmp_path, painter)
    signatures = {
        s["metric"]: s["signature"].split("|")
        for s in result["scores"]
        if s["language"] == "de" and not s["subset"] and "|of:" not in s["signature"]
    }
    assert len(signatures) == 6
    for name, parts in signatures.items():
        assert parts[0] == name and "painted:16x16" in parts
        assert "painter:sampler=ddim,steps=50,guidance=3" in parts
    for name in ("fd_efficientnet_lite0", "kid_efficientnet_lite0"):
        assert {"extractor:red", "n:105", "n_ref:105"} < set(signatures[name])
        assert any(part.startswith("reference:") for part in signatures[name])
    assert {"candidates:100", "judged-in:en", "eyes"} < set(signatures["top1_of_100"])
    accuracy = {(n["metric"], n["language"]): n["value"] for n in result["notes"]
                if n["name"] == "scorer_accuracy"}  # fmt: skip
    assert accuracy["clip_score", "de"] == 70 and accuracy["top1_of_100", "de"] == 90


def test_too_few_pictures_cannot_decide_and_failed_ones_leave_the_count(
    tmp_path: Path, looked: list[int]
) -> None:
    result = scored(tmp_path, Breaking(ValueError("x")), number=2)
    rows = {(s["metric"], s["language"]): s for s in result["scores"] if not s["subset"]}
    distance = rows["fd_efficientnet_lite0", "de"]
    assert (distance["value"], distance["n"], distance["n_failed"]) == (None, 1, 1)
    reasons = {(s["metric"], s["language"]): s["reason"] for s in result["skipped"]}
    assert reasons["fd_efficientnet_lite0", "de"].startswith("cannot decide: 1 pictures")
    assert reasons["top1_of_100", "en"] == "needs 100 different texts, there are 2"
    assert (rows["clip_score", "de"]["n"], rows["clip_score", "de"]["n_failed"]) == (1, 1)
    assert rows["consistency", "de"]["n_failed"] == 1
    assert reasons["diversity", "de"] == "needs pictures of two clusters, there is one"


def test_a_run_in_which_every_picture_fails_has_no_values_and_says_why(
    tmp_path: Path, looked: list[int]
) -> None:
    class Broken(Painter):
        def one(self, request: Any) -> Any:
            raise ValueError("x")

    result = scored(tmp_path, Broken(), number=3)
    assert result["num_failed"] == 6 and not any(s["value"] for s in result["scores"])
    assert {s["reason"] for s in result["skipped"] if s["metric"] == "clip_score"} == {
        "no picture was painted"
    }


def test_a_language_that_the_scorer_does_not_know_is_judged_by_the_pivot_alone(
    tmp_path: Path, looked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Eyes, "languages", ("en",))
    result = scored(tmp_path)
    assert ("clip_score", "de") not in values(result)
    assert values(result)["top1_of_100", "de"] == pytest.approx(200 / 3)
    skipped = {(s["metric"], s["language"]): s["reason"] for s in result["skipped"]}
    assert skipped["clip_score", "de"] == "scorer eyes does not know it"


def test_shuffled_prompts_reach_the_floor(tmp_path: Path, looked: list[int]) -> None:
    result = scored(tmp_path, control="shuffled")
    assert values(result)["top1_of_100", "en"] == values(result)["clip_score", "en"] == 0
    assert values(result)["fd_efficientnet_lite0", "en"] == pytest.approx(0, abs=1e-6)


def test_pictures_are_looked_at_once_and_again_only_where_they_changed(
    tmp_path: Path, looked: list[int]
) -> None:
    first = scored(tmp_path)
    assert sum(looked) == 3 * NUMBER  # two languages and the real ones
    looked.clear()
    assert score_run(tmp_path / "runs" / "run") == [first] and not looked
    cache = tmp_path / "runs/run/colours/vectors/extractor-de.safetensors"
    cache.write_bytes(cache.read_bytes()[:-5])
    assert score_run(tmp_path / "runs" / "run") == [first] and sum(looked) == NUMBER


def test_a_missing_or_changed_picture_is_not_scored(tmp_path: Path, looked: list[int]) -> None:
    scored(tmp_path, number=3)
    colour(77).save(tmp_path / "runs/run/colours/images/de/s1.png")
    with pytest.raises(UserError, match="1 pictures are missing or not as they were painted"):
        score_run(tmp_path / "runs" / "run")


def test_items_have_a_row_for_numbers_of_pictures_and_none_for_distances(
    tmp_path: Path, looked: list[int]
) -> None:
    scored(tmp_path)
    items = read_items(tmp_path / "runs/run/colours/items.parquet")
    assert set(items.statistics) == {"top1_of_100", "clip_score", "consistency", "diversity"}
    assert len({item.output_sha256 for item in items.items}) > NUMBER
    assert len(items.cell("top1_of_100", "de").items) == NUMBER


def test_compare_pairs_pictures_and_only_lists_distances(tmp_path: Path, looked: list[int]) -> None:
    scored(tmp_path, out="a", **FEW)
    scored(tmp_path, Breaking(colour(250)), out="b", **FEW)
    runs = tmp_path / "runs"
    for metric in ("fd_efficientnet_lite0", "kid_efficientnet_lite0"):
        cells = compare_runs(runs / "a", runs / "b", Selection(metric=metric)).cells
        assert {c.verdict for c in cells} == {NOT_TESTED} and len(cells) == 2
        assert all(c.reason == "no items to pair" and c.difference is not None for c in cells)
    (english,) = compare_runs(runs / "a", runs / "b", Selection(languages=("en",))).cells
    assert english.cell.metric == "clip_score" and english.flips.worse == ("s1",)
    assert english.samples.num_changed_output == 1


def test_settings_of_two_painters_may_differ_but_not_the_extractor(
    tmp_path: Path, looked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    scored(tmp_path, Painter("one", steps="20"), out="a", **FEW)
    scored(tmp_path, Painter("two", steps="50"), out="b", **FEW)
    selection = Selection(metric="fd_efficientnet_lite0")
    assert compare_runs(tmp_path / "runs/a", tmp_path / "runs/b", selection).cells
    path = tmp_path / "runs/b/colours/result.json"
    path.write_text(path.read_text("utf-8").replace("extractor:red", "extractor:blue"), "utf-8")
    with pytest.raises(UserError, match="different metric fd_efficientnet_lite0"):
        compare_runs(tmp_path / "runs/a", tmp_path / "runs/b", selection)


def test_the_gate_needs_a_margin_for_distances_and_tests_pictures(
    tmp_path: Path, looked: list[int]
) -> None:
    scored(tmp_path, out="a", **FEW)
    scored(tmp_path, Breaking(colour(250)), out="b", **FEW)
    sides = [run_sides(tmp_path / "runs" / name) for name in "ab"]
    loose = Rule(metric="*", margin=5.0, probe_margin=1e4, min_n=1)
    report = gate(*sides, Rules((loose,)))
    verdicts = {(v.metric, v.language): v for v in report.verdicts}
    assert len(verdicts) == 6
    assert verdicts["fd_efficientnet_lite0", "en"].reason.startswith("value within probe_margin")
    assert verdicts["clip_score", "en"].p_value is not None
    strict = gate(*sides, Rules((Rule(metric="fd_*", margin=5.0),)))
    assert {v.status for v in strict.verdicts} == {"undecided"}
    assert "give the rule a probe_margin" in strict.verdicts[0].reason


def test_a_leaderboard_ranks_by_pictures_and_lists_distances_without_a_test(
    tmp_path: Path, looked: list[int]
) -> None:
    scored(tmp_path, Painter("first"), out="a", **FEW)
    scored(tmp_path, Breaking(colour(250)), out="b", **FEW)
    write_leaderboard(tmp_path / "runs", tmp_path / "board")
    text = (tmp_path / "board" / "leaderboard.md").read_text("utf-8")
    assert "listed without a paired test" in text and "Transfer gap" in text


def test_a_task_led_by_a_distance_is_listed_without_ranks(
    tmp_path: Path, looked: list[int]
) -> None:
    metrics = ("fd_efficientnet_lite0", "clip_score")
    for name in "ab":
        result = scored(tmp_path, Painter(name), out=name, metrics=metrics, number=12)
    (gap,) = (s for s in result["scores"] if s["metric"] == "transfer_gap")
    distance = values(result)
    assert gap["value"] == pytest.approx(
        distance["fd_efficientnet_lite0", "en"] - distance["fd_efficientnet_lite0", "de"]
    )
    assert gap["ci95"][0] < gap["value"] < gap["ci95"][1] and "|paired|n:12" in gap["signature"]
    write_leaderboard(tmp_path / "runs", tmp_path / "board")
    text = (tmp_path / "board" / "leaderboard.md").read_text("utf-8")
    assert "No rank: a (a distance of whole sets, which no test pairs)" in text


def test_show_says_where_the_pictures_are_and_which_failed(
    tmp_path: Path, looked: list[int]
) -> None:
    scored(tmp_path, Breaking(ValueError("x")), number=3)
    console = Console(record=True, width=200, file=io.StringIO())
    print_run(tmp_path / "runs/run", console)
    text = console.export_text()
    assert "colours/images; see them with: mpm-eval contact-sheet" in text
    assert "failed: s1 (de): ValueError: x" in text
    assert "de: clip_score: the scorer itself is right on 70.0 % of held-out pictures" in text


def test_nobody_elses_lines_are_scored_as_pictures(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a paint task measures pictures"):
        score_predictions(load(tmp_path), tmp_path / "p.jsonl", "m")


def test_a_gap_of_distances_is_over_the_pictures_that_both_languages_have(
    tmp_path: Path, looked: list[int]
) -> None:
    class GermanFails(Painter):
        def one(self, request: Any) -> Any:
            if request.language == "de" and request.prompt.endswith("1"):
                raise ValueError("x")
            return super().one(request)

    metrics = ("fd_efficientnet_lite0",)
    result = scored(tmp_path, GermanFails(), number=12, metrics=metrics)
    (gap,) = (s for s in result["scores"] if s["metric"] == "transfer_gap")
    assert (gap["n"], gap["n_failed"]) == (10, 2) and gap["value"] is not None
    rows = {
        s["language"]: s for s in result["scores"] if s["metric"] == metrics[0] and not s["subset"]
    }
    assert {"n:10", "n_ref:12"} < set(rows["de"]["signature"].split("|"))


def test_export_has_a_column_per_number_of_a_picture(tmp_path: Path, looked: list[int]) -> None:
    scored(tmp_path, number=3)
    export_table(tmp_path / "runs/run", tmp_path / "out.csv", "csv")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["output"] for row in rows if row["id"] == "s1"] == [
        "images/en/s1.png",
        "images/de/s1.png",
    ]
    assert rows[0]["clip_score"] == "100.0" and "fd_efficientnet_lite0" not in rows[0]


def test_a_report_shows_the_sheet_and_escapes_prompts(tmp_path: Path, looked: list[int]) -> None:
    scored(tmp_path, number=3, prompt="<b>{question}")
    written = write_report([tmp_path / "runs/run"])
    html = written.path.read_text("utf-8")
    assert 'src="data:image/webp;base64,' in html and "&lt;b&gt;en 1" in html
    assert "<b>en 1" not in html and "what was painted is shown under Pictures" in html
    assert "--images-per-prompt 1" in html


def test_several_pictures_of_one_prompt_share_their_cluster(
    tmp_path: Path, looked: list[int]
) -> None:
    result = scored(tmp_path, images_per_prompt=2, number=4)
    rows = {(s["metric"], s["language"]): s for s in result["scores"] if not s["subset"]}
    assert rows["clip_score", "en"]["n"] == 8
    assert "clusters:4" in rows["diversity", "de"]["signature"]
    assert {"n:8", "n_ref:4"} < set(rows["kid_efficientnet_lite0", "en"]["signature"].split("|"))
    (again,) = score_run(tmp_path / "runs/run")
    assert json.dumps(again, sort_keys=True) == json.dumps(result, sort_keys=True)


def test_the_candidates_depend_on_the_texts_alone() -> None:
    from mpm_eval.stages.paint_scores import _candidates

    texts = [f"name {i}" for i in range(300)]
    for right in (0, 7, 299):
        chosen = _candidates(right, texts)
        assert chosen[0] == right and len(set(chosen)) == 100 and max(chosen) < 300
        assert chosen == _candidates(right, texts)


def test_the_mean_with_other_clusters_is_that_over_all_pairs() -> None:
    from mpm_eval.stages.paint_scores import _mean_with_others

    rng = np.random.default_rng(0)
    a_ND, b_ND, clusters = rng.normal(size=(7, 3)), rng.normal(size=(7, 3)), list("aabbbcd")
    expected = [
        np.mean([a_ND[i] @ b_ND[j] for j in range(7) if clusters[j] != clusters[i]])
        for i in range(7)
    ]
    np.testing.assert_allclose(_mean_with_others(a_ND, b_ND, clusters), expected)
    assert _mean_with_others(a_ND, b_ND, ["a"] * 7) is None
