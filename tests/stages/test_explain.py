"""Explain: one test per stage at which two runs can part, each the first that differs."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mpm_eval.commands.compare import compare
from mpm_eval.errors import UserError
from mpm_eval.items import output_sha256, read_items, write_items
from mpm_eval.schema import Judgement, OptionScore, Prediction
from mpm_eval.stages.cells import Selection
from mpm_eval.stages.explain import Explanation, Stage, explain_runs
from mpm_eval.stages.score import score_run
from mpm_eval.strict import to_jsonable, write_json
from tests.stages.conftest import MakeRun, MakeTask
from tests.stages.test_pairing import beyond

GERMAN = Selection(languages=("de",))
BASE = Prediction("3", "de", "Was?", "de 3", input_sha256="1" * 64)
MakeScored = Callable[..., Path]


@pytest.fixture
def make_scored(make_task: MakeTask, make_run: MakeRun) -> MakeScored:
    """Return a function that makes a scored run of "animals" with one given prediction."""

    def make(name: str, prediction: Prediction = BASE, **manifest: Any) -> Path:
        outputs = {("3", "de"): prediction, **beyond(manifest.get("limit"))}
        run = make_run(make_task(), outputs, run=name, **manifest)
        score_run(run)
        return run

    return make


def explained(a: Path, b: Path, wanted: str = "3") -> Explanation:
    (found,) = explain_runs(a, b, wanted, GERMAN)
    return found


def stage(explanation: Explanation, name: str) -> Stage:
    (found,) = [one for one in explanation.stages if one.name == name]
    return found


def first(explanation: Explanation) -> Stage:
    assert explanation.first is not None
    names = [one.name for one in explanation.stages if one.same is False]
    assert names[0] == explanation.first
    return stage(explanation, explanation.first)


def edit_result(run: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    path = run / "animals" / "result.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    write_json(path, content)
    return run


SAID = Judgement("3", "de", "judge", "robust", "reference-first", 0, "r0", "7 5", (7.0, 5.0))


def write_judgements(run: Path, *judgements: Judgement) -> Path:
    text = "".join(json.dumps(to_jsonable(judgement)) + "\n" for judgement in judgements)
    (run / "animals" / "judgements.jsonl").write_text(text, encoding="utf-8")
    return run


def test_runs_that_agree_part_nowhere(make_scored: MakeScored) -> None:
    found = explained(make_scored("a"), make_scored("b"))
    assert found.first is None
    assert [one.name for one in found.stages] == [
        "data", "prompt", "image", "decoding", "model", "output", "score",
    ]  # fmt: skip
    assert {one.same for one in found.stages if one.name != "model"} == {True}


def test_other_data_come_first_of_all(make_scored: MakeScored) -> None:
    b = make_scored("b", replace(BASE, prompt="Wer?", output="x"))
    edit_result(b, lambda c: c["data"].update(sha256="b" * 64))
    found = first(explained(make_scored("a"), b))
    assert found.name == "data" and "sha256 " + "b" * 64 in found.b
    assert "cluster picture 1, category detail" in found.a


def test_a_sample_of_one_run_only_parts_at_the_data(make_scored: MakeScored) -> None:
    a, b = make_scored("a"), make_scored("b", limit=2)
    found = explained(a, b)
    assert found.first == "data" and len(found.stages) == 1
    assert found.stages[0].b.startswith("no such sample")


def test_another_prompt_is_shown(make_scored: MakeScored) -> None:
    b = make_scored("b", replace(BASE, prompt="Wer?", input_sha256="2" * 64, output="x"))
    assert first(explained(make_scored("a"), b)) == Stage("prompt", False, "Was?", "Wer?")


def test_an_equal_prompt_with_another_input_is_another_picture(make_scored: MakeScored) -> None:
    b = make_scored("b", replace(BASE, input_sha256="2" * 64, output="x"))
    found = first(explained(make_scored("a"), b))
    assert (found.name, found.b) == ("image", "input sha256 " + "2" * 64)


@pytest.mark.parametrize(
    ("manifest", "shown"),
    [
        ({"seed": 7}, '{"max_new_tokens": 32, "seed": 7}'),
        ({"decoding": {"max_new_tokens": 8}}, '{"max_new_tokens": 8, "seed": 0}'),
    ],
)
def test_other_settings_part_before_the_output(
    make_scored: MakeScored, manifest: dict[str, Any], shown: str
) -> None:
    b = make_scored("b", replace(BASE, output="x"), **manifest)
    found = first(explained(make_scored("a"), b))
    assert (found.name, found.b) == ("decoding", shown)


def test_what_one_side_did_not_record_is_not_called_a_difference(make_scored: MakeScored) -> None:
    b = make_scored("b", Prediction("3", "de", "", "x"), decoding={})
    found = explained(make_scored("a"), b)
    assert found.first == "output"
    for name in ("prompt", "image", "decoding"):
        assert (stage(found, name).same, stage(found, name).b) == (None, "not recorded")


def test_another_model_is_named_and_no_parting(make_scored: MakeScored) -> None:
    model = {"name": "other", "spec": "m", "sha256": "c" * 64, "identity": {}}
    found = explained(make_scored("a"), make_scored("b", model=model))
    assert found.first is None
    assert stage(found, "model") == Stage(
        "model", None, f"m, sha256 {'a' * 12}", f"other, sha256 {'c' * 12}"
    )


def test_another_output_is_shown_with_its_score(make_scored: MakeScored) -> None:
    found = explained(make_scored("a"), make_scored("b", replace(BASE, output="Hund")))
    assert first(found) == Stage("output", False, "de 3", "Hund")
    assert stage(found, "score") == Stage("score", False, "exact_match 100", "exact_match 0")


def test_a_failure_is_another_output_and_no_score(make_scored: MakeScored) -> None:
    b = make_scored("b", replace(BASE, output="", error="out of memory"))
    found = explained(make_scored("a"), b)
    assert first(found).b == "failed: out of memory"
    assert stage(found, "score").b == "failed"


def test_option_scores_are_shown_until_they_differ(make_task: MakeTask, make_run: MakeRun) -> None:
    rows = [{"id": f"s{i}", "language": "en", "references": ["a"], "options": ["a", "b"],
             "answer": 0} for i in range(2)]  # fmt: skip
    task = make_task("pick", rows, kind="choose", languages=["en"], metrics=["accuracy"],
                     main_metric="accuracy")  # fmt: skip
    runs = []
    for name, logprob in (("a", -1.0), ("b", -1.0 - 1e-12)):
        scores = (OptionScore(logprob, 1), OptionScore(-2.0, 3))
        predictions = {(f"s{i}", "en"): Prediction(f"s{i}", "en", "?", "a", scores) for i in range(2)}  # fmt: skip
        runs.append(make_run(task, predictions, run=name))
        score_run(runs[-1])
    (found,) = explain_runs(*runs, "s1")
    assert first(found).name == "output"
    assert first(found).a == "a [log-probability/tokens of the options: -1/1, -2/3]"
    assert "-1.000000000001" in first(found).b


def test_another_judgement_parts_equal_outputs(make_scored: MakeScored) -> None:
    other = replace(SAID, reply="7 4", scores=(7.0, 4.0))
    a = write_judgements(make_scored("a"), replace(SAID, id="4"), SAID)
    b = write_judgements(make_scored("b"), other, replace(other, language="en", reply="0 0"))
    found = first(explained(a, b))
    assert found.name == "judgement"
    assert '"scores": [7.0, 5.0], "reply": "7 5"' in found.a and '"reply": "7 4"' in found.b
    assert "0 0" not in found.b


def test_the_order_cost_and_retries_of_judging_are_no_difference(make_scored: MakeScored) -> None:
    second = replace(SAID, repeat=1, request_sha256="r1")
    failed = replace(SAID, reply="", scores=None, error="timeout")
    a = write_judgements(make_scored("a"), SAID, second)
    b = write_judgements(make_scored("b"), failed, second, replace(SAID, num_reply_tokens=9))
    found = explained(a, b)
    assert found.first is None and stage(found, "judgement").same


def test_judgements_of_one_side_are_not_compared(make_scored: MakeScored) -> None:
    found = explained(write_judgements(make_scored("a"), SAID), make_scored("b"))
    assert "judgement" not in [one.name for one in found.stages]


def test_another_metric_parts_equal_outputs_at_the_score(make_scored: MakeScored) -> None:
    b = make_scored("b")

    def change(content: dict[str, Any]) -> None:
        for score in content["scores"]:
            score["signature"] = score["signature"].replace("v:1", "v:2")

    edit_result(b, change)
    found = first(explained(make_scored("a"), b))
    assert found.name == "score"
    assert found.b.startswith("exact_match 100 by exact_match|") and "v:2" in found.b


def test_an_id_is_explained_in_every_language_selected(make_scored: MakeScored) -> None:
    a, b = make_scored("a"), make_scored("b", replace(BASE, output="Hund"))
    found = explain_runs(a, b, "3")
    assert [(one.language, one.first) for one in found] == [
        ("en", None), ("de", "output"), ("zh", None),
    ]  # fmt: skip


def test_the_first_flipped_sample_is_found(make_scored: MakeScored) -> None:
    a, b = make_scored("a"), make_scored("b", replace(BASE, output="Hund"))
    (worse,) = explain_runs(a, b, "worse")
    (better,) = explain_runs(b, a, "better")
    assert (worse.id, worse.language) == (better.id, better.language) == ("3", "de")
    with pytest.raises(UserError, match="--explain better: no sample is better in B"):
        explain_runs(a, b, "better")


def test_a_sample_called_worse_is_meant_where_there_is_one(
    make_task: MakeTask, make_run: MakeRun
) -> None:
    rows = [{"id": i, "language": "en", "references": ["x"]} for i in ("first", "worse")]
    task = make_task("odd", rows, languages=["en"])
    runs = make_run(task, run="a"), make_run(task, {("first", "en"): "no"}, run="b")
    for run in runs:
        score_run(run)
    (found,) = explain_runs(*runs, "worse")
    assert (found.id, found.first) == ("worse", None)


def test_runs_that_cannot_be_compared_can_be_explained(make_scored: MakeScored) -> None:
    a, b = make_scored("a"), make_scored("b", replace(BASE, input_sha256="2" * 64), limit=6)
    assert explained(a, b).first == "image"


def no_predictions(run: Path) -> None:
    (run / "animals" / "predictions.jsonl").unlink()


def changed_prediction(run: Path) -> None:
    path = run / "animals" / "predictions.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace('"de 3"', '"de 4"'), encoding="utf-8")


def missing_prediction(run: Path) -> None:
    path = run / "animals" / "predictions.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(x for x in lines if '"de 3"' not in x), encoding="utf-8")


def torn_line(run: Path) -> None:
    path = run / "animals" / "predictions.jsonl"
    path.write_bytes(path.read_bytes()[:-9])


def unknown_key(run: Path) -> None:
    path = run / "animals" / "predictions.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace('"prompt"', '"promt"'))


def torn_judgement(run: Path) -> None:
    (run / "animals" / "judgements.jsonl").write_text('{"id": "3", "lang', encoding="utf-8")


def probe(run: Path) -> None:
    (run / "animals" / "items.parquet").unlink()
    edit_result(run, lambda c: c["task"].update(kind="probe"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (no_predictions, "predictions.jsonl: no such file; --explain reads the predictions"),
        (changed_prediction, "sample '3' .de. is not as it was scored"),
        (missing_prediction, "sample '3' .de. is not as it was scored"),
        (torn_line, "predictions.jsonl:24: not valid JSON"),
        (unknown_key, "predictions.jsonl: unknown key 'promt'; did you mean 'prompt'?"),
        (torn_judgement, "judgements.jsonl:1: not valid JSON"),
        (probe, "a probe has no samples to explain"),
    ],
)
def test_files_that_cannot_be_explained_are_one_line(
    make_scored: MakeScored, damage: Callable[[Path], None], message: str
) -> None:
    a, b = make_scored("a"), make_scored("b")
    damage(b)
    with pytest.raises(UserError, match=message):
        explained(a, b)


def test_an_unknown_id_is_named_with_the_nearest_one(make_scored: MakeScored) -> None:
    with pytest.raises(UserError, match="unknown sample id '33'; did you mean '3'"):
        explained(make_scored("a"), make_scored("b"), "33")


def test_known_ids_are_shown_without_control_characters(make_scored: MakeScored) -> None:
    runs = [make_scored("a"), make_scored("b")]
    for run in runs:
        path = run / "animals" / "items.parquet"
        items = read_items(path)
        hostile = tuple(replace(i, id=f"\x1b[2J{i.id}") for i in items.items)
        write_items(path, replace(items, items=hostile))
    with pytest.raises(UserError) as caught:
        explained(*runs, "9")
    assert "\ufffd[2J0" in str(caught.value) and "\x1b" not in str(caught.value)


def test_long_texts_are_shown_from_where_they_part(
    make_scored: MakeScored, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = "so lang " * 500
    a = make_scored("a", replace(BASE, output=shared + "wie hier"))
    b = make_scored("b", replace(BASE, output=shared + "wie dort \x1b[31m"))
    compare(a, b, languages="de", explain="3")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "animals, 3, de: the runs part at: output"
    (row,) = [line for line in lines if line.startswith("output")]
    assert "wie hier" in row and "wie dort" in row
    assert lines[-3].endswith("wie hier") and lines[-2].endswith("wie dort \ufffd[31m")


def test_json_holds_the_stages_in_full(
    make_scored: MakeScored, capsys: pytest.CaptureFixture[str]
) -> None:
    long = "x" * 5000
    a, b = make_scored("a"), make_scored("b", replace(BASE, output=long))
    compare(a, b, explain="worse", as_json=True)
    (found,) = json.loads(capsys.readouterr().out)
    assert found["first"] == "output"
    assert [s["b"] for s in found["stages"] if s["name"] == "output"] == [long]


def test_an_output_is_that_of_the_items(make_scored: MakeScored) -> None:
    items = read_items(make_scored("a") / "animals" / "items.parquet")
    (item,) = [i for i in items.items if i.key == ("3", "de")]
    assert item.output_sha256 == output_sha256("de 3")
