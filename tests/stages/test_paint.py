"""Painting: the same seeds for all languages, whole files, and failures that cost one picture."""

import hashlib
import json
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mpm_eval.backends import Failure
from mpm_eval.backends.echo import open_echo
from mpm_eval.errors import UserError
from mpm_eval.schema import Request
from mpm_eval.stages.generate import run_tasks
from mpm_eval.stages.paint import picture_path, seed_of
from mpm_eval.store import read_predictions
from mpm_eval.strict import read_json
from mpm_eval.tasks import load_task
from tests.conftest import command, environment, write_task
from tests.stages.paint_runs import SIDE, Breaking, Painter, colour, load, paint_task


def paint(folder: Path, backend: Any, number: int = 6, out: str = "run", **fields: Any) -> Path:
    """Return the task folder of a run."""
    settings = {
        k: fields.pop(k) for k in ("seed", "control", "images_per_prompt", "limit") if k in fields
    }
    task = load(folder, number, **fields)
    run = run_tasks([task], backend, model_spec="x", out=folder / out, **settings)
    return run / task.name


def test_a_picture_is_stored_with_seed_and_prompt_and_named_by_its_prediction(
    tmp_path: Path,
) -> None:
    folder = paint(tmp_path, Painter())
    predictions = read_predictions(folder / "predictions.jsonl")
    assert len(predictions) == 12
    for found in predictions:
        assert found.output == f"images/{found.language}/{found.id}.png"
        content = (folder / found.output).read_bytes()
        assert hashlib.sha256(content).hexdigest() == found.image_sha256
        with Image.open(folder / found.output) as picture:
            assert picture.text["prompt"] == found.prompt == f"{found.language} {found.id[1:]}"
            assert picture.text["seed"] == str(seed_of(found.id, 0))
            assert (picture.mode, picture.size) == ("RGB", (SIDE, SIDE))


def test_the_seed_depends_on_sample_and_run_but_not_on_the_language(tmp_path: Path) -> None:
    first, second = Painter(), Painter()
    paint(tmp_path, first, seed=3)
    paint(tmp_path, second, seed=4, out="other")
    seeds = dict(first.asked)
    assert all(seeds[f"en {i}"] == seeds[f"de {i}"] for i in range(6))
    assert len(set(seeds.values())) == 6
    assert set(seeds.values()).isdisjoint(dict(second.asked).values())
    assert all(0 <= seed < 2**63 for seed in seeds.values())


def test_ids_of_any_kind_get_files_of_their_own_inside_the_folder() -> None:
    ids = ["a/b", "a%2Fb", "../x", "é", "x" * 300, "x" * 301, "a#1", "."]
    paths = [picture_path(one, "en") for one in ids]
    assert len(set(paths)) == len(ids)
    assert all(Path(path).parent == Path("images/en") for path in paths)
    assert all(len(Path(path).name) < 200 for path in paths)


