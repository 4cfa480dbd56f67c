"""Tiny benchmarks with invented content, in exactly the layout of the official files."""

import base64
import gzip
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mpm_eval.data._local import DATA
from mpm_eval.tasks import load_task

XM3600 = load_task("xm3600").languages
XGQA = load_task("xgqa").languages
XFLICKR = load_task("xflickrco_image").languages
XVNLI = load_task("xvnli").languages
MARVL = load_task("marvl").languages
MAXM = {"en": "en", "fr": "fr", "he": "iw", "hi": "hi", "ro": "ro", "th": "th", "zh": "zh"}
MULTI30K = ("en", "de", "fr", "cs")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of the user's data, empty."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv(DATA, str(folder))
    return folder


def picture(path: Path, size: tuple[int, int] = (8, 6), colour: str = "red") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def edit(path: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """Change the lines of a JSONL file."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    change(rows)
    write_jsonl(path, rows)


def write_xm3600(root: Path) -> Path:
    """Two pictures, two captions each in every language."""
    rows = []
    for key in ("00ab", "01cd"):
        row: dict[str, Any] = {"image/key": key, "image/locale": "ar"}
        for tag in XM3600:
            captions = [f"{tag} {key} one", f"{tag} {key} two"]
            row[tag] = {
                "caption": captions,
                "caption/tokenized": captions,
                "caption/tokenized/lowercase": captions,
            }
        rows.append(row)
        picture(root / "xm3600/images" / f"{key}.jpg")
    write_jsonl(root / "xm3600/captions.jsonl", rows)
    return root / "xm3600/captions.jsonl"


def write_multi30k(root: Path, ids: Sequence[str] = ("7.jpg", "8.jpg", "9.jpg")) -> Path:
    """Return the folder of task 1; texts are compressed as in the repository."""
    folder = root / "multi30k/data/task1"
    (folder / "image_splits").mkdir(parents=True)
    (folder / "raw").mkdir()
    text = "".join(f"{key}\n" for key in ids)
    (folder / "image_splits/test_2016_flickr.txt").write_text(text, encoding="utf-8")
    for tag in MULTI30K:
        lines = "".join(f"{tag} describes {key}\u2028.\n" for key in ids)
        (folder / f"raw/test_2016_flickr.{tag}.gz").write_bytes(gzip.compress(lines.encode()))
    for key in ids:
        picture(root / "flickr30k/images" / key.partition("#")[0])
    return folder


def write_coco_cn(root: Path) -> Path:
    folder = root / "coco-cn-version1805v1.1"
    folder.mkdir()
    (folder / "coco-cn_test.txt").write_text("COCO_val2014_1\nCOCO_train2014_2", encoding="utf-8")
    (folder / "imageid.human-written-caption.txt").write_text(
        "COCO_val2014_1#0\t一只 狗\nCOCO_val2014_1#1\t狗在跑\nCOCO_train2014_2#0 两只猫\n"
        "COCO_train2014_3#0\t训练用的\n",
        encoding="utf-8",
    )
    picture(root / "coco/val2014/COCO_val2014_1.jpg")
    return folder


def write_xgqa(root: Path) -> Path:
    """Three questions on two pictures in each language; answers are English."""
    folder = root / "xgqa/data/few_shot"
    asked = [("101", "n1", "yes", "verify"), ("102", "n1", "red", "query"),
             ("103", "n2", "left", "choose")]  # fmt: skip
    for tag in XGQA:
        questions = {
            key: {
                "semantic": [{"operation": "select", "dependencies": [], "argument": "x (1)"}],
                "question": f"{tag} {key}?",
                "imageId": image,
                "isBalanced": True,
                "groups": {"global": None, "local": "x"},
                "answer": answer,
                "types": {"detailed": "x", "semantic": "rel", "structural": kind},
                "fullAnswer": "It is.",
            }
            for key, image, answer, kind in asked
        }
        write_json(folder / tag / "test.json", questions)
    for image in ("n1", "n2"):
        picture(root / "gqa/images" / f"{image}.jpg")
    return folder


def write_maxm(root: Path) -> Path:
    for code in MAXM.values():
        pairs = [
            {
                "question_id": f"{number}",
                "question": f"{code} {number}?",
                "answers": ["Two", "a pair"],
                "processed_answers": ["two", "a pair"],
                "is_collection": number == 1,
            }
            for number in range(2)
        ]
        annotations = [{"image_id": "00ab", "image_url": "http://x", "qa_pairs": pairs}]
        content = {"dataset": "maxm", "version": "1.0", "split": code, "annotations": annotations}
        write_json(root / "maxm" / f"maxm_v1_{code}.json", content)
    picture(root / "xm3600/images/00ab.jpg")
    return root / "maxm"


def write_marvl(root: Path) -> Path:
    """Two statements in each language, on a tall and on a wide picture."""
    folder = root / "iglue/datasets/marvl/zero_shot/annotations"
    for tag in MARVL:
        concept = "39-Pançi"
        rows = [
            {
                "concept": concept,
                "language": tag,
                "caption": f"{tag} {number}",
                "left_img": "39-0.jpg",
                "right_img": "39-11.jpg",
                "annotator_info": {"annotator_id": "x", "age": 33},
                "chapter": "Cognition",
                "id": f"{tag}-{number}",
                "label": number == 0,
            }
            for number in range(2)
        ]
        write_jsonl(folder / f"marvl-{tag}.jsonl", rows)
        images = root / "iglue/marvl-images" / tag / "images" / concept
        picture(images / "39-0.jpg", (10, 64), "red")
        picture(images / "39-11.jpg", (60, 32), "blue")
    return folder


def write_xvnli(root: Path) -> Path:
    folder = root / "iglue/datasets/XVNLI/annotations"
    labels = ("contradiction", "neutral", "entailment", "-")
    for tag in XVNLI:
        rows = [
            {
                "gold_label": label,
                "sentence1": "The replaced caption.",
                "sentence2": f"{tag} {number}",
                "captionID": "759.jpg#2",
                "pairID": f"759.jpg#2r{number}",
                "Flikr30kID": "759",
            }
            for number, label in enumerate(labels)
        ]
        write_jsonl(folder / tag / "test.jsonl", rows)
    picture(root / "flickr30k/images/759.jpg")
    return folder


def write_xflickrco(root: Path, number: int = 12) -> Path:
    """Half of the ids are texts, as Flickr's, half are numbers, as COCO's."""
    folder = root / "iglue/datasets/xFlickrCO/annotations"
    for tag in XFLICKR:
        rows: list[dict[str, Any]] = []
        for index in range(number):
            flickr = {"id": f"{100 + index}", "img_path": f"{100 + index}.jpg"}
            coco = {"id": 100 + index, "img_path": f"COCO_val2014_{100 + index}.jpg"}
            rows.append({"sentences": [f"{tag} {index}"], **(coco if index % 2 else flickr)})
        write_jsonl(folder / tag / "test.jsonl", rows)
    picture(root / "flickr30k/images/100.jpg")
    return folder


def encoded(colour: str) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), colour).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


HEADER = ("index", "question", "hint", "A", "B", "C", "D", "answer", "category", "image",
          "source", "l2-category", "comment", "split")  # fmt: skip


def write_mmbench(root: Path) -> Path:
    """Question 0 with three options and 3 with two, in every rotation; rotations share a picture."""
    rows = [
        ("0", "What?", "Look\nhere", "cat", "dog", "cow", "", "B", "animals", encoded("red")),
        ("1000000", "What?", "Look\nhere", "dog", "cow", "cat", "", "A", "animals", "0"),
        ("2000000", "What?", "Look\nhere", "cow", "cat", "dog", "", "C", "animals", "0"),
        ("3", 'The "tab"?', "", "yes", "no", "", "", "A", "signs", encoded("blue")),
        ("1000003", 'The "tab"?', "", "no", "yes", "", "", "B", "signs", "3"),
    ]
    for code in ("EN", "CN"):
        text = "\t".join(HEADER) + "\n"
        for row in rows:
            fields = (*row, "made", "x", "", "dev")
            text += "\t".join(_field(value) for value in fields) + "\n"
        path = root / f"mmbench/MMBench_DEV_{code}.tsv"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root / "mmbench"


def _field(value: str) -> str:
    quoted = any(character in value for character in '\t\n"')
    return '"' + value.replace('"', '""') + '"' if quoted else value
