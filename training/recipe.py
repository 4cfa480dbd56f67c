"""Recipes: one strict TOML file per model, overridable key by key with `--set`."""

import dataclasses
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpm_eval.data.emoji_qa import QA_LANGUAGES
from mpm_eval.errors import UserError, unknown
from mpm_eval.languages import EMOJI_LANGUAGES
from mpm_eval.resources import shipped
from mpm_eval.strict import build, canonical_sha256, read_toml
from training.frames import TEMPLATES
from training.language_model import LanguageModelConfig
from training.memory_bridge import MemoryConfig
from training.mlp_bridge import MLPConfig
from training.pretrained_lm import PretrainedConfig
from training.resampler import ResamplerConfig
from training.streams import StreamConfig
from training.translation_noise import KINDS
from training.vision import VisionConfig
from training.vision_tower import TowerConfig


@dataclass(frozen=True)
class StageConfig:
    """What every stage has."""

    steps: int = 1000
    batch_size: int = 64  # examples per step, over all processes and micro-batches
    learning_rate: float = 1e-3
    warmup_steps: int = 50
    validate_every: int = 0  # steps; the weights with the lowest validation loss are kept. 0: never


@dataclass(frozen=True)
class AlignConfig(StageConfig):
    """Stage 1: the language model learns all languages from text only.

    A pretrained language model is left as it is (leave the table out), or continues on parallel
    text through its LoRA.
    """

    steps: int = 2500
    learning_rate: float = 4e-3  # of embeddings and norms; matrices take 5 times this, by Muon
    warmup_steps: int = 200
    translation: bool = True  # false: source and answer share one language (no pivot)
    pivot_share: float = 0.35  # of sources in the pivot language; the others share the rest
    question_share: float = 0.25  # of examples that are question answering, not naming
    noise: float = 0.5  # of the source's embeddings, relative to their size: a gap to bridge later


@dataclass(frozen=True)
class PretrainConfig(StageConfig):
    """Stage 2a: language model frozen, the bridge learns pivot captions."""

    keyword_share: float = 0.5  # of captions that are a keyword instead of the name
    native_share: float = 0.0  # of captions in the other languages, at the same number of steps
    translation_noise: float = 0.0  # share of words, or captions, damaged in those; see noise_kind
    noise_kind: str = "dropped"  # one of translation_noise.KINDS
    augmentations: int = 5  # precomputed views of each picture, the plain one included
    max_pictures: int = 0  # of training and of validation, each; 0: all. For trials and tests
    matching: float = 0.0  # weight: hidden states of picture and of its English name agree (MSE)
    contrastive: float = 0.0  # weight: they agree more than with other names (InfoNCE)


@dataclass(frozen=True)
class SpellConfig(StageConfig):
    """Stage 2, a warm-up without the language model: visual tokens spell the pivot name."""

    temperature: float = 0.07  # of cosine similarities between visual tokens and words
    contrastive: float = 1.0  # weight: the whole name, against the names of all other concepts


@dataclass(frozen=True)
class RememberConfig(StageConfig):
    """Stage 2 of a memory bridge: it keeps the training pictures, and takes no step."""

    steps: int = 0
    max_pictures: int = 0  # of training and of validation, each; 0: all. For trials and tests


@dataclass(frozen=True)
class InstructConfig(StageConfig):
    """Stage 2b: question answering on the pivot plus k translated pairs."""

    steps: int = 400
    learning_rate: float = 3e-4
    caption_share: float = 0.3  # of examples that repeat stage 2a, against forgetting
    translated_pairs: int = 0  # k: picture-question-answer triples per target language
    translated_share: float = 0.2  # of examples drawn from them, when there are any
    train_language_model: bool = False


@dataclass(frozen=True, kw_only=True)
class StreamStageConfig(StageConfig):
    """A stage on streamed image-text data: captions of the pivot, or conversations."""

    data: StreamConfig
    train_language_model: bool = False
    held_out: int = 256  # samples that are never trained on but give the validation loss
    prompt: str = "Describe the image."  # the question of a caption


