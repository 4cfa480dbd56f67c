"""Checkpoints of painters: what was trained, the language model that exists nowhere else, a record.

The files are those of chat checkpoints; config.json says format "mpm-paint".
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mpm_eval.data._emoji_data import emoji_data
from mpm_eval.errors import UserError
from mpm_eval.schema import StageRecord, TrainingRecord
from mpm_eval.strict import build, read_json, to_jsonable
from training.checkpoint import (
    load_record,
    read_tensors,
    require_fit,
    write_explanations,
    write_tensors,
)
from training.corpus import training_pictures
from training.language_model import LanguageModelConfig
from training.paint.canvas import open_canvas
from training.paint.condition import Bridge, Reader, Sketch
from training.paint.model import MPMPaint
from training.paint.reading import open_lm, stored_lm
from training.paint.recipe import (
    CheckpointLM,
    ConditionConfig,
    LatentUNet,
    PaintRecipe,
    PixelUNet,
    SamplingConfig,
)
from training.pretrained_lm import PretrainedConfig
from training.provenance import Provenance, check

FORMAT = "mpm-paint"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Parts:
    """What decides the shape of a painter, and how it paints."""

    language_model: LanguageModelConfig | PretrainedConfig
    condition: ConditionConfig
    unet: PixelUNet | LatentUNet
    sampling: SamplingConfig
    languages: tuple[str, ...]
    sketched: int = 0  # concepts that the sketch remembers


@dataclass(frozen=True)
class OpenedPainter:
    """What a painter was opened from; its weights are elsewhere, so that they can go."""

    parts: Parts
    lm_sha256: str  # of everything that decides a hidden state
    lm_records: tuple[StageRecord, ...]  # of the stages that trained the language model
    backbones: Mapping[str, Provenance]  # by part: lm, unet, vae


def open_painter(recipe: PaintRecipe) -> tuple[MPMPaint, OpenedPainter]:
    """Return a painter with a fresh bridge, and a fresh UNet unless it is a pretrained one."""
    assert isinstance(recipe.language_model, PretrainedConfig | CheckpointLM)
    lm = open_lm(recipe.language_model)
    parts = parts_of(recipe, lm.config)
    torch.manual_seed(recipe.seed)
    model, backbones = assemble(parts, Reader(lm.lm, lm.tokenizer, recipe.condition))
    if lm.backbone is not None:
        backbones["lm"] = lm.backbone
    return model, OpenedPainter(parts, lm.sha256, lm.records, backbones)


def parts_of(recipe: PaintRecipe, language_model: LanguageModelConfig | PretrainedConfig) -> Parts:
    """Return the parts of a recipe's painter; `language_model` is that of `open_lm`."""
    sketched = 0
    if recipe.paint and isinstance(recipe.unet, PixelUNet) and recipe.unet.sketch:
        pictures = training_pictures(emoji_data())[: recipe.max_pictures]
        sketched = len({picture.concept.id for picture in pictures})
    return Parts(
        language_model, recipe.condition, recipe.unet, recipe.sampling, recipe.languages, sketched
    )


def assemble(
    parts: Parts, reader: Reader, weights: bool = True
) -> tuple[MPMPaint, dict[str, Provenance]]:
    """Return (painter, backbones by part: unet, vae); `weights` as `open_canvas` takes it."""
    opened = open_canvas(parts.unet, parts.condition.width, weights)
    width = int(opened.unet.config.cross_attention_dim)
    bridge = Bridge(parts.condition, reader.lm.width, width, parts.languages)
    sketch = None
    if isinstance(parts.unet, PixelUNet) and parts.unet.sketch:
        sketch = Sketch(parts.sketched, len(parts.condition.layers), reader.lm.width)
    model = MPMPaint(
        reader,
        bridge,
        opened.unet,
        opened.canvas,
        sketch,
        opened.noise,
        parts.unet.size,
        parts.sampling,
    )
    return model.requires_grad_(False), dict(opened.backbones)


def kept_state(model: MPMPaint, parts: Parts) -> dict[str, Tensor]:
    """Return the tensors that belong into a checkpoint: trained, or to be had nowhere else."""
    return {name: value for name, value in model.state_dict().items() if _kept(name, parts)}


def _kept(name: str, parts: Parts) -> bool:
    part, lm = name.partition(".")[0], parts.language_model
    if part == "lm" and isinstance(lm, PretrainedConfig):
        return lm.full or "lora_" in name
    if part == "unet" and isinstance(parts.unet, LatentUNet):
        return is_cross_attention(name)
    return part != "canvas"


def is_cross_attention(name: str) -> bool:
    """Return whether a parameter of a UNet belongs to attention to the condition."""
    return ".attn2." in name


def save_painter(
    folder: Path,
    model: MPMPaint,
    parts: Parts,
    backbones: Mapping[str, Provenance],
    settings: Mapping[str, Any],
    record: TrainingRecord,
) -> None:
    """Write a checkpoint; weights last, so a folder with weights is whole.

    Half precision, but for the bridge: the fixed statistics of some models do not fit into it.
    """
    config = {"format": FORMAT, "format_version": FORMAT_VERSION, **to_jsonable(parts), **settings}
    write_explanations(folder, config, backbones, record, model.tokenizer.tokenizer)
    tensors = {
        name: (value if name.startswith("bridge.") else value.half()).contiguous()
        for name, value in kept_state(model, parts).items()
    }
    write_tensors(folder / "model.safetensors", tensors)


def load_painter(folder: Path, device: str = "cpu") -> tuple[MPMPaint, TrainingRecord | None]:
    """Return the painter, ready to paint, and its training record if there is one.

    Raises UserError for a missing or truncated file, another format, weights that do not fit, a
    missing package, or a backbone that is not the one this checkpoint was trained with.
    """
    config, where = _read_config(folder)
    tensors = read_tensors(folder / "model.safetensors")[0]
    own = {f.name: config[f.name] for f in fields(Parts) if f.name in config}
    parts = build(Parts, own, where)
    named = {
        name: build(Provenance, value, f"{where}: backbones.{name}")
        for name, value in config.get("backbones", {}).items()
    }
    language_model = parts.language_model
    if device == "cpu" and isinstance(language_model, PretrainedConfig):
        language_model = replace(language_model, dtype="float32")
    lm, tokenizer = stored_lm(language_model, named.get("lm"), folder)
    model, backbones = assemble(parts, Reader(lm, tokenizer, parts.condition))
    for name, found in backbones.items():
        if name in named:
            check(named[name], found)
    require_fit(kept_state(model, parts), tensors, folder / "model.safetensors")
    model.load_state_dict(tensors, strict=False)
    lm.settle()
    return model.to(device).eval(), load_record(folder)


def _read_config(folder: Path) -> tuple[dict[str, Any], str]:
    config, where = read_json(folder / "config.json"), str(folder / "config.json")
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise UserError(f"{where}: not a painter's checkpoint (format is not '{FORMAT}')")
    version = config.get("format_version")
    if version != FORMAT_VERSION:
        raise UserError(
            f"{where}: format_version {version} is not the one that this program reads "
            f"({FORMAT_VERSION}); a newer one needs a newer mpm-eval"
        )
    return config, where
