"""Recipes: one strict TOML file per model, overridable key by key with `--set`."""

import dataclasses
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpm_eval.errors import UserError, unknown
from mpm_eval.languages import EMOJI_LANGUAGES
from mpm_eval.resources import shipped
from mpm_eval.strict import build, canonical_sha256, read_toml
from training.language_model import LanguageModelConfig
from training.resampler import ResamplerConfig
from training.vision import VisionConfig


@dataclass(frozen=True)
class AlignConfig:
    """Stage 1: the language model learns all languages from text only."""

    steps: int = 2500
    batch_size: int = 64
    learning_rate: float = 4e-3  # of embeddings and norms; matrices take 5 times this, by Muon
    warmup_steps: int = 200
    translation: bool = True  # false: source and answer share one language (no pivot)
    pivot_share: float = 0.35  # of sources in the pivot language; the others share the rest
    question_share: float = 0.25  # of examples that are question answering, not naming
    noise: float = 0.5  # of the source's embeddings, relative to their size: a gap to bridge later


@dataclass(frozen=True)
class PretrainConfig:
    """Stage 2a: language model frozen, the bridge learns pivot captions."""

    steps: int = 1000
    batch_size: int = 64
    learning_rate: float = 1e-3
    warmup_steps: int = 50
    keyword_share: float = 0.5  # of captions that are a keyword instead of the name
    augmentations: int = 5  # precomputed views of each picture, the plain one included
    max_pictures: int = 0  # of training and of validation, each; 0: all. For trials and tests
    matching: float = 0.0  # weight: hidden states of picture and of its English name agree (MSE)
    contrastive: float = 0.0  # weight: they agree more than with other names (InfoNCE)


@dataclass(frozen=True)
class InstructConfig:
    """Stage 2b: question answering on the pivot plus k translated pairs."""

    steps: int = 400
    batch_size: int = 64
    learning_rate: float = 3e-4
    warmup_steps: int = 50
    caption_share: float = 0.3  # of examples that repeat stage 2a, against forgetting
    translated_pairs: int = 0  # k: picture-question-answer triples per target language
    translated_share: float = 0.2  # of examples drawn from them, when there are any
    train_language_model: bool = False


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a checkpoint's weights."""

    name: str
    description: str  # cost and expected result
    seed: int
    languages: tuple[str, ...]
    language_model: LanguageModelConfig
    vision: VisionConfig
    resampler: ResamplerConfig
    align: AlignConfig
    pretrain: PretrainConfig
    instruct: InstructConfig
    pivot: str = "en"
    threads: int = 2  # of torch; part of the recipe, as sums depend on it in the last bit
    save_every_s: float = 30.0

    @property
    def sha256(self) -> str:
        """Hash of everything that decides the weights (neither text nor saving interval)."""
        kept = dataclasses.asdict(self)
        for key in ("description", "save_every_s"):
            del kept[key]
        return canonical_sha256(kept)


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Return a shipped recipe by name, or one from a file, with `key=value` overrides applied.

    Raises UserError for an unknown recipe, key, language or a value of the wrong type.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        folder = shipped("recipes")
        path = folder / f"{name_or_path}.toml"
        if not path.is_file():
            raise unknown("recipe", name_or_path, (p.stem for p in folder.glob("*.toml")))
    content = read_toml(path)
    for override in overrides:
        _apply(content, override)
    recipe = build(Recipe, content, str(path))
    _check(recipe, str(path))
    return recipe


def _apply(content: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise UserError(f"--set {override}: write key=value, e.g. --set align.steps=100")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string
    *parents, last = key.strip().split(".")
    table = content
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise UserError(f"--set {override}: '{parent}' is not a table")
    table[last] = value


def _check(recipe: Recipe, where: str) -> None:
    for language in recipe.languages:
        if language not in EMOJI_LANGUAGES:
            raise unknown("language", language, EMOJI_LANGUAGES, f"{where}: languages")
    if recipe.pivot not in recipe.languages:
        raise UserError(f"{where}: pivot '{recipe.pivot}' is not among languages")
    numbers: Mapping[str, int] = {
        "align.steps": recipe.align.steps,
        "pretrain.steps": recipe.pretrain.steps,
        "instruct.steps": recipe.instruct.steps,
        "threads": recipe.threads,
    }
    for key, value in numbers.items():
        if value < 1:
            raise UserError(f"{where}: {key}: must be at least 1, got {value}")
    if recipe.language_model.width % (2 * recipe.language_model.num_heads):
        raise UserError(
            f"{where}: language_model.width: must be a multiple of twice num_heads "
            f"({2 * recipe.language_model.num_heads}), got {recipe.language_model.width}"
        )