@dataclass(frozen=True)
class EngineConfig:
    """How steps are computed; `accelerate launch` decides on how many devices."""

    mixed_precision: str = "no"  # no, bf16, fp16: of what is trained
    accumulation: int = 1  # micro-batches per step, to save memory
    gradient_checkpointing: bool = False  # recompute instead of keeping activations
    ema: float = 0.0  # decay of averaged weights, which then replace the last ones; 0: none
    data_vocabulary: bool = False  # the softmax runs over the words that the data can use
    tracker: str = ""  # tensorboard or trackio; "": none


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a checkpoint's weights."""

    name: str
    description: str  # cost and expected result
    seed: int
    languages: tuple[str, ...]
    language_model: LanguageModelConfig | PretrainedConfig
    vision: VisionConfig | TowerConfig
    bridge: ResamplerConfig | MLPConfig | MemoryConfig
    align: AlignConfig | None = None
    spell: SpellConfig | None = None
    remember: RememberConfig | None = None
    pretrain: PretrainConfig | None = None
    instruct: InstructConfig | None = None
    stream_pretrain: StreamStageConfig | None = None
    stream_instruct: StreamStageConfig | None = None
    engine: EngineConfig = EngineConfig()
    pivot: str = "en"
    threads: int = 2  # of torch; part of the recipe, as sums depend on it in the last bit
    save_every_s: float = 30.0

    @property
    def sha256(self) -> str:
        """Hash of everything that decides the weights (neither text nor saving interval)."""
        return recipe_sha256(self)

    @property
    def num_views(self) -> int:
        """Views of each training picture, the plain one included."""
        return self.pretrain.augmentations if self.pretrain else 1

    @property
    def max_pictures(self) -> int | None:
        """The most pictures of training and of validation, each; None: all."""
        limits = (stage.max_pictures for stage in (self.pretrain, self.remember) if stage)
        return max(limits, default=0) or None

    @property
    def stages(self) -> dict[str, StageConfig]:
        """Return the stages that the recipe has, in order."""
        found = {
            "align": self.align,
            "spell": self.spell,
            "remember": self.remember,
            "pretrain": self.pretrain or self.stream_pretrain,
            "instruct": self.instruct or self.stream_instruct,
        }
        return {name: config for name, config in found.items() if config is not None}


