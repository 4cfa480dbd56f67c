"""Leaderboards: what is shown and ranked, what is left out or refused, and the same bytes again."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from mpm_eval.errors import UserError
from mpm_eval.stages.leaderboard import Selection, collect, escape, write_leaderboard
from tests.stages.leaderboard_runs import add, add_items, score

ONE = 60 * [1] + 60 * [0]  # hits of 120 items: 50.0


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "results" / "runs"


def board(runs: Path, published: bool = False, **selection: Any) -> str:
    path = write_leaderboard(runs, runs.parent, Selection(**selection), published=published)[0]
    return path.read_text(encoding="utf-8")


def row_of(text: str, name: str) -> list[str]:
    """Return the cells of the first row with this name."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {name} |"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_a_row_has_value_half_width_and_mark_per_language_in_the_usual_order(runs: Path) -> None:
    add(runs, "x", score("fr", 10, label="supervised"), score("zh", 61.26), score("en", 70))
    text = board(runs)
    assert "| model | mean | worst | en | zh | fr |" in text
    assert row_of(text, "m") == [
        "35.6", "10.0 ±2.4 fr", "70.0 ±2.4 P", "61.3 ±2.4 Z", "10.0 ±2.4 S"
    ]  # fmt: skip
    for mark in ("**P** pivot", "**Z** zero-shot", "**Q** quasi", "**S** sup", "**?** unknown"):
        assert mark in text


def test_below_the_table_are_n_metric_signature_and_version(runs: Path) -> None:
    add(runs, "x", version=3)
    text = board(runs)
    assert "n = 100 in every cell." in text
    assert "Main metric: exact_match. Task version 3" in text
    assert "- Signature: `exact_match|v:1`\n" in text
    assert "- Intervals: `bootstrap,percentile|resamples:2000|seed:0`" in text
    assert f"Task version 3 ({'a' * 12}), data {'b' * 12}, pivot en." in text
    assert "n_failed" not in text


def test_failures_and_unequal_n_are_named(runs: Path) -> None:
    add(runs, "x", score("en"), score("zh", n=98, n_failed=2))
    text = board(runs)
    assert "n of m: en 100, zh 98." in text
    assert "Failed, not scored (n_failed) of m: zh 2." in text


def test_a_missing_language_or_value_is_a_dash(runs: Path) -> None:
    add(runs, "x", score("en"), score("zh", None, n=0, n_failed=100), model="a")
    add(runs, "y", score("en"), model="b")
    text = board(runs)
    assert row_of(text, "a") == row_of(text, "b") == ["50.0 ±2.4 P", "–"]


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
            for m in ("retrieval_p1", "mexa") for s in ("", "layer=1")]  # fmt: skip
    add(runs, "x", *rows, task="alignment", kind="probe")
    text = board(runs)
    for metric in ("retrieval_p1", "mexa"):
        part = text[text.index(f"### {metric}\n") :]
        assert part.split("\n\n")[1].startswith("| model | zh |\n|---|--:|\n| m | 33.0 ±2.4 ? |")
    assert "layer" not in text


def test_the_single_layers_of_a_probe_are_left_to_the_results(runs: Path) -> None:
    rows = [score("zh", metric="mexa", subset=subset) for subset in ("", "layer=1")]
    add(runs, "x", *rows, task="alignment", kind="probe")
    board(runs)
    content = json.loads((runs.parent / "leaderboard.json").read_text())
    assert [row["subset"] for row in content["rows"]] == [""]


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
    assert rows[0].keys() == content["rows"][0].keys()


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
    text = board(runs, tasks=("animals",), languages=("zh", "en"))
    assert (
        "`mpm-eval leaderboard --runs results/runs --out results --task animals "
        "--languages zh,en`" in text
    )
    assert "beasts" not in text


def test_languages_choose_the_columns_and_the_rows(runs: Path) -> None:
    add(runs, "x", score("en"), score("zh"), score("de"))
    text = board(runs, languages=("de",))
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


