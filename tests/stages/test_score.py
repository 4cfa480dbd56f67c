"""Scoring: joining, counting, transfer, determinism, and other people's predictions."""

import dataclasses
import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from mpm_eval.data import open_dataset
from mpm_eval.errors import UserError
from mpm_eval.metrics.text import ExactMatch
from mpm_eval.resources import shipped
from mpm_eval.schema import Prediction
from mpm_eval.stages.result_schema import json_schema, load_result
from mpm_eval.stages.score import score_predictions, score_run
from mpm_eval.stats import cluster_sums, paired
from tests.stages.conftest import MakeRun, MakeTask

RECORD = {
    "recipe": "r",
    "pivot": "en",
    "stages": [
        {"name": "align", "data": {}, "multimodal_samples": {}, "text_samples": {"zh": 5},
         "steps": 1, "seed": 0},
        {"name": "pretrain", "data": {}, "multimodal_samples": {"en": 100},
         "text_samples": {"de": 7}, "steps": 1, "seed": 0},
    ],
    "versions": {},
}  # fmt: skip


def row(result: dict[str, Any], metric: str, language: str, subset: str = "") -> dict[str, Any]:
    (found,) = [
        s
        for s in result["scores"]
        if (s["metric"], s["language"], s["subset"]) == (metric, language, subset)
    ]
    return dict(found)


def failed(id_: str, language: str) -> Prediction:
    return Prediction(id_, language, "", error="out of memory")


def test_the_value_is_the_share_of_right_answers_and_n_their_number(
    make_task: MakeTask, make_run: MakeRun
) -> None:
    outputs = {("0", "de"): "falsch", ("5", "de"): "falsch", ("6", "de"): "DE 6."}
    (result,) = score_run(make_run(make_task(), outputs))
    right = sum(outputs.get((str(i), "de"), "right") != "falsch" for i in range(8))
    score = row(result, "exact_match", "de")
    assert (score["value"], score["n"], score["n_failed"]) == (100 * right / 8, 8, 0)
    assert score["ci95"][0] < score["value"] < score["ci95"][1]
    assert "clusters:4" in score["signature"]


def test_a_failed_sample_is_counted_and_leaves_the_mean_of_the_others_unchanged(
    make_task: MakeTask, make_run: MakeRun
) -> None:
    outputs: dict[Any, Any] = {("0", "de"): "falsch", ("1", "de"): failed("1", "de")}
    (result,) = score_run(make_run(make_task(), outputs))
    score = row(result, "exact_match", "de")
    assert (score["n"], score["n_failed"]) == (7, 1)
    assert score["value"] == pytest.approx(600 / 7, rel=1e-11)
    assert (result["num_samples"], result["num_failed"]) == (24, 1)


def test_a_metric_that_needs_several_samples_is_skipped_with_the_reason(
    make_task: MakeTask, make_run: MakeRun
) -> None:
    rows = [{"id": "0", "language": "en", "question": "?", "references": ["a red dog"]}]
    task = make_task(
        rows=rows, languages=["en"], metrics=["exact_match", "cider"], main_metric="exact_match"
    )
    (result,) = score_run(make_run(task))
    assert row(result, "exact_match", "en")["n"] == 1
    assert not [s for s in result["scores"] if s["metric"] == "cider"]
    assert result["skipped"] == [
        {
            "metric": "cider",
            "language": "en",
            "reason": "needs at least 2 scored samples, there is 1",
        }
    ]


def test_when_every_sample_failed_there_is_no_value_and_no_nan(
    make_task: MakeTask, make_run: MakeRun
) -> None:
    run = make_run(make_task(), {(str(i), "de"): failed(str(i), "de") for i in range(8)})
    (result,) = score_run(run)
    score = row(result, "exact_match", "de")
    assert (score["value"], score["ci95"], score["n"], score["n_failed"]) == (None, None, 0, 8)
    assert "NaN" not in (run / "animals" / "result.json").read_text()
    assert ("transfer_gap", "de") in [(s["metric"], s["language"]) for s in result["skipped"]]


