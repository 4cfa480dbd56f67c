"""Crossmodal-3600, Multi30K and COCO-CN: official files to samples, and what mistakes say."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpm_eval.data import open_dataset
from mpm_eval.errors import CorruptImage, UserError
from mpm_eval.tasks import load_task
from tests.data.benchmarks.conftest import (
    MULTI30K,
    XM3600,
    edit,
    write_coco_cn,
    write_multi30k,
    write_xm3600,
)


def test_xm3600_gives_all_captions_of_a_picture_in_36_languages(root: Path) -> None:
    write_xm3600(root)
    dataset = open_dataset(load_task("xm3600"))
    assert len(XM3600) == 36
    for tag in XM3600:
        samples = dataset.samples(tag)
        assert [s.id for s in samples] == ["00ab", "01cd"]
        assert samples[1].references == (f"{tag} 01cd one", f"{tag} 01cd two")
        assert (samples[1].image, samples[1].closed) == ("01cd.jpg", False)
    assert dataset.load_image("01cd.jpg").size == (8, 6)
    assert dataset.description["parallel"] == "yes"
    assert dataset.description["pictures_without_captions"] == "none"


def test_a_picture_without_captions_in_a_language_is_left_out_and_counted(root: Path) -> None:
    def empty(rows: list[dict[str, Any]]) -> None:
        rows[0]["mi"]["caption"] = []
        rows[0]["bn"]["caption"] = [" ", "a caption"]

    edit(write_xm3600(root), empty)
    dataset = open_dataset(load_task("xm3600"))
    assert [s.id for s in dataset.samples("mi")] == ["01cd"]
    assert dataset.samples("bn")[0].references == ("a caption",)
    assert dataset.description["pictures_without_captions"] == "mi 1"
    assert dataset.description["parallel"] == "no: 1 ids are not in every language"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[1].pop("image/key"), ":2: key 'image/key': expected a text"),
        (lambda rows: rows[1].update({"image/key": "00ab"}), ":2: field 'id': '00ab' in language 'en' is already in"),
        (lambda rows: rows[0].update({"image/key": "../x"}), ":1: '../x.jpg' is no file name"),
        (lambda rows: rows[0].pop("quz"), ":1: key 'quz' is missing, the captions in that language"),
        (lambda rows: rows[0]["de"].pop("caption"), ":1: de: key 'caption' is missing"),
        (lambda rows: rows[0]["de"].update(caption="x"), ":1: de: caption: expected a list, got a string"),
        (lambda rows: rows[0].update(de=["x"]), ":1: de: expected an object {…}, got list"),
        (lambda rows: rows.clear(), "captions.jsonl: no samples in en, ar"),
    ],
)  # fmt: skip
def test_a_bad_line_of_xm3600_is_named(
    root: Path, change: Callable[[list[dict[str, Any]]], object], message: str
) -> None:
    edit(write_xm3600(root), change)
    with pytest.raises(UserError) as caught:
        open_dataset(load_task("xm3600"))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_cut_line_is_named(root: Path) -> None:
    file = write_xm3600(root)
    file.write_text(file.read_text(encoding="utf-8")[:-40], encoding="utf-8")
    with pytest.raises(UserError, match=r"captions\.jsonl:2: not valid JSON"):
        open_dataset(load_task("xm3600"))


def test_multi30k_joins_the_lines_of_each_language_with_the_list_of_pictures(root: Path) -> None:
    write_multi30k(root)
    dataset = open_dataset(load_task("multi30k"))
    for tag in MULTI30K:
        samples = dataset.samples(tag)
        assert [(s.id, s.image) for s in samples] == [(f"{k}.jpg",) * 2 for k in (7, 8, 9)]
        # a line separator inside a sentence ends no line
        assert samples[2].references == (f"{tag} describes 9.jpg\u2028.",)
    assert dataset.load_image("9.jpg").mode == "RGB"


def test_a_caption_of_coco_is_named_by_its_own_id_not_by_its_picture(root: Path) -> None:
    write_multi30k(root, ("a.jpg#1", "a.jpg#2"))
    samples = open_dataset(load_task("multi30k")).samples("cs")
    assert [(s.id, s.image, s.cluster) for s in samples] == [
        ("a.jpg#1", "a.jpg", "a.jpg"),
        ("a.jpg#2", "a.jpg", "a.jpg"),
    ]


def test_files_of_unequal_length_are_refused(root: Path) -> None:
    file = write_multi30k(root) / "raw/test_2016_flickr.fr.gz"
    file.write_bytes(gzip.compress(b"one\ntwo\n"))
    with pytest.raises(UserError, match=r"fr\.gz: has 2 lines, .*flickr\.txt has 3; they must be"):
        open_dataset(load_task("multi30k"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(b"one\n\nthree\n"), r"fr\.gz:2: field 'references' or 'options': has an empty"),
        (gzip.compress(b"one\ntwo\nthree\n")[:-9], r"fr\.gz: not a whole gzip file of UTF-8 text"),
        (b"one\ntwo\nthree\n", r"fr\.gz: not a whole gzip file of UTF-8 text"),
        (gzip.compress(b"one\ntw\xff\nthree\n"), r"fr\.gz: not a whole gzip file of UTF-8 text"),
        (None, r"fr\.gz: no such file; get it from https://github\.com/multi30k/dataset"),
    ],
    # A gzip file holds the second it was made in: in the test's name it would differ by worker.
    ids=["empty line", "cut off", "not gzip", "not UTF-8", "missing"],
)  # fmt: skip
def test_a_bad_text_file_is_named(root: Path, content: bytes | None, message: str) -> None:
    file = write_multi30k(root) / "raw/test_2016_flickr.fr.gz"
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=message):
        open_dataset(load_task("multi30k"))


def test_coco_cn_gives_the_captions_of_the_pictures_of_its_split(root: Path) -> None:
    write_coco_cn(root)
    dataset = open_dataset(load_task("coco_cn"))
    first, second = dataset.samples("zh")
    assert (first.id, first.references) == ("COCO_val2014_1", ("一只 狗", "狗在跑"))
    assert (second.id, second.references) == ("COCO_train2014_2", ("两只猫",))
    assert dataset.load_image("COCO_val2014_1.jpg").size == (8, 6)
    with pytest.raises(CorruptImage, match=r"COCO_train2014_2\.jpg: no such picture in "):
        dataset.load_image("COCO_train2014_2.jpg")
    assert dataset.description["hub"] == "local files only"


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("coco-cn_test.txt", "COCO_val2014_1\nCOCO_val2014_9\n", "no caption of 'COCO_val2014_9' of .* \\(1 are missing\\)"),
        ("coco-cn_test.txt", "COCO_val2014_1\nCOCO_val2014_1\n", "txt:2: field 'id': 'COCO_val2014_1' .* is already in"),
        ("coco-cn_test.txt", "", "txt: no samples in zh"),
        ("imageid.human-written-caption.txt", "COCO_val2014_1\t没有号码\n", "txt:1: expected PICTURE#NUMBER, a tab"),
        ("imageid.human-written-caption.txt", "COCO_val2014_1#0\t \n", "txt:1: expected PICTURE#NUMBER, a tab"),
    ],
)  # fmt: skip
def test_a_bad_line_of_coco_cn_is_named(root: Path, file: str, text: str, message: str) -> None:
    (write_coco_cn(root) / file).write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        open_dataset(load_task("coco_cn"))