@pytest.mark.parametrize("damage", ["cut", "gone", "swapped"])
def test_only_a_picture_that_is_lost_is_painted_again(tmp_path: Path, damage: str) -> None:
    folder = paint(tmp_path, Painter())
    whole = (folder / "images/de/s2.png").read_bytes()
    before = (folder / "predictions.jsonl").read_text(encoding="utf-8")
    if damage == "cut":
        (folder / "images/de/s2.png").write_bytes(whole[: len(whole) // 2])
    elif damage == "gone":
        (folder / "images/de/s2.png").unlink()
    else:
        colour(9).save(folder / "images/de/s2.png")
    again = Painter()
    paint(tmp_path, again)
    assert [prompt for prompt, _ in again.asked] == ["de 2"]
    assert (folder / "images/de/s2.png").read_bytes() == whole
    after = (folder / "predictions.jsonl").read_text(encoding="utf-8")
    assert sorted(after.splitlines()) == sorted(before.splitlines())


def test_a_picture_without_its_prediction_is_painted_again(tmp_path: Path) -> None:
    folder = paint(tmp_path, Painter())
    lines = (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "predictions.jsonl").write_text("".join(lines[:-1]), encoding="utf-8")
    again = Painter()
    paint(tmp_path, again)
    assert len(again.asked) == 1


@pytest.mark.parametrize(
    ("how", "error"),
    [
        (ValueError("a singular\nmatrix"), "ValueError: a singular matrix"),
        (ZeroDivisionError(), "ZeroDivisionError:"),
        (Failure("not finite"), "not finite"),
        (Failure(""), "no reason given"),
        (colour(1, 8), "painted 8x8, asked for 16x16"),
        (Image.fromarray(np.full((SIDE, SIDE), np.nan, np.float32)),
         "painted values that are not finite (NaN or infinite)"),
        (Image.new("F", (SIDE, SIDE)), "painted a picture of mode 'F', 8 bits in each channel"),
    ],
)  # fmt: skip
def test_what_a_sampler_breaks_is_one_counted_failure(tmp_path: Path, how: Any, error: str) -> None:
    folder = paint(tmp_path, Breaking(how))
    predictions = {p.key: p for p in read_predictions(folder / "predictions.jsonl")}
    failed = {key: p for key, p in predictions.items() if p.error}
    assert failed.keys() == {("s1", "en"), ("s1", "de")} and len(predictions) == 12
    assert all(p.error.startswith(error) and not p.output for p in failed.values())
    assert not (folder / "images/en/s1.png").exists()


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "LA"])
def test_grey_and_transparent_pictures_are_stored_in_colour_on_white(
    tmp_path: Path, mode: str
) -> None:
    clear = Image.new("RGBA", (SIDE, SIDE), (255, 0, 0, 0)).convert(mode)
    folder = paint(tmp_path, Breaking(clear if mode != "1" else Image.new("1", (SIDE, SIDE), 1)))
    with Image.open(folder / "images/en/s1.png") as picture:
        assert picture.mode == "RGB"
        assert mode not in ("RGBA", "LA", "1") or picture.getpixel((0, 0)) == (255, 255, 255)


def test_without_a_size_in_the_task_all_pictures_have_that_of_the_first(tmp_path: Path) -> None:
    folder = paint(tmp_path, Breaking(colour(1, 8)), size=0)
    errors = [p.error for p in read_predictions(folder / "predictions.jsonl") if p.error]
    assert errors == ["painted 8x8, asked for 16x16"] * 2
    # also after a stop, when the first is already on the disk
    lines = (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "predictions.jsonl").write_text("".join(lines[:2]), encoding="utf-8")
    paint(tmp_path, Breaking(colour(1, 8)), size=0)
    assert sum(bool(p.error) for p in read_predictions(folder / "predictions.jsonl")) == 2


class OutOfMemory(Painter):
    """Has room for one picture at a time."""

    def paint(
        self, requests: Sequence[Request], seeds: Sequence[int]
    ) -> "list[Image.Image | Failure]":
        if len(requests) > 1:
            raise RuntimeError("CUDA out of memory")
        return super().paint(requests, seeds)


def test_out_of_memory_is_no_failure_but_a_smaller_batch(tmp_path: Path) -> None:
    folder = paint(tmp_path, OutOfMemory())
    predictions = read_predictions(folder / "predictions.jsonl")
    assert len(predictions) == 12 and not any(p.error for p in predictions)


def test_a_backend_that_returns_too_few_pictures_breaks_its_contract(tmp_path: Path) -> None:
    class Short(Painter):
        def paint(
            self, requests: Sequence[Request], seeds: Sequence[int]
        ) -> "list[Image.Image | Failure]":
            return super().paint(requests, seeds)[1:]

    with pytest.raises(ValueError, match="3 pictures to 4 requests"):
        paint(tmp_path, Short())


def test_an_empty_prompt_stops_the_run_before_the_first_picture(tmp_path: Path) -> None:
    path = paint_task(tmp_path)
    samples = tmp_path / "colours" / "samples.jsonl"
    text = samples.read_text(encoding="utf-8")
    samples.write_text(text.replace('"de 4"', '" "'), encoding="utf-8")
    painter = Painter()
    with pytest.raises(UserError, match=r"sample 's4' \(de\) has an empty prompt"):
        run_tasks([load_task(path)], painter, model_spec="x", out=tmp_path / "run")
    assert painter.asked == [] and not (tmp_path / "run").exists()


