"""xFlickr&CO: captions and pictures to queries and candidates."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mpm_eval.data import open_dataset
from mpm_eval.errors import UserError
from mpm_eval.tasks import load_task
from tests.data.benchmarks.conftest import XFLICKR, edit, write_xflickrco

IDS = tuple(str(100 + index) for index in range(12))


def test_a_caption_asks_for_its_picture_among_all(root: Path) -> None:
    write_xflickrco(root)
    dataset = open_dataset(load_task("xflickrco_image"))
    for tag in XFLICKR:
        samples = dataset.samples(tag)
        assert tuple(s.id for s in samples) == IDS
        assert all(s.candidates == IDS and s.references == (s.id,) for s in samples)
        assert (samples[1].question, samples[1].image) == (f"{tag} 1", None)
    assert dataset.description["candidates"] == "12"


def test_a_picture_asks_for_its_caption_among_all(root: Path) -> None:
    write_xflickrco(root)
    dataset = open_dataset(load_task("xflickrco_text"))
    first, second = dataset.samples("de")[:2]
    assert (first.question, first.image, second.image) == ("", "100.jpg", "COCO_val2014_101.jpg")
    assert first.candidates == IDS and first.references == ("100",)
    assert dataset.load_image("100.jpg").size == (8, 6)


def test_an_empty_caption_stays_a_query(root: Path) -> None:
    # the official Spanish and Indonesian files have one each
    edit(write_xflickrco(root) / "es/test.jsonl", lambda rows: rows[3].update(sentences=[""]))
    assert len(open_dataset(load_task("xflickrco_image")).samples("es")) == 12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[2].pop("id"), "tr/test.jsonl:3: key 'id' is missing"),
        (lambda rows: rows[2].update(id=100), "tr/test.jsonl:3: id '100' is given twice"),
        (lambda rows: rows[2].update(sentences=["a", "b"]), "tr/test.jsonl:3: 2 sentences, expected one"),
        (lambda rows: rows[2].update(sentences="a"), "tr/test.jsonl:3: sentences: expected a list, got a string"),
        (lambda rows: rows[2].update(img_path="/x.jpg"), "tr/test.jsonl:3: '/x.jpg' is no file name"),
        (lambda rows: rows.pop(), "tr/test.jsonl: id '111' is only here or only in"),
        (lambda rows: rows[0].update(id="7"), "tr/test.jsonl: id '100' is only here or only in"),
    ],
)  # fmt: skip
def test_a_bad_line_is_named(
    root: Path, change: Callable[[list[dict[str, Any]]], object], message: str
) -> None:
    edit(write_xflickrco(root) / "tr/test.jsonl", change)
    with pytest.raises(UserError) as caught:
        open_dataset(load_task("xflickrco_image"))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_an_empty_file_is_refused(root: Path) -> None:
    (write_xflickrco(root) / "en/test.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match=r"en/test\.jsonl: is empty"):
        open_dataset(load_task("xflickrco_image"))


def test_another_query_is_refused(root: Path) -> None:
    write_xflickrco(root)
    task = load_task("xflickrco_image")
    with pytest.raises(UserError, match=r"data\.query: unknown query 'audio'"):
        open_dataset(replace(task, data={**task.data, "query": "audio"}))
