"""Comparing two runs: values by hand, verdicts, flips, and what is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from mpm_eval.commands.compare import compare
from mpm_eval.errors import UserError
from mpm_eval.items import read_items, write_items
from mpm_eval.schema import Prediction
from mpm_eval.stages.cells import Selection, is_of
from mpm_eval.stages.compare import ComparedCell, Comparison, compare_runs, first_ids
from mpm_eval.stages.result_schema import load_result
from mpm_eval.stages.score import score_run
from mpm_eval.strict import write_json
from tests.conftest import Command, write_task
from tests.stages.conftest import MakeRun, MakeTask
from tests.stages.test_pairing import beyond

REPOSITORY = Path(__file__).resolve().parents[2]
MakeScored = Callable[..., Path]


@pytest.fixture
def make_scored(make_task: MakeTask, make_run: MakeRun) -> MakeScored:
    """Return a function that makes a scored run of "animals" in which some answers are wrong."""

    def make(name: str, wrong: str = "", language: str = "de", **manifest: Any) -> Path:
        outputs: dict[tuple[str, str], str | None] = {
            (id_, language): "falsch" for id_ in wrong.split()
        }
        outputs |= beyond(manifest.get("limit"))
        run = make_run(make_task(), outputs, run=name, **manifest)
        score_run(run)
        return run

    return make


def cell_of(comparison: Comparison, language: str = "de") -> ComparedCell:
    (found,) = [one for one in comparison.cells if one.cell.language == language]
    return found


def edit(run: Path, change: Callable[[dict[str, Any]], None], task: str = "animals") -> Path:
    path = run / task / "result.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    write_json(path, content)
    return run


def many(number: int) -> list[dict[str, Any]]:
    return [
        {"id": f"s{i}", "language": tag, "references": [f"{tag} {i}"]}
        for tag in ("en", "de", "zh")
        for i in range(number)
    ]


def test_values_and_flips_are_those_counted_by_hand(make_scored: MakeScored) -> None:
    comparison = compare_runs(make_scored("a", "0 7"), make_scored("b", "1 2 7"))
    one = cell_of(comparison)
    assert (one.a, one.b, one.difference) == (75.0, 62.5, -12.5)
    assert (one.flips.better, one.flips.worse) == (("0",), ("1", "2"))
    # 1 against 2 of 3 fair coins, both tails
    assert one.flips.p_mcnemar == pytest.approx(1.0)
    assert (one.samples.num_scored, one.samples.num_clusters) == (8, 4)
    assert one.samples.num_changed_output == 3
    assert one.verdict == "no difference seen" and one.reason == ""
    assert [c.cell.language for c in comparison.cells] == ["en", "de", "zh"]


def test_the_smallest_visible_difference_allows_for_the_whole_family(
    make_task: MakeTask, make_run: MakeRun
) -> None:
    task = make_task("many", many(40))
    runs = [make_run(task, {(f"s{i}", tag): "no" for i in wrong for tag in ("en", "de", "zh")}, name)
            for name, wrong in (("a", range(0, 9)), ("b", range(5, 20)))]  # fmt: skip
    for run in runs:
        score_run(run)
    comparison = compare_runs(*runs)
    test = cell_of(comparison).test
    assert comparison.num_tests == 3 and test is not None and test.ci95 is not None
    standard_error = (test.ci95[1] - test.ci95[0]) / 2 / stats.t.ppf(0.975, 40 - 1)
    quantiles = stats.norm.ppf(1 - 0.05 / 3 / 2) + stats.norm.ppf(0.8)
    assert test.mde == pytest.approx(quantiles * standard_error, rel=1e-9)
    # three equal p-values: Holm's is three times each
    assert test.p_holm == pytest.approx(min(1.0, 3 * test.p_value))


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_the_verdict_follows_what_is_better(
    make_task: MakeTask, make_run: MakeRun, higher_is_better: bool
) -> None:
    task = make_task("many", many(60))
    good, bad = make_run(task, run="good"), make_run(
        task, {(f"s{i}", "de"): "no" for i in range(40)}, run="bad"
    )  # fmt: skip
    for run in (good, bad):
        score_run(run)
        edit(run, lambda c: [s.update(higher_is_better=higher_is_better) for s in c["scores"]], "many")  # fmt: skip
    up, down = ("better", "worse") if higher_is_better else ("worse", "better")
    fell, rose = cell_of(compare_runs(good, bad)), cell_of(compare_runs(bad, good))
    assert (fell.verdict, rose.verdict) == (down, up)
    assert len(getattr(fell.flips, down)) == len(getattr(rose.flips, up)) == 40
    assert getattr(fell.flips, up) == ()
    assert fell.flips.p_mcnemar == pytest.approx(2 * 0.5**40)


def test_a_run_compared_with_itself_shows_no_difference(make_scored: MakeScored) -> None:
    run = make_scored("a", "3 4")
    comparison = compare_runs(run, run)
    assert {one.verdict for one in comparison.cells} == {"no difference seen"}
    assert {one.difference for one in comparison.cells} == {0.0}
    assert not any(one.flips.better or one.flips.worse for one in comparison.cells)
    assert comparison.differences == {} and comparison.left_out == ()


def test_failed_samples_are_counted_and_in_neither_value(
    make_task: MakeTask, make_run: MakeRun
) -> None:
    task = make_task()
    a = make_run(task, {("0", "de"): Prediction("0", "de", "", error="broken")}, run="a")
    b = make_run(task, {("0", "de"): "falsch", ("1", "de"): "falsch"}, run="b")
    for run in (a, b):
        score_run(run)
    one = cell_of(compare_runs(a, b))
    assert (one.a, one.b) == (100.0, pytest.approx(100 * 6 / 7))
    assert (one.samples.num_failed_a, one.samples.num_failed_b) == (1, 0)
    assert one.samples.num_scored == 7 and one.flips.worse == ("1",)


def test_a_cell_without_a_common_scored_sample_is_not_tested(
    make_task: MakeTask, make_run: MakeRun
) -> None:
    task = make_task()
    broken = {(str(i), "de"): Prediction(str(i), "de", "", error="broken") for i in range(8)}
    a, b = make_run(task, broken, run="a"), make_run(task, run="b")
    for run in (a, b):
        score_run(run)
    one = cell_of(compare_runs(a, b))
    assert (one.a, one.b, one.difference, one.test) == (None, None, None, None)
    assert (one.verdict, one.reason) == ("not tested", "no sample is scored in both")
    assert one.samples.num_failed_a == 8


@pytest.mark.parametrize(
    ("row_a", "row_b", "p_mcnemar"),
    [
        ((0.0, 1.0), (1.0, 1.0), 1.0),
        ((0.5, 1.0), (0.75, 1.0), None),  # more than right or wrong
        ((0.0, 1.0), (1.0, 2.0), None),  # the output decides its weight, too
    ],
)
def test_the_exact_test_is_of_right_and_wrong_alone(
    make_scored: MakeScored,
    row_a: tuple[float, float],
    row_b: tuple[float, float],
    p_mcnemar: float | None,
) -> None:
    for name, row in (("a", row_a), ("b", row_b)):
        run = make_scored(name)
        items = read_items(run / "animals" / "items.parquet")
        rows = [row if i.id == "3" else row_a for i in items.items]
        write_items(
            run / "animals" / "items.parquet", replace(items, statistics={"mean:judge": rows})
        )

        def to_judge(content: dict[str, Any]) -> None:
            content["task"]["main_metric"] = "mean:judge"
            content["scores"] = [
                {**s, "metric": "mean:judge"} for s in content["scores"]
                if s["metric"] == "exact_match"
            ]  # fmt: skip

        edit(run, to_judge)
    one = cell_of(compare_runs(run.parent / "a", run.parent / "b"))
    (sum_a, count_a), (sum_b, count_b) = row_a, row_b
    mean_b = (7 * sum_a + sum_b) / (7 * count_a + count_b)
    assert one.difference == pytest.approx(mean_b - sum_a / count_a)
    assert (one.flips.better, one.flips.p_mcnemar) == (("3",), p_mcnemar)


def to_probe(run: Path, value: float) -> Path:
    (run / "animals" / "items.parquet").unlink()

    def change(content: dict[str, Any]) -> None:
        content["task"]["kind"] = "probe"
        content["scores"] = [
            {**s, "value": value, "signature": f"layer:{value}"}
            for s in content["scores"]
            if s["language"] == "de" and s["metric"] == "exact_match"
        ]

    return edit(run, change)


def test_a_probe_has_values_and_a_difference_alone(make_scored: MakeScored) -> None:
    runs = to_probe(make_scored("a"), 40.0), to_probe(make_scored("b"), 42.5)
    comparison = compare_runs(*runs)
    (one,) = comparison.cells
    assert (one.a, one.b, one.difference) == (40.0, 42.5, 2.5)
    assert (one.test, one.reason) == (None, "no items to pair")
    assert comparison.num_tests == 0


def limited(make: MakeScored) -> Path:
    return make("b", limit=6)


def other_inputs(make: MakeScored) -> Path:
    run = make("b")
    path = run / "animals" / "items.parquet"
    for name, digest in (("a", "1" * 16), ("b", "2" * 16)):
        path = run.parent / name / "animals" / "items.parquet"
        items = read_items(path)
        changed = tuple(
            replace(i, input_sha256=digest if i.id == "2" else "3") for i in items.items
        )
        write_items(path, replace(items, items=changed))
    return run


def other_data(make: MakeScored) -> Path:
    return edit(make("b"), lambda c: c["data"].update(sha256="b" * 64))


def other_version(make: MakeScored) -> Path:
    return edit(make("b"), lambda c: c["task"].update(version=2))


def other_metric(make: MakeScored) -> Path:
    def change(content: dict[str, Any]) -> None:
        for score in content["scores"]:
            score["signature"] = score["signature"].replace("refs:any", "refs:best")

    return edit(make("b"), change)


@pytest.mark.parametrize(
    ("other", "message", "num_shared"),
    [
        (limited, r"animals, de, exact_match: 2 samples only in A \(6, 7\)", 6),
        (other_inputs, r"animals, de, exact_match: 1 sample with another input \(2\)", 8),
        (other_data, r"animals: different data: sha256 \w{12} and sha256 bbbbbbbbbbbb", 8),
        (other_version, "animals: different task version: 1 and 2", 8),
        (other_metric, r"animals: different metric exact_match \(de\): .*refs:any.*refs:best", 8),
    ],
)
def test_runs_that_answer_other_questions_are_refused_unless_asked_for(
    make_scored: MakeScored, other: Callable[..., Path], message: str, num_shared: int
) -> None:
    a = make_scored("a")
    b = other(make_scored)
    only_german = Selection(languages=("de",))
    with pytest.raises(UserError, match=message) as caught:
        compare_runs(a, b, only_german)
    assert "--common" in str(caught.value) and "\n" not in str(caught.value)
    comparison = compare_runs(a, b, only_german, common=True)
    assert comparison.common
    assert cell_of(comparison).samples.num_scored == num_shared


def test_shared_samples_are_compared_with_what_is_left_out_beside_them(
    make_scored: MakeScored,
) -> None:
    one = cell_of(compare_runs(make_scored("a"), make_scored("b", "6", limit=6), common=True))
    assert one.samples.only_a == ("6", "7") and one.samples.only_b == ()
    assert (one.a, one.b) == (100.0, 100.0)


def test_what_only_one_run_has_is_listed(
    make_scored: MakeScored, make_task: MakeTask, make_run: MakeRun
) -> None:
    a, b = make_scored("a"), make_scored("b", languages=["de", "en"])
    score_run(make_run(make_task("plants"), run="b"))
    comparison = compare_runs(a, b)
    assert comparison.left_out == ("task plants is only in B", "animals: language zh is only in A")
    assert [one.cell.language for one in comparison.cells] == ["en", "de"]
    assert comparison.differences == {"animals": ("different languages: de, en, zh and de, en",)}


def test_a_selection_chooses_metric_subset_and_languages(
    make_task: MakeTask, make_run: MakeRun
) -> None:
    task = make_task(metrics=["exact_match", "fidelity"])
    runs = [make_run(task, run=name) for name in ("a", "b")]
    for run in runs:
        score_run(run)
    selection = Selection(
        tasks=("animals",), languages=("de",), metric="fidelity", subset="category=detail"
    )
    (one,) = compare_runs(*runs, selection).cells
    assert str(one.cell) == "animals, de, fidelity, category=detail"
    assert one.samples.num_scored == 4


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (Selection(tasks=("animal",)), "in both runs: unknown task 'animal'; did you mean 'animals'?"),
        (Selection(metric="exactmatch"), "--metric: unknown metric 'exactmatch'; did you mean 'exact_match'?"),
        (Selection(metric="transfer_gap"), "--metric: unknown metric 'transfer_gap'"),
        (Selection(subset="category=details"), "--subset: unknown subset 'category=details'; did you mean 'category=detail'?"),
        (Selection(languages=("fr",)), "--languages: unknown language 'fr'"),
        (Selection(languages=("zh",)), "nothing to compare: animals: language zh is only in A"),
    ],
)  # fmt: skip
def test_a_selection_that_matches_nothing_is_one_line(
    make_scored: MakeScored, selection: Selection, message: str
) -> None:
    a, b = make_scored("a"), make_scored("b", languages=["en", "de"])
    with pytest.raises(UserError) as caught:
        compare_runs(a, b, selection)
    assert message in str(caught.value)


def test_runs_without_a_common_task_are_refused(
    make_scored: MakeScored, make_task: MakeTask, make_run: MakeRun
) -> None:
    a = make_scored("a")
    score_run(b := make_run(make_task("plants"), run="b"))
    with pytest.raises(UserError, match="no task is in both runs: A has animals; B has plants"):
        compare_runs(a, b)


def test_ids_are_shown_on_one_line_without_control_characters() -> None:
    shown = first_ids(["\x1b[31mred\n", "x" * 100, "[bold]\u202e", "fourth"])
    assert shown == f"\ufffd[31mred, {'x' * 39}…, [bold]\ufffd, …"


def test_no_text_of_a_file_reaches_the_terminal_as_it_is(
    make_task: MakeTask, make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{**row, "id": f"\x1b[2J{row['id']}\r\n[red]"} for row in many(4)]
    task = make_task("many", rows)
    right = make_run(task, run="right")
    wrong = make_run(task, {(row["id"], "de"): "\x1b[31mno\u202e" for row in rows}, run="wrong")
    for run in (right, wrong):
        score_run(run)
    model = {"name": "\x1b[2Jm", "spec": "m", "sha256": "a" * 64, "identity": {}}
    edit(wrong, lambda c: c.update(model=model), "many")
    compare(right, wrong)
    compare(right, wrong, explain="worse")
    text = capsys.readouterr().out
    assert "4 worse (\ufffd[2Js0 [red], " in text and "\ufffd[31mno\ufffd" in text
    assert not {"\x1b", "\r", "\u202e"} & set(text)


def test_the_table_says_what_is_compared_and_what_differs(
    make_scored: MakeScored, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = make_scored("a", "0 7"), make_scored("b", "1 2 7", seed=4, limit=6)
    compare(a, b, common=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "animals: exact_match, shared samples only"
    german = dict(zip(lines[1].split("  "), lines[3].split("  "), strict=False))
    assert german["language"] == "de"
    row = lines[3].split()
    assert row[:4] == ["de", "83.33", "66.67", "-16.67"]
    assert row[-3:] == ["2", "0", "0"]  # only A, only B, other input
    assert "de: 1 better (0), 2 worse (1, 2)" in lines
    assert "animals: different seed: 0 and 4" in lines
    assert "animals: different limit: none and 6" in lines


def test_json_holds_the_whole_comparison_and_nothing_else(
    make_scored: MakeScored, capsys: pytest.CaptureFixture[str]
) -> None:
    compare(make_scored("a", "0"), make_scored("b", "1 2"), as_json=True)
    content = json.loads(capsys.readouterr().out)
    (german,) = [c for c in content["cells"] if c["cell"]["language"] == "de"]
    assert german["flips"] == {"better": ["0"], "worse": ["1", "2"], "p_mcnemar": 1.0}
    assert (content["num_tests"], content["common"]) == (3, False)


@pytest.mark.slow
def test_two_models_are_run_and_compared_from_the_command_line(
    mpm_eval: Command, tmp_path: Path
) -> None:
    task = write_task(tmp_path, number=40)
    for model in ("echo", "echo:half"):
        assert mpm_eval("run", "--task", task, "--model", model, "--out", model).returncode == 0
    done = mpm_eval("compare", "echo", "echo:half")
    assert done.returncode == 0 and done.stderr == ""
    assert "2 worse." in done.stdout
    explained = mpm_eval("compare", "echo", "echo:half", "--explain", "worse")
    assert "the runs part at: output" in explained.stdout
    refused = mpm_eval("compare", "echo", "nowhere")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("error: nowhere: not a run folder")
    assert len(refused.stderr.splitlines()) == 1


def test_shipped_runs_compare_with_the_values_of_their_results() -> None:
    runs = [
        REPOSITORY / "results" / "runs" / name for name in ("tiny-seed1", "tiny_no_pivot-seed0")
    ]
    comparison = compare_runs(*runs, Selection(tasks=("emoji_choice",)))
    assert len(comparison.cells) == 5 and comparison.differences == {}
    scores = [load_result(run / "emoji_choice" / "result.json").scores for run in runs]
    for one in comparison.cells:
        expected = [[s.value for s in found if is_of(s, one.cell)] for found in scores]
        assert [[one.a], [one.b]] == [pytest.approx(values, rel=1e-9) for values in expected]
    assert cell_of(comparison, "zh").verdict == "worse"
