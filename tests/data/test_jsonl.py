"""Bring your own: a JSONL file with pictures, and what is said about mistakes in it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mpm_eval.data.jsonl import open_jsonl
from mpm_eval.errors import CorruptImage, UserError
from mpm_eval.schema import Task

MakeTask = Callable[..., Task]
CAT = {"id": "1", "language": "en", "image": "cat.png", "question": "What?", "references": ["cat"]}
MAO = {**CAT, "language": "zh", "question": "什么？", "references": ["猫", "小猫"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    Image.new("RGBA", (5, 3), (255, 0, 0, 255)).save(folder / "cat.png")
    return folder


def write(folder: Path, *lines: dict[str, Any], name: str = "samples.jsonl") -> None:
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (folder / name).write_text(text, "utf-8")


def test_lines_become_samples(folder: Path, make_task: MakeTask) -> None:
    write(folder, {**CAT, "category": "pets", "closed": False}, MAO)
    dataset = open_jsonl(make_task(source="jsonl", path="mine"))
    (sample,) = dataset.samples("en")
    assert (sample.id, sample.question, sample.references) == ("1", "What?", ("cat",))
    assert (sample.category, sample.closed, sample.cluster) == ("pets", False, "cat.png")
    assert dataset.samples("zh")[0].references == ("猫", "小猫")
    picture = dataset.load_image("cat.png")
    assert (picture.mode, picture.size) == ("RGB", (5, 3))
    assert dataset.description["parallel"] == "yes"


def test_another_file_name_can_be_given(folder: Path, make_task: MakeTask) -> None:
    write(folder, CAT, MAO, name="other.jsonl")
    assert open_jsonl(make_task(source="jsonl", path="mine", file="other.jsonl")).samples("en")


def test_options_give_the_answer_by_index_or_by_the_first_reference(
    folder: Path, make_task: MakeTask
) -> None:
    options = {"options": ["dog", "cat"]}
    write(
        folder,
        {"id": "1", "language": "en", "answer": 1, **options},
        {"id": "2", "language": "en", "references": ["cat"], **options},
    )
    dataset = open_jsonl(make_task("choose", ("en",), source="jsonl", path="mine"))
    assert [(s.answer, s.references) for s in dataset.samples("en")] == [(1, ("cat",))] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"refrences": ["x"]}, "refrences"),
        ({"references": []}, "field 'references': is empty"),
        ({"references": ["cat", " "]}, "empty text"),
        ({"references": "cat"}, "references"),
        ({"image": "dog.png"}, "field 'image': no file"),
        ({"image": "../secret.png"}, "lies outside"),
        ({"image": "/etc/hostname"}, "lies outside"),
        ({"id": ""}, "field 'id': is empty"),
        ({"id": 7}, "id"),
        ({"options": ["a", "b"]}, "remove the options"),
        ({"language": "de"}, "no samples in zh; 1 rows are in other languages"),
        ({"language": "en"}, "is already in .*samples.jsonl:1"),
    ],
)
def test_a_bad_line_is_named_with_file_and_line(
    folder: Path, make_task: MakeTask, change: dict[str, Any], message: str
) -> None:
    (folder.parent / "secret.png").write_bytes(b"x")
    write(folder, CAT, {**MAO, **change})
    with pytest.raises(UserError, match=message) as caught:
        open_jsonl(make_task(source="jsonl", path="mine"))
    assert "samples.jsonl" in str(caught.value)
    assert "\n" not in str(caught.value)
    if "language" not in change:
        assert "samples.jsonl:2" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": ["cat"], "answer": 0}, "at least two, got 1"),
        ({"options": ["cat", "cat"], "answer": 0}, "the same option twice"),
        ({"options": ["dog", "cat"], "answer": 2}, "2 is not the index of an option"),
        ({"options": ["dog", "cat"], "answer": -1}, "-1 is not the index of an option"),
        ({"options": ["dog", "cat"]}, "field 'answer': missing"),
        (
            {"options": ["dog", "cat"], "answer": 0, "references": ["cat"]},
            "must be the right option",
        ),
    ],
)
def test_bad_options_are_named(
    folder: Path, make_task: MakeTask, change: dict[str, Any], message: str
) -> None:
    write(folder, {"id": "1", "language": "en", **change})
    with pytest.raises(UserError, match=message):
        open_jsonl(make_task("choose", ("en",), source="jsonl", path="mine"))


def test_a_link_out_of_the_folder_is_refused(folder: Path, make_task: MakeTask) -> None:
    Image.new("RGB", (2, 2)).save(folder.parent / "secret.png")
    (folder / "link.png").symlink_to(folder.parent / "secret.png")
    write(folder, {**CAT, "image": "link.png"}, MAO)
    with pytest.raises(UserError, match="lies outside"):
        open_jsonl(make_task(source="jsonl", path="mine"))


def test_a_corrupt_picture_is_found_when_it_is_loaded(folder: Path, make_task: MakeTask) -> None:
    (folder / "cat.png").write_bytes(b"\x89PNG but no more")
    write(folder, CAT, MAO)
    dataset = open_jsonl(make_task(source="jsonl", path="mine"))
    with pytest.raises(CorruptImage, match=r"cat\.png"):
        dataset.load_image("cat.png")


def test_the_hash_follows_lines_and_pictures(folder: Path, make_task: MakeTask) -> None:
    def digest() -> str:
        return open_jsonl(make_task(source="jsonl", path="mine")).sha256

    write(folder, CAT, MAO)
    first = digest()
    assert digest() == first
    write(folder, {**CAT, "references": ["kitten"]}, MAO)
    second = digest()
    Image.new("RGB", (5, 3)).save(folder / "cat.png")
    assert len({first, second, digest()}) == 3


def test_samples_of_one_language_only_are_counted(folder: Path, make_task: MakeTask) -> None:
    write(folder, CAT, MAO, {**CAT, "id": "2"}, {**CAT, "id": "3", "language": "de"})
    description = open_jsonl(make_task(source="jsonl", path="mine")).description
    assert description["parallel"] == "no: 1 ids are not in every language"
    assert description["left_out"] == "1 rows in other languages"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"path": "nowhere"}, "no folder"),
        ({"path": "mine", "file": "none.jsonl"}, "no file"),
        ({"path": "mine", "file": "../x.jsonl"}, "lies outside"),
        ({}, "path"),
    ],
)
def test_a_missing_folder_or_file_is_named(
    folder: Path, make_task: MakeTask, data: dict[str, str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        open_jsonl(make_task(source="jsonl", **data))


def test_a_probe_needs_only_texts(folder: Path, make_task: MakeTask) -> None:
    write(
        folder,
        {"id": "1", "language": "en", "question": "cat"},
        {"id": "1", "language": "zh", "question": "猫"},
    )
    dataset = open_jsonl(make_task("probe", source="jsonl", path="mine"))
    (sample,) = dataset.samples("zh")
    assert (sample.image, sample.references, sample.cluster) == (None, ("猫",), "1")