def test_scoring_twice_and_in_another_order_writes_the_same_bytes(
    make_task: MakeTask, make_run: MakeRun
) -> None:
    run = make_run(make_task(), {("0", "de"): "falsch"})
    score_run(run)
    first = (run / "animals" / "result.json").read_bytes()
    score_run(run)
    assert (run / "animals" / "result.json").read_bytes() == first
    predictions = run / "animals" / "predictions.jsonl"
    lines = predictions.read_text().splitlines(keepends=True)
    predictions.write_text("".join(reversed(lines)))
    score_run(run)
    assert (run / "animals" / "result.json").read_bytes() == first


def test_categories_have_rows_of_their_own_and_a_single_category_has_none(
    make_task: MakeTask, make_run: MakeRun
) -> None:
    (result,) = score_run(make_run(make_task(), {("1", "de"): "falsch"}))
    detail = row(result, "exact_match", "de", "category=detail")
    assert (detail["value"], detail["n"]) == (75.0, 4)
    assert row(result, "exact_match", "de", "category=conversation")["value"] == 100
    rows = [{"id": "1", "language": "en", "references": ["a"], "category": "only"}]
    (single,) = score_run(make_run(make_task("one", rows, languages=["en"]), run="one"))
    assert {s["subset"] for s in single["scores"]} == {""}


def test_an_open_question_is_neither_scored_nor_counted_as_failed_by_a_metric_of_closed_ones(
    make_task: MakeTask, make_run: MakeRun
) -> None:
    rows = [
        {"id": f"{i}", "language": "en", "references": ["a"], "closed": i < 3} for i in range(6)
    ]
    task = make_task("mixed", rows, languages=["en"], metrics=["exact_match", "contains"])
    (result,) = score_run(make_run(task, {("5", "en"): failed("5", "en")}))
    closed, open_ = row(result, "exact_match", "en"), row(result, "contains", "en")
    assert (closed["n"], closed["n_failed"]) == (3, 0)
    assert (open_["n"], open_["n_failed"]) == (2, 1)


def test_a_metric_that_applies_to_no_sample_is_listed_as_skipped(
    make_task: MakeTask, make_run: MakeRun
) -> None:
    task = make_task(metrics=["exact_match", "contains"])
    (result,) = score_run(make_run(task))
    skipped = [(s["metric"], s["reason"]) for s in result["skipped"] if s["language"] == "de"]
    assert skipped == [("contains", "the metric applies to no sample")]
    assert not [s for s in result["scores"] if s["metric"] == "contains"]


def test_a_language_that_a_metric_does_not_know_is_skipped_with_a_reason(
    make_task: MakeTask, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ExactMatch, "supports", lambda self, language: language != "zh")
    (result,) = score_run(make_run(make_task()))
    assert {s["language"] for s in result["scores"]} == {"en", "de"}
    assert [(s["metric"], s["language"]) for s in result["skipped"]] == [
        ("exact_match", "zh"),
        ("transfer_gap", "zh"),
    ]


def test_transfer_is_computed_on_the_samples_scored_in_both_languages(
    make_task: MakeTask, make_run: MakeRun
) -> None:
    outputs: dict[Any, Any] = {
        ("0", "en"): failed("0", "en"),
        ("1", "de"): failed("1", "de"),
        ("2", "en"): "wrong",
        ("3", "de"): "falsch",
        ("4", "de"): "falsch",
    }
    (result,) = score_run(make_run(make_task(), outputs))
    pairs = [str(i) for i in range(2, 8)]
    en = np.array([[outputs.get((i, "en"), "right") != "wrong", 1] for i in pairs], float)
    de = np.array([[outputs.get((i, "de"), "right") != "falsch", 1] for i in pairs], float)
    gap, retention = row(result, "transfer_gap", "de"), row(result, "retention", "de")
    assert row(result, "pivot_score", "de")["value"] == pytest.approx(
        100 * en[:, 0].mean(), rel=1e-11
    )
    assert gap["value"] == pytest.approx(100 * (en[:, 0].mean() - de[:, 0].mean()), rel=1e-11)
    assert retention["value"] == pytest.approx(100 * de[:, 0].mean() / en[:, 0].mean(), rel=1e-11)
    assert (gap["n"], gap["n_failed"], gap["higher_is_better"]) == (6, 2, False)
    clusters = [f"picture {int(i) // 2}" for i in pairs]
    oracle = paired(cluster_sums(en, clusters), cluster_sums(de, clusters), ExactMatch().aggregate)[
        "gap"
    ].ci95
    assert gap["ci95"] == pytest.approx(oracle, rel=1e-11)
    # the languages' own rows keep every sample that was scored
    assert row(result, "exact_match", "en")["n"] == 7