def test_one_task_decoded_in_two_ways_is_refused(runs: Path) -> None:
    add(runs, "x")
    add(runs, "y", decoding={"strategy": "beams"})
    with pytest.raises(
        UserError, match=r"decoded differently \(strategy=greedy and strategy=beams"
    ):
        board(runs)


def test_decoding_that_nobody_recorded_is_said_and_stops_nothing(runs: Path) -> None:
    add(runs, "x")
    add(runs, "y", decoding={}, model="stranger")
    assert "- Decoding not recorded: stranger." in board(runs)


def test_a_main_metric_with_two_settings_is_refused(runs: Path) -> None:
    add(runs, "x", score("en", signature="chrf|v:1|ci:none"))
    add(runs, "y", score("en", signature="chrf|v:2|ci:none"))
    message = r"'x' and 'y' were scored differently in en \(chrf\|v:1 and chrf\|v:2\); score both"
    with pytest.raises(UserError, match=message):
        board(runs)


def test_how_an_interval_was_made_is_no_setting_of_the_metric(runs: Path) -> None:
    add(runs, "x", score("en", signature="chrf|v:1|ci:wilson"), model="a")
    add(runs, "y", score("en", signature="chrf|v:1|ci:bootstrap"), model="b")
    assert "- Signature: `chrf|v:1`\n" in board(runs)


def test_the_layers_of_a_probe_are_the_models_own(runs: Path) -> None:
    for name, layers in (("x", 5), ("y", 9)):
        one = score("zh", metric="retrieval_p1", signature=f"p|layer:{layers - 1}|layers:{layers}")
        add(runs, name, one, task="alignment", kind="probe", model=name)
    assert "Signature (zh) of y: `p|layer:8|layers:9`" in board(runs)


def test_two_runs_of_one_name_are_told_apart_by_their_folder(runs: Path) -> None:
    add(runs, "first")
    add(runs, "deep/second")
    text = board(runs)
    assert "| m (first) |" in text
    assert "| m (deep/second) |" in text


def test_an_empty_folder_says_what_to_run(runs: Path) -> None:
    with pytest.raises(UserError, match=r"no such folder; make one with: mpm-eval run"):
        board(runs)


def test_an_unknown_task_is_named(runs: Path) -> None:
    add(runs, "x")
    with pytest.raises(UserError, match="unknown task 'animal'; did you mean 'animals'"):
        board(runs, tasks=("animal",))


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
    (row,) = [line for line in board(runs).splitlines() if line.startswith("| evil")]
    assert row.replace(r"\|", "").count("|") == 4
    assert "<" not in row


def test_models_on_the_same_items_are_ranked_by_the_mean_and_tied_ones_by_name(runs: Path) -> None:
    for name, hits in (("b", ONE), ("c", ONE[::-1]), ("a", 120 * [0])):
        add_items(runs, name, {"en": ONE, "zh": hits, "de": hits})
    text = board(runs)
    names = [
        line.split(" | ")[0] for line in text.splitlines() if line.startswith(("| a", "| b", "| c"))
    ]
    assert names[:3] == ["| b", "| c", "| a"]
    assert [row_of(text, name)[0] for name in "bca"] == ["1–2", "1–2", "3"]
    assert "- Rank: by the mean, of 3 models." in text
    ranks = text[text.index("### Ranks") :]
    assert "| model | mean | worst | en | zh | de |" in ranks
    assert row_of(ranks, "a") == ["3", "3", "1–3", "3", "3"]


def test_the_mean_leaves_the_pivot_out_and_the_worst_names_its_language(runs: Path) -> None:
    add_items(runs, "m", {"en": 120 * [1], "zh": ONE, "de": [1, *119 * [0]]})
    mean, worst, *_ = row_of(board(runs), "m")
    assert mean.startswith("25.4 ±") and worst == "0.8 ±2.4 de"


