"""What `show` prints of a run, and that no text of a model can change how it is printed."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mpm_eval.errors import UserError
from mpm_eval.schema import Prediction
from mpm_eval.stages.score import score_run
from mpm_eval.stages.show import plain, print_run
from tests.stages.conftest import MakeRun, MakeTask


def shown(run: Path, *, terminal: bool = False) -> str:
    stream = io.StringIO()
    print_run(run, Console(file=stream, width=200, force_terminal=terminal, color_system=None))
    return stream.getvalue()


def line_with(text: str, *words: str) -> str:
    lines = [line for line in text.splitlines() if all(word in line for word in words)]
    assert lines, f"no line with {words} in\n{text}"
    return lines[0]


def test_labels_scores_and_transfer_are_shown(make_task: MakeTask, make_run: MakeRun) -> None:
    run = make_run(make_task(), {("0", "de"): "falsch"})
    score_run(run)
    text = shown(run)
    assert "model m" in text
    assert "24 samples, 0 failed" in text
    line_with(text, "zh", "unknown", "no training record")
    line_with(text, "exact_match", "de", "87.50", " to ")
    line_with(text, "transfer_gap", "de", "12.50")
    line_with(text, "retention", "de", "87.50")


def test_sample_predictions_are_marked_right_or_wrong(
    make_task: MakeTask, make_run: MakeRun
) -> None:
    rows: list[dict[str, Any]] = [
        {"id": f"s{i}", "language": "en", "references": [f"a {i}"]} for i in range(3)
    ]
    rows += [{"id": "s3", "language": "en", "references": ["open"], "closed": False}]
    run = make_run(
        make_task("few", rows, languages=["en"]), {("s1", "en"): "nope", ("s3", "en"): "chat"}
    )
    score_run(run)
    text = shown(run)
    assert "✓" in line_with(text, "s0", "a 0")
    assert "✗" in line_with(text, "s1", "nope", "a 1")
    open_ = line_with(text, "s3", "chat")
    assert "✓" not in open_
    assert "✗" not in open_


def test_at_most_ten_samples_are_shown_from_all_languages(
    make_task: MakeTask, make_run: MakeRun
) -> None:
    run = make_run(make_task())
    score_run(run)
    lines = [line for line in shown(run).splitlines() if "✓" in line]
    assert len(lines) == 10
    assert {tag for tag in ("en", "de", "zh") for line in lines if f" {tag} " in line} == {
        "en",
        "de",
        "zh",
    }


def test_a_chosen_option_is_shown_as_its_text(make_task: MakeTask, tmp_path: Path) -> None:
    from mpm_eval.backends.echo import open_echo
    from mpm_eval.stages.generate import run_tasks

    rows = [{"id": "q", "language": "en", "question": "?", "options": ["cat", "dog"], "answer": 0}]
    task = make_task(
        "choices", rows, kind="choose", languages=["en"], metrics=["accuracy"],
        main_metric="accuracy",
    )  # fmt: skip
    run = run_tasks([task], open_echo("wrong", 0), model_spec="x", out=tmp_path / "r")
    score_run(run)
    assert "✗" in line_with(shown(run), "q", "dog", "cat")


def test_failures_are_named_and_not_among_the_samples(
    make_task: MakeTask, make_run: MakeRun
) -> None:
    rows = [{"id": f"s{i}", "language": "de", "references": [f"a {i}"]} for i in range(3)]
    error = Prediction("s1", "de", "", error="corrupt picture")
    run = make_run(make_task("few", rows, languages=["de"]), {("s1", "de"): error})
    score_run(run)
    text = shown(run)
    assert "failed: s1 (de): corrupt picture" in text
    assert "3 samples, 1 failed" in text
    assert sum("s1" in line for line in text.splitlines()) == 1


def test_many_failures_are_counted_after_the_first_twenty(
    make_task: MakeTask, make_run: MakeRun
) -> None:
    keys = [(str(i), tag) for tag in ("en", "de", "zh") for i in range(8)][:23]
    run = make_run(make_task(), {key: Prediction(*key, "", error="e") for key in keys})
    score_run(run)
    text = shown(run)
    assert sum(line.startswith("failed: ") for line in text.splitlines()) == 21
    assert "failed: 3 more" in text


def test_markup_and_control_characters_of_an_output_are_not_obeyed(
    make_task: MakeTask, make_run: MakeRun
) -> None:
    run = make_run(
        make_task(), {("0", "en"): "[bold red]x[/] [/nothing] \x1b[31mred\x1b[0m\a\ntwo"}
    )
    score_run(run)
    text = shown(run)
    assert "[bold red]x[/] [/nothing]" in text
    assert "\x1b" not in text
    assert "\a" not in text


def test_joiners_stay_and_overrides_of_the_direction_do_not() -> None:
    assert plain("क्‍ष").plain == "क्‍ष"
    assert plain("a\u202eb\u2066c").plain == "a\ufffdb\ufffdc"
    assert plain("x" * 70, 60).plain == "x" * 59 + "…"


def test_lines_are_drawn_on_a_terminal_only(make_task: MakeTask, make_run: MakeRun) -> None:
    run = make_run(make_task())
    score_run(run)
    assert "─" not in shown(run)
    assert "─" in shown(run, terminal=True)


def test_a_run_without_scores_says_how_to_score_it(make_task: MakeTask, make_run: MakeRun) -> None:
    run = make_run(make_task())
    with pytest.raises(UserError, match=r"not scored yet; score it with: mpm-eval score .*run"):
        shown(run)


def test_scores_are_shown_when_the_task_has_changed_since(
    make_task: MakeTask, make_run: MakeRun
) -> None:
    run = make_run(make_task())
    score_run(run)
    make_task(version=2)
    text = shown(run)
    line_with(text, "exact_match", "de", "100.00")
    assert "samples not shown" in text
    assert "has changed" in text