def test_transfer_is_also_given_for_the_main_subset(make_task: MakeTask, make_run: MakeRun) -> None:
    task = make_task(main_subset="category=detail")
    (result,) = score_run(make_run(task, {("1", "de"): "falsch", ("2", "de"): "falsch"}))
    assert row(result, "transfer_gap", "de")["value"] == 25.0
    main = row(result, "transfer_gap", "de", "category=detail")
    assert (main["value"], main["n"]) == (25.0, 4)
    assert not [s for s in result["scores"] if s["language"] == "en" and s["metric"] == "retention"]


def test_an_id_that_only_one_language_has_is_counted_as_unpaired(
    make_task: MakeTask, make_run: MakeRun
) -> None:
    rows = [{"id": i, "language": "en", "references": ["a"]} for i in "123"]
    rows += [{"id": i, "language": "de", "references": ["a"]} for i in "234"]
    (result,) = score_run(make_run(make_task("uneven", rows, languages=["en", "de"])))
    notes = {n["name"]: n["value"] for n in result["notes"]}
    assert notes["n_unpaired"] == 2
    assert row(result, "transfer_gap", "de")["n"] == 2


def test_languages_without_a_common_id_have_no_transfer(
    make_task: MakeTask, make_run: MakeRun
) -> None:
    rows = [{"id": f"{tag}{i}", "language": tag, "references": ["a"]}
            for tag in ("en", "de") for i in range(3)]  # fmt: skip
    (result,) = score_run(make_run(make_task("apart", rows, languages=["en", "de"])))
    assert {s["metric"] for s in result["scores"]} == {"exact_match"}
    assert "scored in both" in result["skipped"][0]["reason"]


def test_without_the_pivot_there_is_no_transfer(make_task: MakeTask, make_run: MakeRun) -> None:
    (result,) = score_run(make_run(make_task(), languages=["de"]))
    assert {s["metric"] for s in result["scores"]} == {"exact_match"}


def test_scores_carry_the_label_of_the_training_record(
    make_task: MakeTask, make_run: MakeRun
) -> None:
    (result,) = score_run(make_run(make_task(), training_record=RECORD))
    labels = {s["language"]: s["label"] for s in result["scores"]}
    assert labels == {"en": "pivot", "de": "quasi-zero-shot", "zh": "zero-shot"}
    assert result["zero_shot"]["zh"]["label"] == "zero-shot"
    assert "text-only samples in align: 5" in result["zero_shot"]["zh"]["evidence"]


def test_fidelity_comes_with_the_error_of_the_identifier_on_the_references(
    make_task: MakeTask, make_run: MakeRun
) -> None:
    rows = [{"id": str(i), "language": "de", "references": [text]}
            for i, text in enumerate(("ein Feuerwehrauto", "这是一只猫"))]  # fmt: skip
    task = make_task("names", rows, languages=["de"], metrics=["fidelity"], main_metric="fidelity")
    (result,) = score_run(make_run(task))
    assert [(n["name"], n["value"]) for n in result["notes"]] == [("fidelity_reference_error", 50)]


