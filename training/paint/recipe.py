"""Recipes of painters: a frozen language model, a condition, a UNet, and how it is trained."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mpm_eval.errors import UserError, unknown
from mpm_eval.languages import EMOJI_LANGUAGES
from mpm_eval.strict import build
from training.language_model import LanguageModelConfig
from training.pretrained_lm import PretrainedConfig
from training.recipe import EngineConfig, StageConfig, recipe_sha256
from training.streams import StreamConfig

PREDICTIONS = ("epsilon", "v_prediction")
POSITIONS = ("all", "question")
MIXES = ("learned", "mean")
SAMPLERS = ("dpm", "ddim", "ddpm")


@dataclass(frozen=True)
class CheckpointLM:
    """The language model of a chat checkpoint, as it was trained there."""

    kind: str = "checkpoint"
    source: str = ""  # a model card's name, or a folder


@dataclass(frozen=True)
class ConditionConfig:
    """Which hidden states of the frozen language model the UNet sees."""

    layers: tuple[int, ...] = (-1,)  # 0: embeddings; negative: from the last one
    mix: str = "learned"  # learned (a softmax over the layers) or mean
    # In the pivot, after every prompt: a causal model then gets ready to answer in the pivot,
    # whatever the prompt's language is. "": the prompt alone
    question: str = ""
    positions: str = "all"  # all of the prompt and after it, or those of the question alone
    centre: bool = False  # each language around its own mean, from text alone
    max_tokens: int = 77  # of a prompt; what is longer is cut
    width: int = 192  # channels for cross-attention; a latent UNet brings its own


@dataclass(frozen=True)
class PixelUNet:
    """A new UNet that paints small pictures directly."""

    kind: str = "pixel"
    size: int = 32  # pixels of both sides
    patch: int = 2  # pixels of both sides that are the channels of one place
    channels: tuple[int, ...] = (64, 128)
    attention: tuple[bool, ...] = (False, True)  # per resolution: attention to the condition
    layers_per_block: int = 1
    num_heads: int = 4
    num_groups: int = 16  # of group norm
    prediction: str = "v_prediction"
    # Beside its noisy picture the UNet sees a sketch: the training pictures' mean, weighted by how
    # near their captions are to the prompt
    sketch: bool = False


@dataclass(frozen=True)
class LatentUNet:
    """A pretrained UNet with its VAE and noise schedule, in a folder of diffusers or on the hub.

    Only its cross-attention is trained.
    """

    kind: str = "latent"
    source: str = ""
    revision: str = ""
    size: int = 512  # pixels of both sides


@dataclass(frozen=True)
class SamplingConfig:
    """How a painter paints unless it is told otherwise."""

    sampler: str = "dpm"  # dpm (DPM-Solver++ 2M), ddim or ddpm
    steps: int = 20
    guidance: float = 3.0  # 1: none


@dataclass(frozen=True)
class PaintConfig(StageConfig):
    """The bridge and the UNet learn the emoji data: pivot captions, drawings of training styles."""

    drop: float = 0.1  # share of examples without a condition, for guidance
    keyword_share: float = 0.2  # of captions that are a keyword instead of the name
    noise: float = 0.0  # standard deviation on the standardised states: neighbours paint alike
    forget: float = 0.2  # share of examples whose sketch lacks their concept: the UNet has to read
    max_pictures: int = 0  # of training and of validation, each; 0: all. For trials and tests


@dataclass(frozen=True, kw_only=True)
class StreamPaintConfig(StageConfig):
    """The same on streamed pictures and captions."""

    data: StreamConfig
    drop: float = 0.1
    held_out: int = 256  # samples that are never trained on but give the validation loss
    size: int = 0  # pixels of both sides in this stage; 0: those of the UNet


@dataclass(frozen=True)
class PaintRecipe:
    """Everything that decides a painter's weights."""

    name: str
    description: str  # cost and expected result
    seed: int
    languages: tuple[str, ...]  # whose means are fitted, if `condition.centre`
    language_model: LanguageModelConfig | PretrainedConfig | CheckpointLM
    unet: PixelUNet | LatentUNet
    condition: ConditionConfig = ConditionConfig()
    paint: PaintConfig | None = None
    stream_paint: StreamPaintConfig | None = None
    stream_refine: StreamPaintConfig | None = None  # after it, e.g. at a larger size
    sampling: SamplingConfig = SamplingConfig()
    engine: EngineConfig = EngineConfig()  # noqa: RUF009 - frozen, from another module
    pivot: str = "en"
    threads: int = 2  # of torch; part of the recipe, as sums depend on it in the last bit
    save_every_s: float = 30.0

    @property
    def sha256(self) -> str:
        """Hash of everything that decides the weights and the painting by default."""
        return recipe_sha256(self)

    @property
    def max_pictures(self) -> int | None:
        """The most pictures of training and of validation, each; None: all."""
        return (self.paint.max_pictures if self.paint else 0) or None

    @property
    def stages(self) -> dict[str, StageConfig]:
        """Return the stages that the recipe has, in order."""
        found = {"paint": self.paint or self.stream_paint, "refine": self.stream_refine}
        return {name: config for name, config in found.items() if config is not None}


