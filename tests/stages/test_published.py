"""Somebody's published predictions reproduce their published table: rankings, labels, choices."""

import json
import random
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from mpm_eval.errors import UserError
from mpm_eval.stages.generate import run_tasks
from mpm_eval.stages.result_schema import Result, json_schema, load_result
from mpm_eval.stages.score import score_predictions, score_run
from mpm_eval.tasks import load_task
from tests.data.benchmarks.conftest import (
    XGQA,
    root,
    write_jsonl,
    write_mmbench,
    write_xflickrco,
    write_xgqa,
)

__all__ = ["root"]  # a fixture
IDS = [str(100 + index) for index in range(12)]
Lines = list[dict[str, Any]]


def score(task: str, lines: Iterable[Mapping[str, Any]], tmp_path: Path, **more: Any) -> Result:
    write_jsonl(tmp_path / "published.jsonl", lines)
    run = score_predictions(
        load_task(task), tmp_path / "published.jsonl", "m", tmp_path / "run", **more
    )
    return load_result(run / task / "result.json")


def table(result: Result, metric: str) -> dict[str, float | None]:
    return {s.language: s.value for s in result.scores if s.metric == metric and not s.subset}


def rankings(languages: Iterable[str], seed: int = 0) -> Lines:
    """Return the best 10 of 12 candidates for each query, drawn at random."""
    draw = random.Random(seed)
    return [
        {"id": id_, "language": tag, "ranking": draw.sample(IDS, 10)}
        for tag in languages
        for id_ in IDS
    ]


def test_rankings_give_the_table_that_naive_loops_give(root: Path, tmp_path: Path) -> None:
    write_xflickrco(root)
    languages = ["en", "de", "zh"]
    lines = rankings(languages)
    result = score("xflickrco_image", lines, tmp_path, languages=languages)
    for k in (1, 5, 10):
        wanted = {}
        for tag in languages:
            ranks = []
            for line in lines:
                if line["language"] == tag:
                    rank = 10_000
                    for place, candidate in enumerate(line["ranking"]):
                        if candidate == line["id"]:
                            rank = place
                    ranks.append(rank)
            wanted[tag] = 100 * sum(rank < k for rank in ranks) / len(ranks)
        assert table(result, f"recall_at_{k}") == pytest.approx(wanted)
    assert result.num_samples == 3 * 12 and result.num_failed == 0


def test_answer_labels_give_the_table_computed_by_hand(root: Path, tmp_path: Path) -> None:
    # right answers: 101 yes, 102 red, 103 left
    said = {
        "en": ("yes", "red", "left"), "de": ("yes", "red", "right"), "pt": ("Yes", "red ", "left"),
        "ru": ("да", "красный", "слева"),
    }  # fmt: skip
    published = {"en": 100.0, "de": 200 / 3, "pt": 100 / 3, "ru": 0.0}
    write_xgqa(root)
    lines = [
        {"id": id_, "language": tag, "output": output}
        for tag in XGQA
        for id_, output in zip(("101", "102", "103"), said.get(tag, ("no",) * 3), strict=True)
    ]
    result = score("xgqa", lines, tmp_path)
    found = table(result, "exact_match_raw")
    assert {tag: found[tag] for tag in said} == pytest.approx(published)
    # normalising would forgive "Yes" and "red "
    assert table(result, "exact_match")["pt"] == pytest.approx(100.0)


def test_choices_give_circular_accuracy(root: Path, tmp_path: Path) -> None:
    write_mmbench(root)
    right = {"0": 1, "1000000": 0, "2000000": 2, "3": 0, "1000003": 1}
    lines = [
        # in Chinese always the first option
        {"id": id_, "language": tag, "choice": choice if tag == "en" else 0}
        for tag in ("en", "zh")
        for id_, choice in right.items()
    ]
    lines[4]["choice"] = 0  # one rotation of question 3 wrong
    result = score("mmbench", lines, tmp_path)
    assert table(result, "circular_accuracy") == pytest.approx({"en": 50.0, "zh": 0.0})
    assert table(result, "accuracy") == pytest.approx({"en": 80.0, "zh": 40.0})


