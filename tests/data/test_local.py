"""Folders of the user's: where they are looked for, and what is missing of them."""

from dataclasses import replace
from pathlib import Path

import pytest

from mpm_eval.data._local import DATA, find_folder, missing, places, require_folder
from mpm_eval.errors import UserError
from mpm_eval.schema import Task
from mpm_eval.tasks import load_task


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return replace(load_task("xvnli"), path=str(tmp_path / "tasks/mine.toml"))


def test_a_folder_beside_the_task_file_comes_before_that_of_the_variable(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DATA, str(tmp_path / "data"))
    (tmp_path / "data/iglue").mkdir(parents=True)
    assert find_folder(task, "iglue") == tmp_path / "data/iglue"
    (tmp_path / "tasks/iglue").mkdir(parents=True)
    assert find_folder(task, "iglue") == tmp_path / "tasks/iglue"


def test_without_the_variable_only_the_place_beside_the_task_file_counts(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(DATA, raising=False)
    assert places(task, "iglue") == (tmp_path / "tasks/iglue",)
    with pytest.raises(UserError) as caught:
        require_folder(task, "iglue", "a.jsonl", "https://example.org")
    assert str(caught.value) == (
        f"{task.path}: data.path: no folder {tmp_path / 'tasks/iglue'} ({DATA} is not set); put "
        f"a.jsonl into the folder 'iglue' inside the one that {DATA} names; get it from "
        "https://example.org"
    )


def test_missing_names_the_folder_then_the_first_file_then_the_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DATA, str(tmp_path))
    task = load_task("xvnli")
    assert missing(task) == "iglue"
    folder = tmp_path / "iglue/datasets/XVNLI/annotations"
    for tag in task.languages:
        (folder / tag).mkdir(parents=True)
        (folder / tag / "test.jsonl").touch()
    (folder / "fr/test.jsonl").unlink()
    assert missing(task) == "iglue/datasets/XVNLI/annotations/fr/test.jsonl"
    (folder / "fr/test.jsonl").touch()
    assert missing(task) == "iglue/images"
    (tmp_path / "flickr30k/images").mkdir(parents=True)
    assert missing(task) == ""


def test_ranking_needs_no_pictures_and_a_list_of_ids_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DATA, str(tmp_path))
    ranked = load_task("xflickrco_image")
    for tag in ranked.languages:
        path = tmp_path / f"iglue/datasets/xFlickrCO/annotations/{tag}/test.jsonl"
        path.parent.mkdir(parents=True)
        path.touch()
    assert missing(ranked) == ""
    texts = load_task("coco_cn")
    (tmp_path / str(texts.data["path"])).mkdir()
    (tmp_path / str(texts.data["path"]) / str(texts.data["file"])).touch()
    assert missing(texts) == "coco-cn-version1805v1.1/coco-cn_test.txt"


def test_shipped_data_is_never_missing() -> None:
    assert missing(load_task("emoji_choice")) == missing(load_task("alignment")) == ""