def is_paint(content: Mapping[str, Any]) -> bool:
    """Return whether a recipe's content is that of a painter."""
    return "unet" in content


def build_recipe(content: Mapping[str, Any], where: str) -> PaintRecipe:
    """Return a painter's recipe; UserError for an unknown key, language or value."""
    recipe = build(PaintRecipe, content, where)
    for language in recipe.languages:
        if language not in EMOJI_LANGUAGES:
            raise unknown("language", language, EMOJI_LANGUAGES, f"{where}: languages")
    if recipe.pivot not in recipe.languages:
        raise UserError(f"{where}: pivot '{recipe.pivot}' is not among languages")
    _check_language_model(recipe, where)
    _check_stages(recipe, where)
    for key, number in _counts(recipe):
        if number < 1:
            raise UserError(f"{where}: {key}: must be at least 1, got {number}")
    for key, value, allowed in _choices(recipe):
        if value not in allowed:
            raise unknown(key.rpartition(".")[2], value, allowed, f"{where}: {key}")
    _check_condition(recipe.condition, where)
    if isinstance(recipe.unet, PixelUNet):
        _check_pixels(recipe.unet, where)
    return recipe


def _check_language_model(recipe: PaintRecipe, where: str) -> None:
    lm = recipe.language_model
    if isinstance(lm, LanguageModelConfig):
        raise UserError(
            f"{where}: language_model.kind: a painter's language model is frozen from the start; "
            "take 'pretrained', or 'checkpoint' for that of a chat checkpoint"
        )
    if isinstance(lm, PretrainedConfig) and lm.trainable:
        raise UserError(
            f"{where}: language_model: a painter's is frozen; leave lora_rank and full out"
        )


def _check_stages(recipe: PaintRecipe, where: str) -> None:
    if not recipe.stages:
        raise UserError(f"{where}: no stage; write at least one table, e.g. [paint]")
    if recipe.paint and recipe.stream_paint:
        raise UserError(f"{where}: paint and stream_paint are the same stage; keep one")
    for name, config in recipe.stages.items():
        for key in ("drop", "forget"):
            share = getattr(config, key, 0.0)
            if not 0 <= share < 1:
                raise UserError(
                    f"{where}: {name}.{key}: must be at least 0 and below 1, got {share}"
                )
        noise = getattr(config, "noise", 0.0)
        if not 0 <= noise < math.inf:
            raise UserError(f"{where}: {name}.noise: must be at least 0, got {noise}")
    if isinstance(recipe.unet, PixelUNet) and recipe.unet.sketch and not recipe.paint:
        raise UserError(f"{where}: unet.sketch: is made of the emoji data; add the table [paint]")


def _counts(recipe: PaintRecipe) -> Iterator[tuple[str, int]]:
    yield "threads", recipe.threads
    yield "engine.accumulation", recipe.engine.accumulation
    yield "sampling.steps", recipe.sampling.steps
    yield "condition.max_tokens", recipe.condition.max_tokens
    yield "unet.size", recipe.unet.size
    for name, config in recipe.stages.items():
        yield f"{name}.steps", config.steps
        yield f"{name}.batch_size", config.batch_size


def _choices(recipe: PaintRecipe) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    yield "condition.mix", recipe.condition.mix, MIXES
    yield "condition.positions", recipe.condition.positions, POSITIONS
    yield "sampling.sampler", recipe.sampling.sampler, SAMPLERS
    yield "engine.mixed_precision", recipe.engine.mixed_precision, ("no", "bf16", "fp16")
    yield "engine.tracker", recipe.engine.tracker, ("", "tensorboard", "trackio")
    if isinstance(recipe.unet, PixelUNet):
        yield "unet.prediction", recipe.unet.prediction, PREDICTIONS


def _check_condition(condition: ConditionConfig, where: str) -> None:
    if not condition.layers:
        raise UserError(f"{where}: condition.layers: is empty; name at least one, e.g. [-1]")
    if condition.positions == "question" and not condition.question:
        raise UserError(f"{where}: condition.positions: there is no question; write one, or 'all'")


def _check_pixels(unet: PixelUNet, where: str) -> None:
    if len(unet.channels) != len(unet.attention):
        raise UserError(f"{where}: unet: channels and attention have different lengths")
    shrinks = unet.patch * 2 ** (len(unet.channels) - 1)
    if unet.size % shrinks:
        raise UserError(f"{where}: unet.size: must be a multiple of {shrinks}, got {unet.size}")
    for channels in unet.channels:
        if channels % unet.num_groups or channels % unet.num_heads:
            raise UserError(
                f"{where}: unet.channels: must be multiples of num_groups ({unet.num_groups}) and "
                f"of num_heads ({unet.num_heads}), got {channels}"
            )
