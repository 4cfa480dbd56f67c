"""Painted runs for tests: a task of numbered colours, a painter, and eyes that read the number."""

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mpm_eval.backends import Failure
from mpm_eval.errors import UserError
from mpm_eval.schema import Request, Task
from mpm_eval.tasks import load_task

SIDE = 16
METRICS = (
    "top1_of_100", "clip_score", "consistency", "diversity",
    "fd_efficientnet_lite0", "kid_efficientnet_lite0",
)  # fmt: skip


def colour(number: int, side: int = SIDE) -> Image.Image:
    """Return the picture of a number: nothing else in these tests is drawn."""
    return Image.new("RGB", (side, side), (number, 80, 255 - number))


def paint_task(folder: Path, number: int = 6, name: str = "colours", **fields: Any) -> Path:
    """Write a task whose sample s3 asks for "en 3" in English; a real picture each; return it."""
    pictures = folder / name
    pictures.mkdir(parents=True, exist_ok=True)
    languages = fields.pop("languages", ("en", "de"))
    metrics = list(fields.pop("metrics", METRICS))
    prompt = fields.pop("prompt", "{question}")
    lines = []
    for i in range(number):
        colour(i).save(pictures / f"{i}.png")
        lines += [
            {"id": f"s{i}", "language": tag, "question": f"{tag} {i}", "image": f"{i}.png",
             "category": "even" if i % 2 == 0 else "odd"}
            for tag in languages
        ]  # fmt: skip
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (pictures / "samples.jsonl").write_text(text, encoding="utf-8")
    painting = {"size": SIDE, **fields}
    content = [
        "version = 1", 'kind = "paint"', 'description = "Paint the colour of a number"',
        f"languages = {json.dumps(list(languages))}", f"metrics = {json.dumps(metrics)}",
        f'main_metric = "{metrics[0]}"', "[data]", 'source = "jsonl"', f'path = "{name}"',
        "[painting]", *(f"{key} = {json.dumps(value)}" for key, value in painting.items()),
        "[prompts]", *(f"{tag} = {json.dumps(prompt)}" for tag in languages),
    ]  # fmt: skip
    path = folder / f"{name}.toml"
    path.write_text("\n".join(content) + "\n", encoding="utf-8")
    return path


def load(folder: Path, number: int = 6, **fields: Any) -> Task:
    return load_task(paint_task(folder, number, **fields))


class Painter:
    """Paints the number at the end of a prompt; in German it is off by one for every third."""

    capabilities = frozenset({"paint"})
    training_record = None
    batch_size = 4

    def __init__(self, name: str = "painter", **identity: str) -> None:
        self.name, self.sha256, self.identity = name, "b" * 64, dict(identity)
        self.asked: list[tuple[str, int]] = []

    def paint(
        self, requests: Sequence[Request], seeds: Sequence[int]
    ) -> "list[Image.Image | Failure]":
        self.asked += [(r.prompt, seed) for r, seed in zip(requests, seeds, strict=True)]
        return [self.one(request) for request in requests]

    def one(self, request: Request) -> "Image.Image | Failure":
        number = int(request.prompt.rpartition(" ")[2])
        return colour(number + (request.language == "de" and number % 3 == 0))


class Breaking(Painter):
    """Fails in its own way for the prompts that end in 1."""

    def __init__(self, how: Any) -> None:
        super().__init__()
        self.how = how

    def one(self, request: Request) -> "Image.Image | Failure":
        if not request.prompt.endswith(" 1"):
            return super().one(request)
        if isinstance(self.how, Exception):
            raise self.how
        return self.how


class Eyes:
    """A scorer that knows English and German, in which a number is an axis of its own."""

    name, sha256, signature = "eyes", "e" * 64, "eyes|v:1"
    languages: tuple[str, ...] | None = ("en", "de")
    accuracy, accuracy_of = {"en": 90.0, "de": 70.0}, "of numbers"

    def embed_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        return np.eye(256, dtype=np.float32)[[image.getpixel((0, 0))[0] for image in images]]

    def embed_texts(self, texts: Sequence[str], language: str) -> np.ndarray:
        assert self.languages and language in self.languages
        if not all(text.strip() for text in texts):
            raise UserError("a blank text")
        return np.eye(256, dtype=np.float32)[[int(text.split()[-1]) for text in texts]]


def features(images: Sequence[Image.Image]) -> np.ndarray:
    """Return the mean and the spread of red: features_N2."""
    red = [np.asarray(image, dtype=np.float32)[..., 0] for image in images]
    return np.array([[part.mean(), part.std()] for part in red], dtype=np.float32)


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Put eyes and features of colours in place of networks; holds how many pictures each saw."""
    seen: list[int] = []

    class Extractor(SimpleNamespace):
        def __call__(self, images: Sequence[Image.Image]) -> np.ndarray:
            seen.append(len(images))
            return features(images)

    about = {"name": "efficientnet_lite0", "distance": "FD-EffNetLite0", "dim": 2}
    monkeypatch.setattr(
        "mpm_eval.images.extractors.open_extractor",
        lambda spec: Extractor(**about, sha256="f" * 64, signature="red|v:1"),
    )
    monkeypatch.setattr("mpm_eval.images.scorers.open_scorer", lambda spec, languages=None: Eyes())
    return seen
