"""Pairing: by id and language, whatever the order; what differs is listed, never lost."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpm_eval.errors import UserError
from mpm_eval.items import Items, read_items, write_items
from mpm_eval.schema import Prediction
from mpm_eval.stages.pairing import (
    Side,
    differences_of,
    obstacles_of,
    pair_cell,
    run_sides,
    signature_of,
)
from mpm_eval.stages.score import score_run
from mpm_eval.strict import write_json
from tests.stages.conftest import MakeRun, MakeTask

Outputs = dict[tuple[str, str], Any]
MakeSide = Callable[..., Side]


@pytest.fixture
def make_side(make_task: MakeTask, make_run: MakeRun) -> MakeSide:
    """Return a function that scores a run of "animals" with these outputs."""

    def make(name: str, outputs: Outputs | None = None, **manifest: Any) -> Side:
        left_out = beyond(manifest.get("limit"))
        run = make_run(make_task(), {**(outputs or {}), **left_out}, run=name, **manifest)
        score_run(run)
        return run_sides(run)["animals"]

    return make


def beyond(limit: int | None) -> dict[tuple[str, str], None]:
    """Return no output for the samples that a limited run does not answer."""
    ids = range(8 if limit is None else limit, 8)
    return {(str(i), tag): None for i in ids for tag in ("en", "de", "zh")}


def answer(id_: str, output: str = "", *, error: str = "", input_sha256: str = "") -> Prediction:
    return Prediction(id_, "de", "", output, error=error, input_sha256=input_sha256)


def pair(a: Side, b: Side, subset: str = "") -> Any:
    return pair_cell(a, b, "exact_match", "de", subset)


def change(side: Side, **fields: Any) -> Side:
    return replace(side, result=replace(side.result, **fields))


def test_rows_are_of_the_same_sample_whatever_the_order(make_side: MakeSide) -> None:
    a = make_side("a", {("3", "de"): "falsch"})
    b = make_side("b", {("5", "de"): "falsch"})
    assert b.items is not None
    turned = Items(
        b.items.items[::-1],
        {name: list(rows)[::-1] for name, rows in b.items.statistics.items()},
        b.items.predictions_sha256,
    )
    cell = pair(a, replace(b, items=turned))
    assert [item.id for item in cell.items] == [str(i) for i in range(8)]
    np.testing.assert_array_equal(cell.a[:, 0], [1, 1, 1, 0, 1, 1, 1, 1])
    np.testing.assert_array_equal(cell.b[:, 0], [1, 1, 1, 1, 1, 0, 1, 1])
    assert cell.clusters == [f"picture {i // 2}" for i in range(8)]
    assert cell.changed_output == ("3", "5")
    assert cell.only_a == cell.only_b == cell.failed_a == cell.failed_b == ()


def test_ids_of_one_side_only_are_listed(make_side: MakeSide) -> None:
    a, b = make_side("a"), make_side("b", limit=6)
    assert pair(a, b).only_a == ("6", "7")
    assert pair(b, a).only_b == ("6", "7")
    assert len(pair(a, b).items) == 6


def test_failed_samples_are_listed_and_not_paired(make_side: MakeSide) -> None:
    a = make_side("a", {("1", "de"): answer("1", error="corrupt picture")})
    b = make_side("b", {("2", "de"): answer("2", error="out of memory")})
    cell = pair(a, b)
    assert (cell.failed_a, cell.failed_b) == (("1",), ("2",))
    assert [item.id for item in cell.items] == ["0", "3", "4", "5", "6", "7"]
    assert cell.only_a == cell.only_b == ()


def test_an_input_changed_where_both_hashes_are_known_and_differ(make_side: MakeSide) -> None:
    def outputs(*digests: str) -> Outputs:
        return {
            (str(i), "de"): answer(str(i), f"de {i}", input_sha256=digest)
            for i, digest in enumerate(digests)
        }

    cell = pair(make_side("a", outputs("x", "y", "")), make_side("b", outputs("x", "z", "y")))
    assert cell.changed_input == ("1",)
    assert cell.unknown_input == ("2", "3", "4", "5", "6", "7")


def test_a_subset_pairs_its_samples_only(make_side: MakeSide) -> None:
    cell = pair(make_side("a"), make_side("b"), "category=detail")
    assert [item.id for item in cell.items] == ["1", "3", "5", "7"]


def test_a_language_of_one_side_is_all_unpaired(make_side: MakeSide) -> None:
    cell = pair(make_side("a"), make_side("b", languages=["en", "zh"]))
    assert cell.only_a == tuple(str(i) for i in range(8))
    assert cell.items == () and len(cell.a) == len(cell.b) == 0


def test_a_number_of_another_program_pairs_like_any_metric(make_side: MakeSide) -> None:
    sides = []
    for name, value in (("a", 0.25), ("b", 0.75)):
        side = make_side(name)
        assert side.items is not None
        rows = [(value, 1.0) for _ in side.items.items]
        items = replace(side.items, statistics={"mean:judge": rows})
        sides.append(change(replace(side, items=items), scores=()))
    cell = pair_cell(sides[0], sides[1], "mean:judge", "de", "")
    assert cell.higher_is_better and len(cell.items) == 8
    assert {*cell.a[:, 0], *cell.b[:, 0]} == {0.25, 0.75}


def test_the_scores_say_whether_higher_is_better(make_side: MakeSide) -> None:
    a = make_side("a")
    lower = change(a, scores=tuple(replace(s, higher_is_better=False) for s in a.result.scores))
    assert pair(lower, lower).higher_is_better is False
    with pytest.raises(UserError, match="they are not one metric"):
        pair(a, lower)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda s: replace(s, items=None), "a probe has no items to pair"),
        (lambda s: with_rows(s, [(1.0, 1.0, 1.0)] * 24), "has 3 statistics per item, 2 in"),
        (lambda s: replace(s, items=replace(s.items, statistics={"bleu": []})), "unknown metric 'exact_match'"),
        (lambda s: replace(s, items=twice(s.items)), "a sample is there twice"),
    ],
)  # fmt: skip
def test_sides_that_cannot_be_paired_are_one_line(
    make_side: MakeSide, broken: Callable[[Side], Side], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        pair(make_side("a"), broken(make_side("b")))


def with_rows(side: Side, rows: list[tuple[float, ...]]) -> Side:
    assert side.items is not None
    return replace(side, items=replace(side.items, statistics={"exact_match": rows}))


def twice(items: Items) -> Items:
    rows = {name: list(r) * 2 for name, r in items.statistics.items()}
    return Items(items.items * 2, rows, items.predictions_sha256)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"seed": 3}, "different seed: 0 and 3"),
        ({"limit": 5}, "different limit: none and 5"),
        ({"languages": ("en", "de")}, "different languages: de, en, zh and de, en"),
        ({"decoding": {"strategy": "beam"}}, "different decoding: max_new_tokens=32 and strategy=beam"),
        ({"versions": {"mpm-eval": "9"}}, "different version of mpm-eval: 0 and 9"),
    ],
)  # fmt: skip
def test_what_differs_beside_the_model_is_a_sentence_each(
    make_side: MakeSide, fields: dict[str, Any], sentence: str
) -> None:
    a = make_side("a")
    b = change(a, **fields)
    assert differences_of(a, b) == [sentence]
    assert obstacles_of(a, b, "exact_match", "de") == []


def test_task_data_and_metric_make_values_of_different_things(make_side: MakeSide) -> None:
    a = make_side("a")
    result = a.result
    other = change(
        a,
        task=replace(result.task, version=2, sha256="b" * 64),
        data=replace(result.data, sha256="c" * 64),
        scores=tuple(
            replace(s, signature=s.signature.replace("v:1", "v:2")) for s in result.scores
        ),
    )
    found = obstacles_of(a, other, "exact_match", "de")
    assert [sentence.partition(":")[0] for sentence in found] == [
        "different task version", "different task file", "different data",
        "different metric exact_match (de)",
    ]  # fmt: skip
    assert set(found) <= set(differences_of(a, other))


def test_versions_that_change_nothing_and_intervals_are_no_difference(make_side: MakeSide) -> None:
    a = change(make_side("a"), versions={"python": "3.11", "torch": "2"})
    b = change(
        a,
        versions={"python": "3.12", "numpy": "2"},
        scores=tuple(replace(s, signature=s.signature + "0") for s in a.result.scores),
        model=replace(a.result.model, name="other", sha256="d" * 64),
    )
    assert differences_of(a, b) == []


def test_a_signature_is_without_its_interval(make_side: MakeSide) -> None:
    side = make_side("a")
    expected = "exact_match|refs:any|norm:nfkc,casefold,ends,space,article|v:1"
    assert signature_of(side.result, "exact_match", "de") == expected
    assert signature_of(side.result, "exact_match", "xx") == ""


def test_a_run_gives_every_task_and_a_probe_without_items(
    make_task: MakeTask, make_run: MakeRun
) -> None:
    for name in ("animals", "plants"):
        score_run(run := make_run(make_task(name)))
    result = run / "plants" / "result.json"
    content = json.loads(result.read_text(encoding="utf-8"))
    content["task"]["kind"] = "probe"
    write_json(result, content)
    (run / "plants" / "items.parquet").unlink()
    sides = run_sides(run)
    assert list(sides) == ["animals", "plants"]
    assert sides["animals"].items is not None and sides["plants"].items is None
    assert sides["animals"].where == str(run / "animals")


def not_scored(run: Path) -> None:
    (run / "animals" / "result.json").unlink()


def no_items(run: Path) -> None:
    (run / "animals" / "items.parquet").unlink()


def items_of_other_predictions(run: Path) -> None:
    path = run / "animals" / "items.parquet"
    write_items(path, replace(read_items(path), predictions_sha256="e" * 64))


def nothing(run: Path) -> None:
    for name in ("result.json", "manifest.json"):
        (run / "animals" / name).unlink()


def second_result(run: Path) -> None:
    (run / "copy").mkdir()
    for name in ("result.json", "items.parquet"):
        (run / "copy" / name).write_bytes((run / "animals" / name).read_bytes())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (not_scored, "animals: not scored yet; score it with: mpm-eval score"),
        (no_items, "items.parquet: no such file; write it from the predictions"),
        (items_of_other_predictions, "items.parquet: not the items of the result.json beside it"),
        (nothing, "not a run folder"),
        (second_result, "a second result of task 'animals'"),
    ],
)
def test_a_run_that_cannot_be_read_is_one_line(
    make_task: MakeTask, make_run: MakeRun, damage: Callable[[Path], None], message: str
) -> None:
    score_run(run := make_run(make_task()))
    damage(run)
    with pytest.raises(UserError, match=message):
        run_sides(run)
