"""A painter's checkpoint as a backend, up to `mpm-eval run`: settings, labels, re-ranking."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mpm_eval.backends import Failure
from mpm_eval.backends.checkpoint import open_checkpoint
from mpm_eval.backends.paint_checkpoint import PaintBackend, open_paint
from mpm_eval.cards import open_model
from mpm_eval.errors import UserError
from mpm_eval.schema import Request
from mpm_eval.stages.generate import run_tasks
from mpm_eval.store import read_predictions
from tests.conftest import Command
from tests.stages.paint_runs import load, paint_task
from tests.training.paint_parts import train_painter

pytestmark = pytest.mark.slow  # a model is trained


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole, if clueless, painter's checkpoint; shared, so never write into it."""
    return train_painter(tmp_path_factory.mktemp("painter") / "mine", ["paint.steps=1"])


class Brightness:
    """A scorer that finds every text in the brightest picture."""

    name, sha256, languages = "brightness", "c" * 64, ("en",)

    def embed_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        return np.array([[np.asarray(image).mean()] for image in images])

    def embed_texts(self, texts: Sequence[str], language: str) -> np.ndarray:
        if language not in self.languages:
            raise UserError(f"scorer 'brightness': does not know '{language}'")
        return np.ones((len(texts), 1))


def request(prompt: str, language: str = "en", **more: Any) -> Request:
    return Request(prompt, language, **more)


def one(backend: PaintBackend, prompt: str, seed: int, language: str = "en") -> Image.Image:
    (picture,) = backend.paint([request(prompt, language)], [seed])
    assert isinstance(picture, Image.Image)
    return picture


def test_a_painters_folder_opens_as_a_backend_that_paints(folder: Path) -> None:
    for backend in (open_model(str(folder)), open_checkpoint(str(folder), 0)):
        assert backend.capabilities == {"paint"}
        assert backend.training_record is not None
    assert backend.name == "mine"
    assert backend.identity["sampler"] == "dpm"
    assert (backend.identity["steps"], backend.identity["guidance"]) == ("3", "4")
    assert (backend.identity["size"], backend.identity["rerank"]) == ("8", "no")


def test_a_picture_does_not_depend_on_the_batch(folder: Path) -> None:
    backend = open_paint(str(folder), 0)
    alone = one(backend, "dog", 9)
    together = backend.paint([request("red apple"), request("dog")], [1, 9])
    assert isinstance(together[1], Image.Image)
    assert together[1].tobytes() == alone.tobytes()


def test_settings_are_part_of_what_identifies_a_backend(folder: Path) -> None:
    usual = open_paint(str(folder), 0)
    other = open_paint(f"{folder}?steps=2&guidance=1&sampler=ddim", 0)
    assert usual.sha256 == open_paint(f"{folder}?steps=3", 0).sha256 != other.sha256
    said = [other.identity[key] for key in ("sampler", "steps", "guidance")]
    assert said == ["ddim", "2", "1"]
    assert one(usual, "dog", 1).tobytes() != one(other, "dog", 1).tobytes()


@pytest.mark.parametrize("part", ["bridge", "sketch"])
def test_a_painter_can_do_without_a_part_and_says_so(folder: Path, part: str) -> None:
    whole, floor = open_paint(str(folder), 0), open_paint(f"{folder}?without={part}", 0)
    assert floor.identity["without"] == part and "without" not in whole.identity
    assert floor.sha256 != whole.sha256 and floor.name == f"{whole.name}-without-{part}"
    again = open_paint(f"{folder}?without={part}", 0)
    assert one(floor, "dog", 9).tobytes() == one(again, "dog", 9).tobytes()
    state, usual = floor._model.state_dict(), whole._model.state_dict()
    changed = {name for name in usual if not torch.equal(state[name], usual[name])}
    learned = {"bridge.null_C", "bridge.linear.weight", "bridge.norm.weight", "bridge.norm.bias"}
    assert changed == (learned if part == "bridge" else {"sketch.picture_NCHW"})


