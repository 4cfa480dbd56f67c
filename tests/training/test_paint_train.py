"""Training painters: what changes, resume after kill -9, the record, round trips, bad files."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mpm_eval.errors import UserError
from mpm_eval.zero_shot import evidence, label
from tests.training.paint_parts import (
    SMALL_PAINT,
    small_diffusion,
    train_painter,
    write_diffusion,
)
from training.interface import load_paint, plan, train
from training.paint.checkpoint import open_painter
from training.paint.model import MPMPaint
from training.paint.recipe import build_recipe
from training.recipe import read_recipe

pytestmark = pytest.mark.slow  # models are trained

REPOSITORY = Path(__file__).resolve().parents[2]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def painter_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole, if clueless, painter's checkpoint; shared, so never write into it."""
    return train_painter(tmp_path_factory.mktemp("painter") / "checkpoint")


@pytest.fixture(scope="module")
def sd_overrides(
    tmp_path_factory: pytest.TempPathFactory, lm_folder: Callable[[str], Path]
) -> tuple[str, ...]:
    """What makes `sd21_paint` small: tiny parts of the same classes, written to folders."""
    return small_diffusion(tmp_path_factory.mktemp("sd"), lm_folder)


@pytest.fixture(scope="module")
def sd_folder(tmp_path_factory: pytest.TempPathFactory, sd_overrides: tuple[str, ...]) -> Path:
    return train("sd21_paint", tmp_path_factory.mktemp("latent") / "checkpoint", sd_overrides)


def test_what_paints_changes_and_the_language_model_does_not(painter_folder: Path) -> None:
    before = open_painter(build_recipe(*read_recipe("tiny_paint", SMALL_PAINT)))[0].state_dict()
    changed = {
        name.partition(".")[0]
        for name, value in weights(painter_folder).items()
        if not torch.equal(value.float(), before[name].to(value.dtype).float())
    }
    assert changed == {"bridge", "sketch", "unet"}


def test_stage_paint_leaves_the_sketch_as_it_is(painter_folder: Path, tmp_path: Path) -> None:
    longer = train_painter(tmp_path / "longer", ["paint.steps=6"])
    before, after = weights(painter_folder), weights(longer)
    for name, value in before.items():
        if name.startswith("sketch."):
            assert torch.equal(value, after[name]), name
    assert any(not torch.equal(v, after[name]) for name, v in before.items())


def test_a_painter_without_a_sketch_is_the_paper_s(tmp_path: Path) -> None:
    recipe = build_recipe(*read_recipe("tiny_paint", [*SMALL_PAINT, "unet.sketch=false"]))
    model = open_painter(recipe)[0]
    assert model.sketch is None
    (picture,) = model.eval().paint(["dog"], ["en"], [0])
    assert picture is not None and picture.size == (8, 8)