def test_an_interrupted_run_is_not_scored(make_task: MakeTask, make_run: MakeRun) -> None:
    run = make_run(make_task(), {("3", "de"): None, ("4", "zh"): None})
    with pytest.raises(UserError, match=r"2 of 24 samples.*run the same command to continue"):
        score_run(run)
    assert not (run / "animals" / "result.json").exists()


def test_a_line_cut_off_by_a_kill_is_an_interrupted_run(
    make_task: MakeTask, make_run: MakeRun
) -> None:
    run = make_run(make_task())
    path = run / "animals" / "predictions.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"cut off.*run the same command to continue"):
        score_run(run)


def test_a_run_without_predictions_is_an_interrupted_run(
    make_task: MakeTask, make_run: MakeRun
) -> None:
    run = make_run(make_task())
    (run / "animals" / "predictions.jsonl").unlink()
    with pytest.raises(UserError, match="24 of 24 samples"):
        score_run(run)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (Prediction("9", "de", ""), r"predictions.jsonl:25: unknown sample id .* '9'"),
        (Prediction("1", "fr", ""), r"predictions.jsonl:25: unknown sample id in language 'fr'"),
        (Prediction("1", "de", ""), r"predictions.jsonl:25: second prediction for id '1'"),
    ],
)
def test_a_line_that_belongs_to_no_sample_or_to_one_that_is_done_is_named(
    make_task: MakeTask, make_run: MakeRun, line: Prediction, message: str
) -> None:
    run = make_run(make_task())
    with (run / "animals" / "predictions.jsonl").open("a") as file:
        file.write(json.dumps(dataclasses.asdict(line)) + "\n")
    with pytest.raises(UserError, match=message):
        score_run(run)


def test_a_changed_task_file_is_refused(make_task: MakeTask, make_run: MakeRun) -> None:
    run = make_run(make_task())
    make_task(version=2)
    with pytest.raises(UserError, match=r"task file 'animals' has changed.*version 1 then, 2 now"):
        score_run(run)


def test_changed_data_are_refused(make_task: MakeTask, make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(make_task())
    data = tmp_path / "animals" / "samples.jsonl"
    data.write_text(data.read_text().replace('["de 1"]', '["de one"]'))
    with pytest.raises(UserError, match="data of task 'animals' have changed"):
        score_run(run)


def test_a_metric_of_another_kind_is_refused(make_task: MakeTask, make_run: MakeRun) -> None:
    with pytest.raises(UserError, match="'accuracy' cannot score kind 'generate'"):
        score_run(make_run(make_task(metrics=["accuracy"], main_metric="accuracy")))


def test_a_folder_that_is_no_run_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not a run folder.*mpm-eval run"):
        score_run(tmp_path)


@pytest.mark.parametrize("kind", ["generate", "choose", "probe"])
def test_a_run_of_the_echo_backend_is_scored_and_its_result_follows_the_schema(
    make_task: MakeTask, tmp_path: Path, kind: str
) -> None:
    from mpm_eval.backends.echo import open_echo
    from mpm_eval.stages.generate import run_tasks

    metric = {"generate": "exact_match", "choose": "accuracy", "probe": "retrieval_p1"}[kind]
    rows = [
        {"id": str(i), "language": tag, "question": f"{tag} {i}", "references": [f"x {i}"]}
        | ({"options": [f"x {i}", "y", "z"]} if kind == "choose" else {})
        for tag in ("en", "de")
        for i in range(12)
    ]
    task = make_task(
        "echoed", rows, kind=kind, languages=["en", "de"], metrics=[metric], main_metric=metric
    )
    backend = open_echo("pivot" if kind != "probe" else "", 0)
    run = run_tasks([task], backend, model_spec="echo", out=tmp_path / "run", limit=10)
    (result,) = score_run(run)
    jsonschema.validate(
        json.loads((run / "echoed" / "result.json").read_text()), json_schema("result")
    )
    assert (result["limit"], result["num_samples"]) == (10, 20)
    assert load_result(run / "echoed" / "result.json").task.kind == kind
    if kind != "probe":
        assert row(result, metric, "en")["value"] == 100
        assert row(result, "transfer_gap", "de")["value"] == 100
        assert row(result, "retention", "de")["value"] == 0


# somebody else's predictions


def lines(task: Any, **more: Any) -> list[dict[str, Any]]:
    dataset = open_dataset(task)
    return [
        {"id": s.id, "language": s.language, **(more or {"output": s.references[0]})}
        for tag in task.languages
        for s in dataset.samples(tag)
    ]


def write_lines(path: Path, content: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in content))
    return path