def recipe_sha256(recipe: Any) -> str:
    """Return the hash of all keys of a recipe but those that change no weight."""
    kept = dataclasses.asdict(recipe)
    for key in ("description", "save_every_s"):
        del kept[key]
    del kept["engine"]["tracker"]
    return canonical_sha256(kept)


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Return a shipped recipe by name, or one from a file, with `key=value` overrides applied.

    Raises UserError for an unknown recipe, key, language or a value of the wrong type.
    """
    content, where = read_recipe(name_or_path, overrides)
    recipe = build(Recipe, content, where)
    _check(recipe, where)
    return recipe


def read_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> tuple[dict[str, Any], str]:
    """Return (content, path) of a recipe of any kind, with its overrides, keys not yet checked."""
    path = Path(name_or_path)
    if path.suffix != ".toml":
        folder = shipped("recipes")
        path = folder / f"{name_or_path}.toml"
        if not path.is_file():
            raise unknown("recipe", name_or_path, (p.stem for p in folder.glob("*.toml")))
    content = read_toml(path)
    for override in overrides:
        _apply(content, override)
    return content, str(path)


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


def _check_captions(config: PretrainConfig, languages: Sequence[str], where: str) -> None:
    if config.noise_kind not in KINDS:
        raise unknown("kind", config.noise_kind, KINDS, f"{where}: pretrain.noise_kind")
    for key in ("native_share", "translation_noise"):
        value = getattr(config, key)
        if not 0 <= value <= 1:
            raise UserError(f"{where}: pretrain.{key}: must be between 0 and 1, got {value}")
    if config.native_share and len(languages) < 2:
        raise UserError(
            f"{where}: pretrain.native_share: there is no language beside the pivot; add languages"
        )


def _check_languages(recipe: Recipe, where: str) -> None:
    for language in recipe.languages:
        if language not in EMOJI_LANGUAGES:
            raise unknown("language", language, EMOJI_LANGUAGES, f"{where}: languages")
    if recipe.pivot not in recipe.languages:
        raise UserError(f"{where}: pivot '{recipe.pivot}' is not among languages")
    if recipe.instruct is not None and recipe.instruct.translated_pairs:
        key = f"{where}: instruct.translated_pairs"
        for language in recipe.languages:
            if language not in QA_LANGUAGES:
                raise unknown("language of questions", language, QA_LANGUAGES, key)


def _check(recipe: Recipe, where: str) -> None:
    _check_languages(recipe, where)
    if recipe.pretrain is not None:
        _check_captions(recipe.pretrain, recipe.languages, where)
    for key, value in _counts(recipe):
        if value < 1:
            raise UserError(f"{where}: {key}: must be at least 1, got {value}")
    for key, chosen, allowed in _choices(recipe):
        if chosen not in allowed:
            raise UserError(f"{where}: {key}: expected one of {', '.join(allowed)}, got '{chosen}'")
    _check_sizes(recipe, where)
    _check_stages(recipe, where)


def _check_sizes(recipe: Recipe, where: str) -> None:
    if not 0 <= recipe.engine.ema < 1:
        raise UserError(f"{where}: engine.ema: must be from 0 to below 1, got {recipe.engine.ema}")
    for name, config in recipe.stages.items():
        if config.learning_rate <= 0:
            raise UserError(
                f"{where}: {name}.learning_rate: must be above 0, got {config.learning_rate}"
            )
    bridge = recipe.bridge
    if isinstance(bridge, ResamplerConfig) and bridge.width % bridge.num_heads:
        raise UserError(
            f"{where}: bridge.width: must be a multiple of num_heads ({bridge.num_heads}), "
            f"got {bridge.width}"
        )
    lm = recipe.language_model
    if isinstance(lm, PretrainedConfig) and (lm.lora_rank < 0 or (lm.lora_rank and lm.full)):
        raise UserError(
            f"{where}: language_model.lora_rank: must be 0 with full = true, else at least 0; "
            f"got {lm.lora_rank}"
        )
    if isinstance(lm, LanguageModelConfig) and lm.width % (2 * lm.num_heads):
        raise UserError(
            f"{where}: language_model.width: must be a multiple of twice num_heads "
            f"({2 * lm.num_heads}), got {lm.width}"
        )


def _choices(recipe: Recipe) -> Iterator[tuple[str, str, Sequence[str]]]:
    yield "engine.mixed_precision", recipe.engine.mixed_precision, ("no", "bf16", "fp16")
    yield "engine.tracker", recipe.engine.tracker, ("", "tensorboard", "trackio")
    if isinstance(recipe.language_model, PretrainedConfig):
        dtypes = ("float32", "bfloat16", "float16")
        yield "language_model.dtype", recipe.language_model.dtype, dtypes
        yield "language_model.template", recipe.language_model.template, TEMPLATES
    if isinstance(recipe.bridge, ResamplerConfig):
        yield "bridge.output", recipe.bridge.output, ("words", "free")


def _counts(recipe: Recipe) -> Iterator[tuple[str, int]]:
    yield "threads", recipe.threads
    yield "engine.accumulation", recipe.engine.accumulation
    if recipe.pretrain is not None:
        yield "pretrain.augmentations", recipe.pretrain.augmentations
    for name, config in recipe.stages.items():
        if not isinstance(config, RememberConfig):
            yield f"{name}.steps", config.steps
        yield f"{name}.batch_size", config.batch_size


def _check_stages(recipe: Recipe, where: str) -> None:
    if not recipe.stages:
        raise UserError(f"{where}: no stage; write at least one table, e.g. [pretrain]")
    for name in ("pretrain", "instruct"):
        if getattr(recipe, name) and getattr(recipe, f"stream_{name}"):
            raise UserError(f"{where}: {name} and stream_{name} are the same stage; keep one")
    _check_memory(recipe, where)
    lm = recipe.language_model
    if isinstance(lm, LanguageModelConfig):
        if recipe.align is None:
            raise UserError(f"{where}: a new language model has to learn text; add [align]")
    elif recipe.align is not None and not lm.trainable:
        raise UserError(
            f"{where}: align: the language model is frozen; leave [align] out or set "
            "language_model.lora_rank"
        )


def _check_memory(recipe: Recipe, where: str) -> None:
    if isinstance(recipe.bridge, MemoryConfig) != (recipe.remember is not None):
        raise UserError(
            f"{where}: bridge.kind = 'memory' and the table [remember] go together: what remembers "
            "and what is remembered"
        )
    if not recipe.remember:
        return
    idle = dataclasses.asdict(RememberConfig(max_pictures=recipe.remember.max_pictures))
    for key, value in dataclasses.asdict(recipe.remember).items():
        if value != idle[key]:
            raise UserError(f"{where}: remember.{key}: a memory takes no step; leave it out")
    for name in ("instruct", "stream_instruct"):
        stage = getattr(recipe, name)
        if stage and not stage.train_language_model:
            raise UserError(
                f"{where}: {name}: nothing would learn, for a memory has no weights; set "
                f"{name}.train_language_model=true"
            )
    for name in ("spell", "pretrain", "stream_pretrain"):
        if getattr(recipe, name):
            raise UserError(
                f"{where}: {name}: a memory says the names that it was given; leave [{name}] out"
            )