def test_a_model_that_lacks_a_language_has_no_mean_and_no_rank(runs: Path) -> None:
    add_items(runs, "whole", {"zh": ONE, "de": ONE})
    add_items(runs, "other", {"zh": ONE, "de": ONE})
    add_items(runs, "part", {"zh": ONE})
    text = board(runs)
    assert row_of(text, "part") == ["–", "–", "–", "50.0 ±2.4 Z", "–"]
    assert "- No rank: part (no value in de)." in text
    assert [row_of(text, name)[0] for name in ("whole", "other")] == ["1–2", "1–2"]


def test_a_result_without_items_is_shown_and_not_ranked(runs: Path) -> None:
    for name in ("a", "b"):
        add_items(runs, name, {"zh": ONE})
    add(runs, "old", score("zh", 99, signature="exact_match|v:1"), model="old")
    text = board(runs)
    assert row_of(text, "old") == ["–", "99.0 ±2.4 Z"]
    assert "- No rank: old (no items; score the run again to write them)." in text
    assert "- Rank: by the value in zh, of 2 models." in text


def test_failures_count_neither_for_nor_against_a_model(runs: Path) -> None:
    add_items(runs, "whole", {"zh": ONE})
    add_items(runs, "failing", {"zh": [None if i % 2 else hit for i, hit in enumerate(ONE)]})
    text = board(runs)
    assert row_of(text, "failing") == ["1–2", "50.0 ±2.4 Z"]
    assert "- Failed, not scored (n_failed) of failing: zh 60." in text


def test_a_model_of_which_every_sample_failed_is_shown_without_a_rank(runs: Path) -> None:
    add_items(runs, "a", {"zh": ONE})
    add_items(runs, "b", {"zh": ONE})
    add_items(runs, "failed", {"zh": 120 * [None]})
    text = board(runs)
    assert row_of(text, "failed") == ["–", "–"]
    assert "- No rank: failed (no value in zh)." in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"predictions_sha256": "e" * 64}, "not of the predictions of the result.json beside it"),
        (
            {"hits": {"zh": 120 * [1]}},
            "exact_match in zh is 100 from its items and 50 in result.json",
        ),
    ],
)
def test_items_that_are_not_those_of_the_result_are_refused(
    runs: Path, change: dict[str, Any], message: str
) -> None:
    path = add_items(runs, "x", {"zh": ONE})
    kept = path.read_bytes()
    add_items(runs, "x", **{"hits": {"zh": ONE}, **change})
    path.write_bytes(kept)
    with pytest.raises(UserError, match=message):
        board(runs)


def test_the_detectable_difference_says_what_it_is_from(runs: Path) -> None:
    add_items(runs, "a", {"zh": ONE})
    # sqrt(2) * (1.960 + 0.842) * 100 * sqrt(0.25 / 120) = 18.1, but for the resampling
    text = board(runs)
    line = next(line for line in text.splitlines() if "Minimum detectable" in line)
    assert "two values in zh (80 % power at 0.05): 18." in line and "times √2" in line
    add_items(runs, "b", {"zh": ONE[::-1]})
    assert "from the one pair" in board(runs)


def test_chance_and_perfection_are_rows_that_are_never_ranked(runs: Path) -> None:
    for name in ("a", "b"):
        add_items(runs, name, {"en": ONE, "zh": ONE, "de": ONE}, options=4)
    text = board(runs)
    assert row_of(text, "*chance*") == ["", *5 * ["25.0"]]
    assert row_of(text, "*perfect*") == ["", *5 * ["100.0"]]


def test_chance_is_zero_where_it_is_taken_out(runs: Path) -> None:
    add_items(runs, "a", {"zh": ONE}, options=4, above_chance=True)
    assert row_of(board(runs), "*chance*") == ["0.0"]


def test_a_free_answer_has_no_chance_row(runs: Path) -> None:
    add_items(runs, "a", {"zh": ONE})
    assert "chance" not in board(runs)