def test_several_pictures_of_a_prompt_have_ids_and_seeds_of_their_own(tmp_path: Path) -> None:
    painter = Painter()
    folder = paint(tmp_path, painter, images_per_prompt=3)
    ids = [p.id for p in read_predictions(folder / "predictions.jsonl") if p.language == "en"]
    assert ids[:4] == ["s0#1", "s0#2", "s0#3", "s1#1"] and len(ids) == 18
    assert len({seed for prompt, seed in painter.asked if prompt == "en 2"}) == 3
    assert read_json(folder / "manifest.json")["decoding"]["images_per_prompt"] == 3
    with pytest.raises(UserError, match="decoding was"):
        paint(tmp_path, Painter())


def test_no_picture_per_prompt_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--images-per-prompt: must be at least 1, got 0"):
        paint(tmp_path, Painter(), images_per_prompt=0)
    task = write_task(tmp_path)
    with pytest.raises(UserError, match="--images-per-prompt: no task is of kind 'paint'"):
        run_tasks([load_task(task)], open_echo("", 0), model_spec="x", images_per_prompt=2)


def test_shuffled_prompts_are_those_of_other_samples_in_every_language(tmp_path: Path) -> None:
    folder = paint(tmp_path, Painter(), control="shuffled")
    asked = {p.key: p.prompt for p in read_predictions(folder / "predictions.jsonl")}
    for (sample_id, language), prompt in asked.items():
        assert not prompt.endswith(f" {sample_id[1:]}")
        assert asked[sample_id, "en"].split()[1] == prompt.split()[1] and prompt[:2] == language
    with pytest.raises(UserError, match="paints from words alone"):
        paint(tmp_path, Painter(), control="blank", out="blank")


def test_a_task_that_paints_needs_a_model_that_can(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs a model that can 'paint'"):
        paint(tmp_path, open_echo("", 0))


def test_an_oracle_without_a_second_picture_fails_and_says_so(tmp_path: Path) -> None:
    folder = paint(tmp_path, open_echo("real", 0), number=2)
    errors = {p.error for p in read_predictions(folder / "predictions.jsonl")}
    assert errors == {"the data have no second picture of it"}


def test_a_run_folder_is_written_the_same_way_twice(tmp_path: Path) -> None:
    one, two = (paint(tmp_path, Painter(), out=name) for name in ("a", "b"))
    files = sorted(path.relative_to(one) for path in one.glob("images/*/*.png"))
    assert len(files) == 12
    assert all((one / f).read_bytes() == (two / f).read_bytes() for f in files)
    assert json.loads((one / "task.json").read_text("utf-8"))["painting"]["size"] == SIDE


@pytest.mark.slow
def test_a_run_killed_while_it_paints_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    task = paint_task(tmp_path, 150, metrics=("diversity",))
    arguments = ("run", "--task", task, "--model", "echo:noise", "--out", "killed")
    path = tmp_path / "killed/colours/predictions.jsonl"
    process = subprocess.Popen(
        command(arguments), cwd=tmp_path, env=environment(), stderr=subprocess.DEVNULL
    )
    while process.poll() is None and not (path.is_file() and path.stat().st_size):
        time.sleep(0.001)
    process.kill()
    process.wait()
    assert process.returncode == -signal.SIGKILL
    assert len(list(path.parent.glob("images/*/*.png"))) < 300
    (backend, loaded) = (open_echo("noise", 0), load_task(task))
    for out in ("killed", "whole"):
        run_tasks([loaded], backend, model_spec="echo:noise", out=tmp_path / out)
    for language in ("en", "de"):
        for picture in (tmp_path / "whole/colours/images" / language).iterdir():
            again = tmp_path / "killed/colours/images" / language / picture.name
            assert again.read_bytes() == picture.read_bytes()
    assert len(read_predictions(path)) == 300
