"""Checkpoints: a folder of config.json, model.safetensors, tokenizer.json and training.json."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from tokenizers import Tokenizer
from torch import Tensor

from mpm_eval.errors import UserError
from mpm_eval.schema import TrainingRecord
from mpm_eval.strict import (
    build,
    canonical_sha256,
    file_sha256,
    read_json,
    to_jsonable,
    write_bytes,
    write_json,
)
from training.chat_model import ChatModel
from training.language_model import LanguageModelConfig, TinyDecoder
from training.resampler import Resampler, ResamplerConfig
from training.tokenizer import ChatTokenizer
from training.vision import EfficientNetLite0, VisionConfig

FORMAT = "mpm-chat"
FORMAT_VERSION = 1
# What decides an answer; training.json explains the weights but does not change them.
_IDENTITY = ("config.json", "model.safetensors", "tokenizer.json")


def build_model(
    tokenizer: Tokenizer,
    language_model: LanguageModelConfig,
    vision: VisionConfig,
    resampler: ResamplerConfig,
) -> ChatModel:
    """Return a chat model with fresh weights."""
    eye = EfficientNetLite0(vision.width)
    lm = TinyDecoder(language_model)
    bridge = Resampler(resampler, eye.dim, lm.width)
    return ChatModel(
        lm, eye, bridge, ChatTokenizer(tokenizer, resampler.num_tokens), vision.image_size
    )


def save_checkpoint(
    folder: Path, model: ChatModel, configs: Mapping[str, Any], record: TrainingRecord
) -> None:
    """Write a checkpoint in half precision; weights last, so a folder with weights is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"format": FORMAT, "format_version": FORMAT_VERSION, **to_jsonable(configs)}
    write_json(folder / "config.json", config)
    write_json(folder / "training.json", record)
    model.tokenizer.tokenizer.save(str(folder / "tokenizer.json"))
    tensors = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    write_tensors(folder / "model.safetensors", tensors)


def load_checkpoint(folder: Path, device: str = "cpu") -> tuple[ChatModel, TrainingRecord | None]:
    """Return the model in float32, ready to answer, and its training record if there is one.

    Raises UserError for a missing or truncated file, a wrong format, or weights that do not fit.
    """
    config = read_json(folder / "config.json")
    where = str(folder / "config.json")
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise UserError(f"{where}: not a checkpoint of this trainer (format is not '{FORMAT}')")
    if config.get("format_version", 0) > FORMAT_VERSION:
        raise UserError(
            f"{where}: format_version {config['format_version']} is newer than this program"
        )
    language_model, vision, resampler = (
        build(LanguageModelConfig, config.get("language_model", {}), f"{where}: language_model"),
        build(VisionConfig, config.get("vision", {}), f"{where}: vision"),
        build(ResamplerConfig, config.get("resampler", {}), f"{where}: resampler"),
    )
    tensors, _ = read_tensors(folder / "model.safetensors")
    tokenizer = _tokenizer(folder / "tokenizer.json")
    model = build_model(tokenizer, language_model, vision, resampler)
    expected = {name: value.shape for name, value in model.state_dict().items()}
    found = {name: value.shape for name, value in tensors.items()}
    if expected != found:
        name = next(n for n in sorted({*expected, *found}) if expected.get(n) != found.get(n))
        raise UserError(
            f"{folder / 'model.safetensors'}: tensor '{name}' does not fit config.json: "
            f"expected {_shape(expected.get(name))}, found {_shape(found.get(name))}"
        )
    model.load_state_dict({name: value.float() for name, value in tensors.items()})
    return model.to(device).eval(), load_record(folder)


def load_record(folder: Path) -> TrainingRecord | None:
    """Return training.json of a checkpoint; None when there is none (its labels are unknown)."""
    path = folder / "training.json"
    return build(TrainingRecord, read_json(path), str(path)) if path.is_file() else None


def checkpoint_sha256(folder: Path) -> str:
    """Return one hash over the files that decide an answer."""
    return canonical_sha256({name: file_sha256(folder / name) for name in _IDENTITY})


def write_tensors(
    path: Path, tensors: dict[str, Tensor], metadata: Mapping[str, Any] | None = None
) -> None:
    """Write safetensors in one step: kill -9 leaves the old file or the new one, whole."""
    write_bytes(path, save(tensors, {"state": json.dumps(to_jsonable(metadata or {}))}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return (tensors, metadata) of a safetensors file; UserError when missing or truncated."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        with safe_open(str(path), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            state = json.loads((file.metadata() or {}).get("state", "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"{path}: truncated or not a safetensors file ({error}); copy it again"
        ) from None
    return tensors, state


def _tokenizer(path: Path) -> Tokenizer:
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception for every fault in the file
        raise UserError(f"{path}: not a tokenizer file ({error})") from None


def _shape(shape: torch.Size | None) -> str:
    return "nothing" if shape is None else "x".join(map(str, shape)) or "a scalar"