def test_a_control_is_a_floor_with_the_name_of_its_model(runs: Path) -> None:
    add_items(runs, "a", {"zh": ONE})
    add_items(runs, "b", {"zh": ONE})
    add_items(runs, "a-blank", {"zh": 120 * [0]}, model="a", control="blank")
    text = board(runs)
    assert row_of(text, "*a, blank picture*") == ["", "0.0 ±2.4 Z"]
    assert "- Rank: by the value in zh, of 2 models." in text
    assert text.index("| b |") < text.index("| *a, blank")


@pytest.mark.parametrize(
    ("spec", "shown"), [("echo", "*e*"), ("echo:wrong", "*e*"), ("echo:half", "e")]
)
def test_a_backend_that_is_told_the_answers_is_never_ranked(
    runs: Path, spec: str, shown: str
) -> None:
    for name in ("a", "b"):
        add_items(runs, name, {"zh": ONE})
    add_items(runs, "e", {"zh": 120 * [1]}, spec=spec)
    text = board(runs)
    assert row_of(text, shown)[0] in ("", "–")
    assert "of 2 models." in text


def test_the_floor_of_a_probe_is_a_row_of_its_table(runs: Path) -> None:
    rows = [score("zh", value, metric=m) for m, value in (("mexa", 60), ("mexa_floor", 2))]
    add(runs, "x", *rows, task="alignment", kind="probe")
    text = board(runs)
    assert row_of(text, "*m, random pairs*") == ["2.0 ±2.4"]
    assert "### mexa_floor" not in text


def test_probes_are_ranked_where_every_text_has_a_value(runs: Path) -> None:
    for name, hits in (("a", ONE), ("b", ONE[::-1])):
        fields = {"metric": "mexa", "kind": "probe", "task": "alignment"}
        add_items(runs, name, {"zh": hits}, more=[score("zh", 2.0, metric="mexa_floor")], **fields)
    add(
        runs,
        "old",
        score("zh", metric="mexa", signature="mexa|v:1"),
        model="old",
        kind="probe",
        task="alignment",
    )
    text = board(runs)
    assert row_of(text, "a") == ["1–2", "50.0 ±2.4 Z"]
    assert row_of(text, "*a, random pairs*") == ["", "2.0 ±2.4"]
    assert "- No rank: old (no statistics per text)." in text


def test_labels_choose_the_cells(runs: Path) -> None:
    add(runs, "x", score("en"), score("zh"), score("de", label="supervised"), model="a")
    add(runs, "y", score("en"), score("zh"), score("de"), model="b")
    text = board(runs, labels=("zero-shot",))
    assert "| model | mean | worst | zh | de |" in text
    assert row_of(text, "a") == ["–", "–", "50.0 ±2.4 Z", "–"]
    content = json.loads((runs.parent / "leaderboard.json").read_text())
    assert {row["label"] for row in content["rows"] if not row["summary"]} == {"zero-shot"}
    assert "--label zero-shot" in text


def test_an_unknown_label_is_named(runs: Path) -> None:
    add(runs, "x")
    with pytest.raises(UserError, match="unknown label 'zeroshot'; did you mean 'zero-shot'"):
        board(runs, labels=("zeroshot",))


def test_a_label_that_no_cell_has_makes_no_leaderboard(runs: Path) -> None:
    add(runs, "x")
    with pytest.raises(UserError, match="no score to show"):
        board(runs, labels=("supervised",))


def test_lower_is_better_where_the_scores_say_so(runs: Path) -> None:
    for name, value in (("a", 10.0), ("b", 90.0)):
        parts = [
            score(tag, value + i, higher_is_better=False) for i, tag in enumerate(("zh", "de"))
        ]
        add(runs, name, *parts, model=name)
    assert row_of(board(runs), "a")[:2] == ["10.5", "11.0 ±2.4 de"]


def test_collect_gives_the_entries_without_writing(runs: Path) -> None:
    add(runs, "x")
    (entry,), left_out = collect(runs)
    assert (entry.name, entry.run, left_out) == ("m", "x", [])
    assert entry.folder == runs / "x" / "animals"