def test_reranking_keeps_the_picture_that_the_scorer_finds_nearest(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mpm_eval.images.scorers.open_scorer", lambda spec: Brightness())
    plain, best = open_paint(str(folder), 0), open_paint(f"{folder}?rerank=4", 0)
    assert best.identity["rerank"] == "best of 4 by brightness@cccccccccccc"
    assert best.sha256 != plain.sha256
    means = [
        (np.asarray(one(plain, "dog", s)).mean(), np.asarray(one(best, "dog", s)).mean())
        for s in range(4)
    ]
    assert all(kept >= first for first, kept in means)
    assert any(kept > first for first, kept in means)
    with pytest.raises(UserError, match="does not know 'de'"):
        one(best, "Hund", 1, "de")


def test_values_that_are_not_finite_fail_one_request(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = open_paint(str(folder), 0)
    whole, calls = backend._model.canvas.decode, []

    def broken(z: Any) -> Any:
        calls.append(1)
        return whole(z) * (float("nan") if len(calls) == 1 else 1.0)

    monkeypatch.setattr(backend._model.canvas, "decode", broken)
    found = backend.paint([request("dog"), request("cat")], [1, 2])
    assert found[0] == Failure("painted values that are not finite (NaN or infinite)")
    assert isinstance(found[1], Image.Image)


def test_a_size_that_it_does_not_paint_is_refused(folder: Path) -> None:
    backend = open_paint(str(folder), 0)
    with pytest.raises(UserError, match="paints 8 pixels, the task asks for 64"):
        backend.paint([request("dog", size=64)], [1])
    assert isinstance(backend.paint([request("dog", size=8)], [1])[0], Image.Image)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("?stepz=2", "unknown key 'stepz'; did you mean 'steps'"),
        ("?steps=many", "steps: expected a number, got 'many'"),
        ("?steps", "write options as KEY=VALUE"),
        ("?rerank=0", "rerank: must be at least 1"),
        ("?sampler=dmp", "unknown sampler 'dmp'; did you mean 'dpm'"),
        ("?rerank=2&scorer=nose", "unknown scorer 'nose'"),
        ("?without=bridges", "unknown part 'bridges'; did you mean 'bridge'"),
    ],
)
def test_a_mistake_in_the_options_is_one_clear_line(
    folder: Path, options: str, message: str
) -> None:
    with pytest.raises(UserError) as caught:
        open_paint(f"{folder}{options}", 0)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_no_folder_is_one_clear_line(tmp_path: Path) -> None:
    for argument in ("", str(tmp_path / "none")):
        with pytest.raises(UserError, match="give the folder of a painter's checkpoint"):
            open_paint(argument, 0)


def test_a_run_paints_in_every_language_and_keeps_no_path(folder: Path, tmp_path: Path) -> None:
    backend = open_model(f"paint:{folder}?steps=2")
    spec = f"paint:{folder}?steps=2"
    task = load(tmp_path, 3, size=0)
    run = run_tasks([task], backend, model_spec=spec, out=tmp_path / "run")
    predictions = read_predictions(run / task.name / "predictions.jsonl")
    assert len(predictions) == 6 and not any(p.error for p in predictions)
    with Image.open(run / task.name / predictions[0].output) as picture:
        assert picture.size == (8, 8)
    told = json.loads((run / "run.json").read_text())
    assert told["model"]["spec"] == "paint:mine?steps=2"
    assert str(folder) not in (run / "run.json").read_text()


def test_mpm_eval_run_labels_what_a_painter_never_saw(
    folder: Path, tmp_path: Path, mpm_eval: Command
) -> None:
    path = paint_task(tmp_path, 4, size=0, metrics=("fd_efficientnet_lite0",))
    done = mpm_eval(
        "run", "--task", str(path), "--model", str(folder), "--out", str(tmp_path / "run")
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "run" / "colours" / "result.json").read_text())
    labels = {score["language"]: score["label"] for score in result["scores"]}
    assert labels["en"] == "pivot" and labels["de"] == "zero-shot"
    assert any("steps=3" in score["signature"] for score in result["scores"])