def test_a_run_killed_at_random_points_ends_as_an_uninterrupted_one(
    painter_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    code = (
        "import sys; from pathlib import Path; from training.interface import train\n"
        "def report(stage, done, total, loss, speed):\n"
        "    print(stage, done, flush=True)\n"
        f"train('tiny_paint', Path({str(out)!r}), sys.argv[1:], report)"
    )
    command = [sys.executable, "-c", code, *SMALL_PAINT, "save_every_s=0.0"]
    rng, kills = random.Random(5), 0
    for steps in (1, 2):
        process = subprocess.Popen(
            command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, env=os.environ
        )
        assert process.stdout is not None
        for _ in range(steps):  # before the blow, 4 in all
            process.stdout.readline()
        time.sleep(rng.random() * 0.01)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    assert kills == 2 and (out / "work" / "state.safetensors").is_file()
    train("tiny_paint", out, [*SMALL_PAINT, "save_every_s=0.0"])
    assert same(weights(out), weights(painter_folder))
    assert (out / "training.json").read_text() == (painter_folder / "training.json").read_text()
    assert not (out / "work").exists()


def test_the_record_proves_that_only_english_was_seen(painter_folder: Path) -> None:
    _, record = load_paint(painter_folder)
    assert record is not None
    align, paint = record.stages  # the first made the language model, and is its premise
    assert (align.name, paint.name) == ("align", "paint")
    assert set(paint.multimodal_samples) == {"en"} and dict(paint.text_samples) == {}
    assert tuple(paint.trained) == ("bridge", "unet")
    assert set(paint.images) <= {"noto", "twemoji"}
    assert [label(record, tag) for tag in ("en", "zh", "sw")] == ["pivot", "zero-shot", "zero-shot"]


def test_centring_is_recorded_as_text_that_aligns(tmp_path: Path) -> None:
    folder = train_painter(
        tmp_path / "centred", ["condition.centre=true", 'languages=["en","de"]', "paint.steps=1"]
    )
    model, record = load_paint(folder)
    assert record is not None
    centring = record.stages[1]
    assert (centring.name, centring.steps, set(centring.text_samples)) == ("align", 0, {"de", "en"})
    assert label(record, "de") == "zero-shot"
    assert centring.text_samples["de"] > 1000
    assert "multimodal samples: 0" in evidence(record, "de")
    assert not torch.equal(model.bridge.mean_GLD[0], model.bridge.mean_GLD[1])


def test_a_checkpoint_read_twice_paints_the_same(painter_folder: Path) -> None:
    first, second = (load_paint(painter_folder)[0] for _ in range(2))
    settings = (["red apple", "Hund"], ["en", "de"], [1, 2**63 - 1])
    a, b = first.paint(*settings), second.paint(*settings)
    for one, other in zip(a, b, strict=True):
        assert one is not None and other is not None
        assert one.mode == "RGB" and one.size == (8, 8)
        assert one.tobytes() == other.tobytes()


def test_a_checkpoint_holds_only_what_was_trained_or_exists_nowhere_else(
    painter_folder: Path, sd_folder: Path
) -> None:
    parts = {name.partition(".")[0] for name in weights(painter_folder)}
    assert parts == {"lm", "bridge", "sketch", "unet"}
    names = [name for name in weights(sd_folder) if not name.startswith("bridge.")]
    assert names and all(".attn2." in name for name in names)
    config = json.loads((sd_folder / "config.json").read_text())
    assert set(config["backbones"]) == {"lm", "unet", "vae"}
    assert not (sd_folder / "tokenizer.json").exists()


def test_of_stable_diffusion_only_attention_to_the_condition_learns(
    sd_overrides: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = build_recipe(*read_recipe("sd21_paint", sd_overrides))
    before = {name: v.clone() for name, v in open_painter(recipe)[0].state_dict().items()}
    trained: list[MPMPaint] = []

    def save(folder: Path, model: MPMPaint, *_: object) -> None:
        trained.append(model)  # whole: a checkpoint would hold only what may change

    monkeypatch.setattr("training.paint.run.save_painter", save)
    train("sd21_paint", tmp_path / "out", sd_overrides)
    after = trained[0].state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    attention = {name for name in after if ".attn2." in name}
    assert attention <= changed and any(name.startswith("bridge.") for name in changed)
    assert all(name in attention or name.startswith("bridge.") for name in changed)


def test_a_latent_painter_paints_at_the_size_of_its_last_stage(sd_folder: Path) -> None:
    model, record = load_paint(sd_folder)
    (picture,) = model.paint(["number 3"], ["en"], [7])
    assert picture is not None and picture.size == (8, 8)
    assert record is not None
    assert [stage.name for stage in record.stages] == ["paint", "refine"]
    assert [dict(stage.multimodal_samples) for stage in record.stages] == [{"en": 8}, {"en": 8}]


def test_another_backbone_is_refused(
    sd_folder: Path, sd_overrides: tuple[str, ...], tmp_path: Path
) -> None:
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(sd_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    source = Path(config["unet"]["source"])
    shutil.copytree(source, tmp_path / "sd")
    path = tmp_path / "sd" / "vae" / "diffusion_pytorch_model.safetensors"
    changed = {name: value + 1 for name, value in load_file(path).items()}
    save_file(changed, path, {"format": "pt"})
    config["unet"]["source"] = str(tmp_path / "sd")
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="not the one this checkpoint was trained with"):
        load_paint(folder)


def test_a_finished_painter_is_not_trained_again(painter_folder: Path) -> None:
    before = (painter_folder / "model.safetensors").stat().st_mtime_ns
    assert train_painter(painter_folder) == painter_folder
    assert (painter_folder / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="holds a checkpoint of another recipe"):
        train_painter(painter_folder, ["paint.steps=5"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "mpm-chat"}, "not a painter's checkpoint"),
        ({"format_version": 2}, "format_version 2 is not the one"),
        ({"condition": {"width": 24}}, "does not fit config.json"),
        ({"unet": {"kind": "voxel"}}, "unknown kind 'voxel'"),
    ],
)
def test_a_damaged_checkpoint_is_one_clear_line(
    painter_folder: Path, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    import shutil

    folder = tmp_path / "damaged"
    shutil.copytree(painter_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    for key, value in change.items():
        config[key] = {**config[key], **value} if isinstance(value, dict) else value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError) as caught:
        load_paint(folder)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_truncated_checkpoint_is_one_clear_line(painter_folder: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "cut"
    shutil.copytree(painter_folder, folder)
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="truncated"):
        load_paint(folder)


@pytest.mark.parametrize(
    ("missing", "message"), [("vae", "vae"), ("model_index.json", "model_index")]
)
def test_an_incomplete_stable_diffusion_is_one_clear_line(
    tmp_path: Path, missing: str, message: str, sd_overrides: tuple[str, ...]
) -> None:
    import shutil

    folder = write_diffusion(tmp_path / "sd")
    path = folder / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(UserError, match=message):
        train("sd21_paint", tmp_path / "out", [*sd_overrides, f"unet.source={folder}"])


def test_a_dry_run_counts_what_learns_without_loading_weights(
    sd_overrides: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = build_recipe(*read_recipe("sd21_paint", sd_overrides))
    model = open_painter(recipe)[0]
    attention = sum(p.numel() for name, p in model.unet.named_parameters() if ".attn2." in name)
    bridge = sum(p.numel() for p in model.bridge.parameters())

    def never(*_: object) -> None:
        raise AssertionError("weights are loaded")

    monkeypatch.setattr("training.paint.canvas.weights_sha256", never)
    found = plan("sd21_paint", sd_overrides)
    assert [stage.name for stage in found.stages] == ["paint", "refine"]
    for stage in found.stages:
        assert dict(stage.trained) == {"bridge": bridge, "unet": attention}
        assert stage.multimodal_samples is None
        assert stage.frozen == sum(found.parameters.values()) - bridge - attention
    small, large = (stage.memory_bytes for stage in found.stages)
    assert 0 < small < large  # the second stage has larger pictures


def test_a_dry_run_of_emoji_counts_captions(painter_folder: Path) -> None:
    found = plan("tiny_paint", SMALL_PAINT)
    _, record = load_paint(painter_folder)
    assert record is not None
    assert found.stages[0].multimodal_samples == record.stages[-1].multimodal_samples
