"""COCO captions: the layout of captions_val2014.json, one caption of each picture, a translation."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mpm_eval.data import open_dataset
from mpm_eval.data._local import missing
from mpm_eval.errors import UserError
from mpm_eval.schema import Task
from mpm_eval.stages.generate import run_tasks
from mpm_eval.tasks import load_task
from tests.data.benchmarks.conftest import picture, write_json
from tests.stages.paint_runs import Painter

FILES = {"en": "captions_val2014.json", "zh": "captions_val2014_zh.json"}


def official(number: int = 4, language: str = "en") -> dict[str, Any]:
    """Return a file as cocodataset.org ships it: invented captions, two of each picture."""
    ids = [391895 + 7 * i for i in range(number)]
    return {
        "info": {"description": "COCO 2014 Dataset", "url": "http://cocodataset.org", "version": "1.0",
                 "year": 2014, "contributor": "COCO Consortium", "date_created": "2017/09/01"},
        "images": [
            {"license": 3, "file_name": f"COCO_val2014_{one:012}.jpg", "coco_url": "http://x",
             "height": 360, "width": 640, "date_captured": "2013-11-14 11:18:45",
             "flickr_url": "http://y", "id": one}
            for one in ids
        ],
        "licenses": [{"url": "http://z", "id": 3, "name": "Attribution-NonCommercial-NoDerivs"}],
        "annotations": [
            {"image_id": one, "id": 10 * i + k, "caption": f"{language} caption {k} of {i}\n"}
            for i, one in enumerate(ids)
            for k in (1, 2)
        ],
    }  # fmt: skip


def write_coco(root: Path, number: int = 4) -> Path:
    folder = root / "coco"
    for tag, name in FILES.items():
        write_json(folder / "annotations" / name, official(number, tag))
    for record in official(number)["images"]:
        picture(folder / "val2014" / record["file_name"])
    (root / "pt_inception-2015-12-05-6726825d.pth").write_bytes(b"weights")
    return folder


def coco(count: int = 3, **fields: Any) -> Task:
    task = load_task("coco_fid")
    return replace(task, data={**task.data, "count": count}, **fields)


def test_each_picture_has_one_caption_the_same_in_both_languages(root: Path) -> None:
    write_coco(root)
    dataset = open_dataset(coco())
    english, chinese = dataset.samples("en"), dataset.samples("zh")
    assert len(english) == 3 == len({s.image for s in english})
    for en, zh in zip(english, chinese, strict=True):
        assert (en.id, en.image, en.cluster) == (zh.id, zh.image, zh.cluster)
        assert en.question.startswith("en caption") and not en.question.endswith("\n")
        assert zh.question == en.question.replace("en", "zh", 1)
        assert dataset.load_image(en.image or "").size == (8, 6)
    assert dataset.description["count"] == "3" and "hash" in dataset.description["sampling"]


def test_the_choice_depends_on_ids_and_grows_with_the_count(root: Path) -> None:
    folder = write_coco(root)
    few = [s.question for s in open_dataset(coco(2)).samples("en")]
    shuffled = official()
    shuffled["annotations"].reverse()
    shuffled["images"].reverse()
    write_json(folder / "annotations" / FILES["en"], shuffled)
    every = [s.question for s in open_dataset(coco(0)).samples("en")]
    assert every[:2] == few and len(every) == 4


def rename(content: dict[str, Any]) -> None:
    content["annotations"][0]["id"] = 999


def move(content: dict[str, Any]) -> None:
    for one, other in zip(content["annotations"][::2], content["annotations"][2::2], strict=False):
        one["image_id"], other["image_id"] = other["image_id"], one["image_id"]


@pytest.mark.parametrize(
    ("language", "change", "message"),
    [
        ("en", lambda c: c["annotations"].append(c["annotations"][0]), r"annotations\[8\]: id 1 is given twice"),
        ("en", lambda c: c["images"].pop(), r"image_id 391916 is of no picture"),
        ("en", lambda c: c["annotations"][0].update(caption=" \n"), r"annotations\[0\]: caption 1 is empty"),
        ("en", lambda c: c["annotations"][0].pop("caption"), r"annotations\[0\]: key 'caption' is missing"),
        ("en", lambda c: c["annotations"][0].update(id="1"), r"annotations\[0\]: id: expected an integer"),
        ("en", lambda c: c.pop("images"), "images: expected a list of records"),
        ("en", lambda c: c["images"][0].update(file_name="../x.jpg"), "no file name inside the folder"),
        ("zh", lambda c: c["annotations"].clear(), "annotations: expected a list of records"),
        ("zh", lambda c: [a.update(id=a["id"] + 500) for a in c["annotations"]], "4 of 4 are missing"),
        ("zh", move, "a translation keeps the ids"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_named_with_its_record(
    root: Path, language: str, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    folder = write_coco(root)
    content = official(language=language)
    change(content)
    write_json(folder / "annotations" / FILES[language], content)
    with pytest.raises(UserError, match=message) as caught:
        open_dataset(coco(0))
    assert FILES[language] in str(caught.value) and "\n" not in str(caught.value)


def test_more_pictures_than_the_file_has_are_refused(root: Path) -> None:
    write_coco(root)
    with pytest.raises(UserError, match=r"has 4 pictures with a caption, .* asks for 30000"):
        open_dataset(load_task("coco_fid"))


def test_what_is_missing_is_told_before_anything_is_painted(root: Path, tmp_path: Path) -> None:
    assert missing(load_task("coco_fid")) == "coco"
    write_coco(root)
    assert missing(load_task("coco_fid")) == ""
    (root / "pt_inception-2015-12-05-6726825d.pth").unlink()
    painter = Painter()
    with pytest.raises(UserError, match="put the weights 'pt_inception-2015-12-05"):
        run_tasks([coco()], painter, model_spec="x", out=tmp_path / "run")
    assert not painter.asked
