"""Checkpoints: config.json, model.safetensors (what was trained), training.json, tokenizer.json."""

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

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
from training.backbones import Architecture, kept_state, open_model
from training.chat_model import ChatModel
from training.provenance import Provenance, check

FORMAT = "mpm-chat"
FORMAT_VERSION = 2
# What decides an answer; training.json explains the weights but does not change them.
_IDENTITY = ("config.json", "model.safetensors", "tokenizer.json")


def save_checkpoint(
    folder: Path,
    model: ChatModel,
    parts: Architecture,
    backbones: Mapping[str, Provenance],
    settings: Mapping[str, Any],
    record: TrainingRecord,
) -> None:
    """Write a checkpoint in half precision; weights last, so a folder with weights is whole.

    Frozen backbones are named by source, revision and hash; a new language model's tokenizer is
    written, a pretrained one's is part of the backbone.
    """
    config = {"format": FORMAT, "format_version": FORMAT_VERSION, **to_jsonable(parts), **settings}
    write_explanations(folder, config, backbones, record, model.tokenizer.tokenizer)
    state = kept_state(model, parts)
    tensors = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in state.items()
    }
    write_tensors(folder / "model.safetensors", tensors)


def write_explanations(
    folder: Path,
    config: Mapping[str, Any],
    backbones: Mapping[str, Provenance],
    record: TrainingRecord,
    tokenizer: Tokenizer,
) -> None:
    """Write all of a checkpoint but its weights; the tokenizer only of a new language model."""
    folder.mkdir(parents=True, exist_ok=True)
    named = {**to_jsonable(config), "backbones": to_jsonable(backbones)}
    write_json(folder / "config.json", named)
    write_json(folder / "training.json", record)
    if "lm" not in backbones:
        tokenizer.save(str(folder / "tokenizer.json"))


def load_checkpoint(folder: Path, device: str = "cpu") -> tuple[ChatModel, TrainingRecord | None]:
    """Return the model, ready to answer, and its training record if there is one.

    A pretrained language model computes in the precision of its recipe, as in training: bfloat16
    is fast where the processor knows it, and rounds differently in batches of another size. Raises
    UserError for a missing or truncated file, a wrong format, weights that do not fit, or a
    backbone that is not the one this checkpoint was trained with.
    """
    config, where = _read_config(folder)
    tensors = _upgrade_names(read_tensors(folder / "model.safetensors")[0])
    keys = [field.name for field in fields(Architecture)]
    own = {key: config[key] for key in keys if key in config}
    parts = build(Architecture, own, where)
    backbones = config.get("backbones", {})
    if not isinstance(backbones, dict):
        raise UserError(f"{where}: backbones: expected a table by part of the model")
    named = {
        name: build(Provenance, value, f"{where}: backbones.{name}")
        for name, value in backbones.items()
    }
    tokenizer = None if "lm" in named else read_tokenizer(folder / "tokenizer.json")
    opened = open_model(parts, tokenizer, stored=True)
    for name, expected in named.items():
        if name in opened.backbones:
            check(expected, opened.backbones[name])
    model = opened.model
    _fill(model, parts, tensors, folder / "model.safetensors")
    model.lm.settle()
    return model.to(device).eval(), load_record(folder)


def _read_config(folder: Path) -> tuple[dict[str, Any], str]:
    config, where = read_json(folder / "config.json"), str(folder / "config.json")
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise UserError(f"{where}: not a checkpoint of this trainer (format is not '{FORMAT}')")
    version = config.get("format_version")
    if not isinstance(version, int) or not 1 <= version <= FORMAT_VERSION:
        raise UserError(
            f"{where}: format_version {version} is not one that this program reads (1 to "
            f"{FORMAT_VERSION}); a newer one needs a newer mpm-eval"
        )
    if version == 1:  # the bridge had the name of its only kind
        config["bridge"] = config.pop("resampler", {})
        config["vision"] = {**config.get("vision", {}), "store": True}
    return config, where


def _upgrade_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors under the names of this format: in the first, the bridge was "resampler"."""
    return {
        f"bridge.{name.removeprefix('resampler.')}"
        if name.startswith("resampler.")
        else name: value
        for name, value in tensors.items()
    }


def _fill(model: ChatModel, parts: Architecture, tensors: Mapping[str, Tensor], path: Path) -> None:
    require_fit(kept_state(model, parts), tensors, path)
    model.load_state_dict(dict(tensors), strict=False)


def require_fit(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise UserError unless a file holds the tensors that config.json calls for."""
    expected = {name: value.shape for name, value in wanted.items()}
    found = {name: value.shape for name, value in tensors.items()}
    if expected != found:
        name = next(n for n in sorted({*expected, *found}) if expected.get(n) != found.get(n))
        raise UserError(
            f"{path}: tensor '{name}' does not fit config.json: "
            f"expected {_shape(expected.get(name))}, found {_shape(found.get(name))}"
        )


def load_record(folder: Path) -> TrainingRecord | None:
    """Return training.json of a checkpoint; None when there is none (its labels are unknown)."""
    path = folder / "training.json"
    return build(TrainingRecord, read_json(path), str(path)) if path.is_file() else None


def checkpoint_sha256(folder: Path) -> str:
    """Return one hash over the files that decide an answer."""
    return canonical_sha256(
        {name: file_sha256(folder / name) for name in _IDENTITY if (folder / name).is_file()}
    )


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


def read_tokenizer(path: Path) -> Tokenizer:
    """Return a tokenizer; UserError for a file that is missing or is none."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception for every fault in the file
        raise UserError(f"{path}: not a tokenizer file ({error})") from None


def _shape(shape: Any) -> str:
    return "nothing" if shape is None else "x".join(map(str, shape)) or "a scalar"