CHOICES: list[dict[str, Any]] = [
    {"id": str(i), "language": "en", "question": f"{i}?", "options": ["a", "b"], "answer": i % 2}
    for i in range(4)
]


def choice_task(make_task: MakeTask) -> Any:
    return make_task(
        "choices", CHOICES, kind="choose", languages=["en"], metrics=["accuracy"],
        main_metric="accuracy",
    )  # fmt: skip


def test_outputs_of_somebody_else_become_a_scored_run_labelled_unknown(
    make_task: MakeTask, tmp_path: Path
) -> None:
    task = make_task()
    file = write_lines(tmp_path / "p.jsonl", lines(task))
    run = score_predictions(task, file, "theirs", tmp_path / "out")
    result = json.loads((run / "animals" / "result.json").read_text())
    jsonschema.validate(result, json_schema("result"))
    assert row(result, "exact_match", "zh")["value"] == 100
    assert {s["label"] for s in result["scores"]} == {"unknown"}
    assert result["model"]["name"] == "theirs"
    assert json.loads((run / "run.json").read_text())["tasks"] == ["animals"]
    assert score_run(run) == [result]


def test_the_default_folder_is_the_name_under_results_runs(
    make_task: MakeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    task = make_task()
    file = write_lines(tmp_path / "p.jsonl", lines(task))
    assert score_predictions(task, file, "theirs") == Path("results/runs/theirs")


def test_a_choice_counts_as_the_option_with_the_highest_score(
    make_task: MakeTask, tmp_path: Path
) -> None:
    task = choice_task(make_task)
    content: list[dict[str, Any]] = [
        {"id": "0", "language": "en", "choice": 0},
        {"id": "1", "language": "en", "choice": 1},
        {"id": "2", "language": "en", "option_scores": [
            {"logprob": -2.5, "num_tokens": 1}, {"logprob": -1.5, "num_tokens": 1}]},
        {"id": "3", "language": "en", "error": "refused by the server"},
    ]  # fmt: skip
    run = score_predictions(task, write_lines(tmp_path / "p.jsonl", content), "x", tmp_path / "o")
    score = row(json.loads((run / "choices" / "result.json").read_text()), "accuracy", "en")
    assert (score["value"], score["n"], score["n_failed"]) == (pytest.approx(200 / 3), 3, 1)


def test_the_predictions_of_a_run_are_themselves_a_valid_predictions_file(
    make_task: MakeTask, make_run: MakeRun, tmp_path: Path
) -> None:
    task = make_task()
    source = make_run(task, {("0", "de"): "falsch", ("1", "de"): failed("1", "de")})
    (first,) = score_run(source)
    run = score_predictions(
        task, source / "animals" / "predictions.jsonl", "copy", tmp_path / "copy"
    )
    copy = json.loads((run / "animals" / "result.json").read_text())
    assert copy["scores"] == first["scores"]
    assert copy["predictions_sha256"] == first["predictions_sha256"]


GOOD = {"id": "0", "language": "en", "choice": 0}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"id": "0", "language": "en", "answer": "b"}, r"p.jsonl:1: unknown key 'answer'"),
        ({"id": "0", "choice": 1}, r"p.jsonl:1: key 'language' is missing"),
        ({**GOOD, "choice": "a"}, r"p.jsonl:1: choice: expected an integer"),
        ({**GOOD, "choice": True}, r"p.jsonl:1: choice: expected an integer"),
        ({**GOOD, "choice": 2}, r"p.jsonl:1: choice: 2 is not the index of an option; .* 0 to 1"),
        ({**GOOD, "choice": -1}, r"p.jsonl:1: choice: -1 is not the index"),
        ({**GOOD, "id": "00"}, r"p.jsonl:1: unknown sample id in language 'en' '00'; did you mean"),
        ({**GOOD, "language": "ne"}, r"p.jsonl:1: unknown language 'ne'; known: en"),
        ({"id": "0", "language": "en", "output": "a"}, r"p.jsonl:1: give either 'choice'"),
        ({**GOOD, "option_scores": [{"logprob": -1, "num_tokens": 1}]}, r"p.jsonl:1: give either"),
        ({"id": "0", "language": "en", "option_scores": [{"logprob": -1.0, "num_tokens": 1}]},
         r"p.jsonl:1: option_scores: got 1 scores, sample '0' has 2 options"),
        ({"id": "0", "language": "en", "option_scores": [{"logprob": -1.0, "num_tokens": 1},
                                                         {"logprob": -1.0, "num_tokens": 0}]},
         r"p.jsonl:1: option_scores\[1\]: .* num_tokens at least 1"),
    ],
)  # fmt: skip
def test_each_mistake_in_a_line_is_named_with_file_and_line(
    make_task: MakeTask, tmp_path: Path, line: dict[str, Any], message: str
) -> None:
    file = write_lines(tmp_path / "p.jsonl", [line])
    with pytest.raises(UserError, match=message):
        score_predictions(choice_task(make_task), file, "x", tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_a_logprob_that_is_not_finite_is_refused(make_task: MakeTask, tmp_path: Path) -> None:
    scores = '[{"logprob": 1e999, "num_tokens": 1}, {"logprob": -1, "num_tokens": 1}]'
    file = tmp_path / "p.jsonl"
    file.write_text('{"id": "0", "language": "en", "option_scores": ' + scores + "}\n")
    with pytest.raises(UserError, match=r"p.jsonl:1: .*finite"):
        score_predictions(choice_task(make_task), file, "x", tmp_path / "o")


def test_a_line_that_is_not_json_is_named(make_task: MakeTask, tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text(json.dumps(GOOD) + "\n{'id': 1}\n")
    with pytest.raises(UserError, match=r"p.jsonl:2: not valid JSON"):
        score_predictions(choice_task(make_task), file, "x", tmp_path / "o")


def test_a_second_line_for_a_sample_names_the_first(make_task: MakeTask, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "p.jsonl", [GOOD, GOOD])
    with pytest.raises(UserError, match=r"p.jsonl:2: second prediction.*first is in line 1"):
        score_predictions(choice_task(make_task), file, "x", tmp_path / "o")


def test_missing_samples_are_counted_and_the_first_ones_named(
    make_task: MakeTask, tmp_path: Path
) -> None:
    task = make_task()
    file = write_lines(tmp_path / "p.jsonl", lines(task)[:18])
    with pytest.raises(UserError, match=r"6 of 24 samples have no prediction: 2 \(zh\), 3 \(zh\)"):
        score_predictions(task, file, "x", tmp_path / "o")


def test_with_languages_only_those_are_expected(make_task: MakeTask, tmp_path: Path) -> None:
    task = make_task()
    file = write_lines(tmp_path / "p.jsonl", lines(task)[:18])  # en, de, two of zh
    run = score_predictions(task, file, "x", tmp_path / "o", ["de", "en"])
    assert json.loads((run / "animals" / "result.json").read_text())["languages"] == ["de", "en"]


def test_a_generate_task_wants_outputs(make_task: MakeTask, tmp_path: Path) -> None:
    task = make_task()
    for content, message in (
        ({"choice": 0}, "no options to choose from; give 'output'"),
        ({"prompt": "x"}, "no answer; give 'output', or 'error'"),
    ):
        file = write_lines(tmp_path / "p.jsonl", lines(task, **content))
        with pytest.raises(UserError, match=f"p.jsonl:1: .*{message}"):
            score_predictions(task, file, "x", tmp_path / "o")


def test_the_same_predictions_may_be_scored_again_and_others_are_refused(
    make_task: MakeTask, tmp_path: Path
) -> None:
    task = make_task()
    file = write_lines(tmp_path / "p.jsonl", lines(task))
    run = score_predictions(task, file, "x", tmp_path / "o")
    first = (run / "animals" / "result.json").read_bytes()
    score_predictions(task, file, "x", tmp_path / "o")
    assert (run / "animals" / "result.json").read_bytes() == first
    write_lines(file, lines(task, output="other"))
    with pytest.raises(UserError, match="holds other predictions"):
        score_predictions(task, file, "x", tmp_path / "o")
    with pytest.raises(UserError, match="holds another run"):
        score_predictions(task, file, "y", tmp_path / "o")
    assert (run / "animals" / "result.json").read_bytes() == first


def test_a_second_task_is_added_to_the_same_name(make_task: MakeTask, tmp_path: Path) -> None:
    first, second = make_task(), make_task("beasts")
    for task in (first, second):
        file = write_lines(tmp_path / "p.jsonl", lines(task))
        run = score_predictions(task, file, "x", tmp_path / "o")
    assert [r["task"]["name"] for r in score_run(run)] == ["animals", "beasts"]
    assert json.loads((run / "run.json").read_text())["tasks"] == ["animals", "beasts"]


def test_a_name_that_leads_out_of_the_folder_is_refused(
    make_task: MakeTask, tmp_path: Path
) -> None:
    task = make_task()
    file = write_lines(tmp_path / "p.jsonl", lines(task))
    with pytest.raises(UserError, match="cannot name a run"):
        score_predictions(task, file, "../x")


# schemas and the loader


@pytest.mark.parametrize(
    ("line", "valid"),
    [
        ({"id": "1", "language": "de", "output": ""}, True),
        ({"id": "1", "language": "de", "choice": 0}, True),
        ({"id": "1", "language": "de", "error": "x"}, True),
        ({"id": "1", "language": "de", "choice": -1}, False),
        ({"id": "1", "language": "de"}, False),
        ({"id": "1", "language": "de", "error": ""}, False),
        ({"id": "1", "language": "de", "option_scores": []}, False),
        ({"id": "1", "language": "de", "output": "x", "score": 1}, False),
        ({"id": 1, "language": "de", "output": "x"}, False),
    ],
)
def test_the_schema_of_a_prediction_accepts_what_the_reader_accepts(
    line: dict[str, Any], valid: bool
) -> None:
    schema = json_schema("prediction")
    jsonschema.Draft202012Validator.check_schema(schema)
    assert jsonschema.Draft202012Validator(schema).is_valid(line) == valid


def test_every_shipped_task_file_follows_the_schema_of_a_task() -> None:
    schema = jsonschema.Draft202012Validator(json_schema("task"))
    files = sorted(shipped("tasks").glob("*.toml"))
    assert files
    for file in files:
        content = {"name": file.stem, **tomllib.loads(file.read_text(encoding="utf-8"))}
        schema.validate(content)


def test_an_unknown_schema_is_named() -> None:
    with pytest.raises(UserError, match="unknown schema 'results'; did you mean 'result'"):
        json_schema("results")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "newer than 1.*install a newer mpm-eval"),
        ({"schema_version": "1"}, "expected a number from 1 to 1, got '1'"),
        ({"schema_version": True}, "expected a number from 1 to 1, got True"),
        ({"comment": "x"}, "unknown key 'comment'"),
        ({"seed": "0"}, "seed: expected an integer"),
    ],
)
def test_a_result_of_a_newer_version_or_with_wrong_fields_is_refused(
    make_task: MakeTask, make_run: MakeRun, change: dict[str, Any], message: str
) -> None:
    run = make_run(make_task())
    score_run(run)
    path = run / "animals" / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=message):
        load_result(path)
