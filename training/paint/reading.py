"""Opens the frozen language model that a painter reads with."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mpm_eval.errors import UserError
from mpm_eval.resources import shipped
from mpm_eval.schema import StageRecord
from mpm_eval.strict import build, canonical_sha256, read_json
from training.backbones import open_language_model, tokenizer_of
from training.checkpoint import checkpoint_sha256, load_checkpoint, read_tokenizer
from training.frames import frame_of
from training.language_model import LanguageModelConfig, TinyDecoder
from training.paint.recipe import CheckpointLM
from training.pretrained_lm import PretrainedConfig, load_pretrained
from training.provenance import Provenance, check
from training.tokenizer import NEUTRAL, ChatTokenizer


@dataclass(frozen=True)
class OpenedLM:
    """A language model with its tokenizer and where it came from."""

    lm: Any
    tokenizer: ChatTokenizer
    config: LanguageModelConfig | PretrainedConfig
    backbone: Provenance | None  # None: a checkpoint has to store the whole model
    sha256: str  # of everything that decides a hidden state
    records: tuple[StageRecord, ...] = ()  # of the stages that trained it


@dataclass(frozen=True)
class _ChatParts:
    language_model: LanguageModelConfig | PretrainedConfig


def open_lm(config: PretrainedConfig | CheckpointLM) -> OpenedLM:
    """Return the language model that a recipe names; UserError when it cannot be had."""
    if isinstance(config, CheckpointLM):
        return _from_checkpoint(config)
    lm, tokenizer, backbone = _pretrained(config)
    return OpenedLM(lm, tokenizer, config, backbone, canonical_sha256([backbone, config]))


def stored_lm(
    config: LanguageModelConfig | PretrainedConfig, backbone: Provenance | None, folder: Path
) -> tuple[Any, ChatTokenizer]:
    """Return (language model, tokenizer) of a painter's checkpoint, which fills in what it stores.

    Raises UserError when a backbone is not the one that was trained with.
    """
    if isinstance(config, PretrainedConfig):
        lm, tokenizer, found = _pretrained(config)
        if backbone is not None:
            check(backbone, found)
        return lm, tokenizer
    words = read_tokenizer(folder / "tokenizer.json")
    lm = TinyDecoder(replace(config, vocab_size=words.get_vocab_size()))
    return lm, ChatTokenizer(words, 0, NEUTRAL)


def _pretrained(config: PretrainedConfig) -> tuple[Any, ChatTokenizer, Provenance]:
    folder, backbone = open_language_model(config)
    words = tokenizer_of(folder)
    frame = frame_of(folder, words, config.template)
    return load_pretrained(folder, config), ChatTokenizer(words, 0, frame), backbone


def _from_checkpoint(config: CheckpointLM) -> OpenedLM:
    folder = Path(config.source).expanduser()
    if not folder.is_dir():
        folder = shipped("model_cards") / config.source
    if not config.source or not folder.is_dir():
        raise UserError(
            f"language_model.source: no folder and no model card '{config.source}'; give a chat "
            "checkpoint"
        )
    chat, record = load_checkpoint(folder)
    content, where = read_json(folder / "config.json"), str(folder / "config.json")
    parts = build(_ChatParts, {"language_model": content["language_model"]}, where)
    named = content.get("backbones", {}).get("lm")
    stages = record.stages if record else ()
    return OpenedLM(
        lm=chat.lm,
        tokenizer=chat.tokenizer,
        config=parts.language_model,
        backbone=build(Provenance, named, f"{where}: backbones.lm") if named else None,
        sha256=checkpoint_sha256(folder),
        records=tuple(stage for stage in stages if "lm" in stage.trained),
    )
