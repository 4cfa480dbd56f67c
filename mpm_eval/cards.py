"""Model cards (Hugging Face style), and the one door from a model's name to a backend."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from mpm_eval.backends import BACKENDS, Backend
from mpm_eval.errors import UserError, unknown
from mpm_eval.resources import shipped
from mpm_eval.schema import ModelCard
from mpm_eval.strict import build, file_sha256

_WEIGHTS = ("config.json", "model.safetensors")


@dataclass(frozen=True, slots=True)
class _Block:
    """The block `mpm_eval` of a card's front matter."""

    backend: str = "checkpoint"
    checkpoint: str = "."  # relative to the card
    description: str = ""


def list_cards() -> list[ModelCard]:
    """Return the shipped model cards, by name."""
    return [load_card(name) for name in _names()]


def load_card(name: str) -> ModelCard:
    """Return a shipped card; UserError for an unknown name, bad front matter or missing weights."""
    folder = shipped("model_cards") / name
    path = folder / "README.md"
    if not path.is_file():
        raise unknown("model card", name, _names())
    matter = _front_matter(path)
    block = build(_Block, matter.get("mpm_eval") or {}, f"{path}: mpm_eval")
    checkpoint = (folder / block.checkpoint).resolve()
    _require_weights(checkpoint, f"{path}: mpm_eval.checkpoint")
    languages = matter.get("language") or []
    if not isinstance(languages, list) or not all(isinstance(tag, str) for tag in languages):
        raise UserError(f'{path}: language: expected a list of tags; quote "no" (Norwegian)')
    return ModelCard(
        name=name,
        path=str(folder),
        checkpoint=str(checkpoint),
        backend=block.backend,
        languages=tuple(languages),
        licence=str(matter.get("license", "")),
        description=block.description,
        sha256=file_sha256(path),
    )


def open_model(spec: str, seed: int = 0) -> Backend:
    """Return the backend for a card's name, a checkpoint folder or a backend spec.

    A spec is `name` or `name:argument`, e.g. `echo:half` or `checkpoint:DIR`. Raises UserError for
    anything else, with the nearest known name.
    """
    if spec in _names():
        card = load_card(spec)
        backend = _open(card.backend, card.checkpoint or "", seed)
        backend.name = card.name
        backend.identity = {**backend.identity, "card_sha256": card.sha256}
        return backend
    prefix, _, argument = spec.partition(":")
    if prefix in BACKENDS:
        if prefix == "checkpoint" and argument:
            _require_weights(Path(argument), f"--model {spec}")
        return _open(prefix, argument, seed)
    if Path(spec).is_dir():
        _require_weights(Path(spec), f"--model {spec}")
        return _open("checkpoint", spec, seed)
    raise unknown("model", spec, [*_names(), *BACKENDS], "--model")


def _open(name: str, argument: str, seed: int) -> Backend:
    if name not in BACKENDS:
        raise unknown("backend", name, BACKENDS)
    module, _, function = BACKENDS[name].partition(":")
    backend: Backend = getattr(import_module(module), function)(argument, seed)
    return backend


def _names() -> list[str]:
    return sorted(path.parent.name for path in shipped("model_cards").glob("*/README.md"))


def _require_weights(folder: Path, where: str) -> None:
    for name in _WEIGHTS:
        if not (folder / name).is_file():
            raise UserError(f"{where}: {folder} is not a checkpoint: {name} is missing")


def _front_matter(path: Path) -> Mapping[str, Any]:
    import yaml

    text = path.read_text(encoding="utf-8")
    if not text.startswith("---\n") or "\n---\n" not in text[4:]:
        raise UserError(f"{path}: no front matter; start the card with '---' and YAML")
    try:
        matter = yaml.safe_load(text[4 : text.index("\n---\n", 4)])
    except yaml.YAMLError as error:
        raise UserError(
            f"{path}: front matter is not valid YAML: {' '.join(str(error).split())}"
        ) from None
    if not isinstance(matter, dict):
        raise UserError(f"{path}: front matter: expected a table of fields")
    return matter