def test_a_failed_query_is_counted_and_never_scored(root: Path, tmp_path: Path) -> None:
    write_xflickrco(root)
    lines = rankings(["de"])
    lines[0] = {"id": IDS[0], "language": "de", "error": "out of memory"}
    result = score("xflickrco_text", lines, tmp_path, languages=["de"])
    (row,) = [s for s in result.scores if s.metric == "recall_at_10"]
    assert (row.n, row.n_failed) == (11, 1)


def test_a_runs_own_rankings_can_be_scored_again(root: Path, tmp_path: Path) -> None:
    write_xflickrco(root)
    score("xflickrco_image", rankings(["de"]), tmp_path, languages=["de"])
    folder = tmp_path / "run/xflickrco_image"
    first = (folder / "result.json").read_bytes()
    score_run(tmp_path / "run")
    assert (folder / "result.json").read_bytes() == first
    own = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert own[0]["output"] == own[0]["ranking"][0]
    again = score("xflickrco_image", own, tmp_path / "again", languages=["de"])
    assert table(again, "recall_at_5") == table(load_result(folder / "result.json"), "recall_at_5")


def test_another_order_behind_the_first_candidate_is_another_output(
    root: Path, tmp_path: Path
) -> None:
    from mpm_eval.items import read_items

    write_xflickrco(root)
    hashes = []
    for number, ranking in enumerate((IDS[:10], [IDS[0], *IDS[9:0:-1]])):
        lines = [{"id": id_, "language": "de", "ranking": ranking} for id_ in IDS]
        score("xflickrco_image", lines, tmp_path / str(number), languages=["de"])
        path = tmp_path / str(number) / "run/xflickrco_image/items.parquet"
        hashes.append(read_items(path).items[0].output_sha256)
    assert hashes[0] != hashes[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda line: line.pop("ranking"), "published.jsonl:3: ranking: 0 candidates, needs at least the best 10 of 12; or give 'error'"),
        (lambda line: line.update(ranking=IDS[:9]), "published.jsonl:3: ranking: 9 candidates, needs at least the best 10"),
        (lambda line: line.update(ranking=[*IDS[:9], "100"]), "published.jsonl:3: ranking: candidate '100' is given twice"),
        (lambda line: line.update(ranking=[*IDS[:9], "1011"]), "published.jsonl:3: ranking: unknown candidate '1011'; did you mean"),
        (lambda line: line.update(ranking=[100]), "published.jsonl:3: ranking[0]: expected a string, got an integer"),
        (lambda line: line.update(choice=1), "published.jsonl:3: this task has no options to choose from; give 'ranking'"),
    ],
)  # fmt: skip
def test_a_bad_ranking_is_named(
    root: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    write_xflickrco(root)
    lines = rankings(["en"])
    change(lines[2])
    with pytest.raises(UserError) as caught:
        score("xflickrco_image", lines, tmp_path, languages=["en"])
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_ranking_answers_no_question(root: Path, tmp_path: Path) -> None:
    write_xgqa(root)
    with pytest.raises(UserError, match="ranking: this task is of kind 'generate'; remove it"):
        score("xgqa", [{"id": "101", "language": "en", "ranking": ["yes"]}], tmp_path)


def test_no_model_is_run_for_a_ranking_task(root: Path, tmp_path: Path) -> None:
    from mpm_eval.backends.echo import open_echo

    write_xflickrco(root)
    with pytest.raises(
        UserError, match=r"no model is run for here; .*mpm-eval score --predictions"
    ):
        run_tasks([load_task("xflickrco_image")], open_echo("", 0), model_spec="echo", out=tmp_path)


def test_the_published_schema_of_a_line_knows_rankings() -> None:
    from jsonschema import Draft202012Validator

    validator = Draft202012Validator(json_schema("prediction"))
    assert validator.is_valid({"id": "1", "language": "de", "ranking": ["1", "2"]})
    assert not validator.is_valid({"id": "1", "language": "de", "ranking": []})
    assert not validator.is_valid({"id": "1", "language": "de", "ranking": [1]})
