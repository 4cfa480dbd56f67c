"""Model cards (Hugging Face style), and the one door from a model's name to a backend."""

import hashlib
import re
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from mpm_eval.backends import BACKENDS, Backend
from mpm_eval.errors import UserError, unknown
from mpm_eval.resources import shipped
from mpm_eval.schema import ModelCard
from mpm_eval.strict import build

MODEL_INDEX = "model-index"  # key of the results that `mpm-eval card` writes into a card
_WEIGHTS = ("config.json", "model.safetensors")


@dataclass(frozen=True, slots=True)
class _Block:
    """The block `mpm_eval` of a card's front matter."""

    backend: str = "checkpoint"  # key of BACKENDS
    checkpoint: str = "."  # relative to the card
    description: str = ""


@dataclass(frozen=True, slots=True)
class _FrontMatter:
    """The keys of a Hugging Face model card that are known here."""

    license: str
    language: tuple[str, ...]
    library_name: str = ""
    license_name: str = ""
    license_link: str = ""
    pipeline_tag: str = ""
    tags: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    base_model: Any = None  # one name or a list of them
    thumbnail: str = ""
    mpm_eval: _Block = field(default_factory=_Block)


def list_cards() -> list[ModelCard]:
    """Return the shipped model cards, by name."""
    return [load_card(name) for name in _names()]


def load_card(name: str) -> ModelCard:
    """Return a shipped card; UserError for an unknown name, bad front matter or missing weights."""
    if name not in _names():
        raise unknown("model card", name, _names())
    folder = shipped("model_cards") / name
    path = folder / "README.md"
    matter = _front_matter(path)
    block = matter.mpm_eval
    if block.backend not in BACKENDS:
        raise unknown("backend", block.backend, BACKENDS, f"{path}: mpm_eval.backend")
    checkpoint = None
    if block.backend == "checkpoint":
        checkpoint = (folder / block.checkpoint).resolve()
        _require_weights(checkpoint, f"{path}: mpm_eval.checkpoint")
    return ModelCard(
        name=name,
        path=str(folder),
        checkpoint=str(checkpoint) if checkpoint else None,
        backend=block.backend,
        languages=matter.language,
        licence=matter.license,
        description=block.description,
        sha256=hashlib.sha256(without_results(path.read_bytes())).hexdigest(),
    )


def without_results(card: bytes) -> bytes:
    """Return a card's bytes without `model-index`: results do not change what they are results of.

    Only front matter is searched; a card without any is returned as it is.
    """
    start, end = front_matter_span(card) or (0, 0)
    key = rb"^%s:.*\n(?:(?: |- ).*\n|\r?\n(?= |- ))*" % MODEL_INDEX.encode()
    return card[:start] + re.sub(key, b"", card[start:end], flags=re.MULTILINE) + card[end:]


def front_matter_span(card: bytes) -> tuple[int, int] | None:
    """Return where the YAML of a card starts and ends, without the lines `---`; None: none."""
    found = re.match(rb"(?:\xef\xbb\xbf)?---\r?\n(.*?\n|)---\r?\n", card, re.DOTALL)
    return found.span(1) if found else None


def open_model(spec: str, seed: int = 0) -> Backend:
    """Return the backend for a card's name, a checkpoint folder or a backend spec.

    A spec is `name` or `name:argument`, e.g. `echo:half` or `hf:OWNER/NAME`. Raises UserError for
    anything else, with the nearest known name.
    """
    if spec in _names():
        card = load_card(spec)
        backend = _open(card.backend, card.checkpoint or "", seed)
        backend.name = card.name
        backend.identity = {**backend.identity, "card_sha256": card.sha256}
        return backend
    if spec and (Path(spec) / "config.json").is_file():
        _require_weights(Path(spec), f"--model {spec}")
        return _open("checkpoint", spec, seed)
    prefix, _, argument = spec.partition(":")
    if prefix in BACKENDS:
        if prefix == "checkpoint" and argument:
            _require_weights(Path(argument), f"--model {spec}")
        return _open(prefix, argument, seed)
    if spec and Path(spec).is_dir():
        _require_weights(Path(spec), f"--model {spec}")
    raise unknown("model", spec, [*_names(), *BACKENDS], "--model")


def _open(name: str, argument: str, seed: int) -> Backend:
    module, _, function = BACKENDS[name].partition(":")
    backend: Backend = getattr(import_module(module), function)(argument, seed)
    return backend


def _names() -> list[str]:
    return sorted(path.parent.name for path in shipped("model_cards").glob("*/README.md"))


def _require_weights(folder: Path, where: str) -> None:
    if not folder.is_dir():
        raise UserError(f"{where}: no folder {folder}; give the folder of a checkpoint")
    for name in _WEIGHTS:
        if not (folder / name).is_file():
            raise UserError(f"{where}: {folder} is not a checkpoint: {name} is missing")


def _front_matter(path: Path) -> _FrontMatter:
    import yaml

    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from None
    if not text.startswith("---\n") or "\n---\n" not in text[3:]:
        raise UserError(f"{path}: no front matter; start the card with '---', YAML and '---'")
    try:
        content = yaml.safe_load(text[4 : text.index("\n---\n", 3) + 1])
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise UserError(f"{path}: front matter is not valid YAML: {problem}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: front matter: expected a table of fields")
    languages = content.get("language")
    if isinstance(languages, list) and False in languages:
        raise UserError(f'{path}: language: YAML reads no as false; write "no"')
    if isinstance(languages, str):  # the Hub allows a single tag
        content["language"] = [languages]
    content.pop(MODEL_INDEX, None)  # written for the Hub, read by nothing here
    return build(_FrontMatter, content, str(path))
