"""Items: what is written is read, what cannot be read is one clear line."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mpm_eval.errors import UserError
from mpm_eval.items import Item, Items, output_sha256, read_items, write_items
from mpm_eval.schema import OptionScore


def item(number: int, language: str = "en", error: str = "", cell: str = "") -> Item:
    return Item(
        f"s{number}", language, f"picture {number // 2}", "", cell, error, "a" * 16, "b" * 16
    )


ITEMS = Items(
    (item(0), item(1, error="corrupt picture"), item(2, cell="seen"), item(0, "de")),
    {"accuracy": [(1.0, 0.25, 1.0), (), (0.0, 0.25, 1.0), (1.0, 0.5, 1.0)],
     "fidelity": [None, None, None, (1.0, 1.0)]},
    "c" * 64,
)  # fmt: skip


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_items(tmp_path / "items.parquet", ITEMS)
    found = read_items(tmp_path / "items.parquet")
    assert found.items == ITEMS.items
    assert found.predictions_sha256 == ITEMS.predictions_sha256
    for metric, rows in ITEMS.statistics.items():
        assert [r if r is None else tuple(r) for r in found.statistics[metric]] == rows


def test_the_same_items_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_items(tmp_path / name, ITEMS)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_cell_holds_scored_items_and_counts_failed_ones() -> None:
    cell = ITEMS.cell("accuracy", "en")
    assert [i.id for i in cell.items] == ["s0", "s2"]
    assert [i.id for i in cell.failed] == ["s1"]
    assert cell.clusters == ["picture 0", "picture 1"]
    np.testing.assert_array_equal(cell.statistics, [[1, 0.25, 1], [0, 0.25, 1]])


def test_a_cell_of_a_subset_holds_its_items_only() -> None:
    assert [i.id for i in ITEMS.cell("accuracy", "en", "cell=seen").items] == ["s2"]


def test_a_metric_that_applies_to_nothing_makes_an_empty_cell() -> None:
    cell = ITEMS.cell("fidelity", "en")
    assert cell.items == () and cell.failed == () and cell.statistics.shape == (0, 0)


def test_an_unknown_metric_is_named_with_the_nearest_one() -> None:
    with pytest.raises(UserError, match="did you mean 'accuracy'"):
        ITEMS.cell("accurasy", "en")


def test_outputs_differ_by_text_and_by_option_scores() -> None:
    one, two = (OptionScore(-1.0, 1),), (OptionScore(-1.5, 1),)
    digests = {output_sha256("dog"), output_sha256("dog", one), output_sha256("dog", two)}
    assert len(digests) == 3


def damage_cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def damage_empty(path: Path) -> None:
    path.write_bytes(b"")


def damage_other_table(path: Path) -> None:
    pq.write_table(pa.table({"id": ["s0"]}), path)


def damage_newer(path: Path) -> None:
    table = pq.read_table(path)
    meta = {"schema_version": 99, "predictions_sha256": ""}
    pq.write_table(table.replace_schema_metadata({b"mpm-eval": json.dumps(meta).encode()}), path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (Path.unlink, "no such file; write it from the predictions with: mpm-eval score"),
        (damage_cut, "not a file of items"),
        (damage_empty, "not a file of items"),
        (damage_other_table, "not a file of items"),
        (damage_newer, "newer mpm-eval"),
    ],
)
def test_a_damaged_file_is_one_line(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    path = tmp_path / "items.parquet"
    write_items(path, ITEMS)
    damage(path)
    with pytest.raises(UserError, match=message):
        read_items(path)
