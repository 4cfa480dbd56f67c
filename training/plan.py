"""What training a recipe would come to: parameters, memory, steps and data, without training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from training.backbones import language_model_config
from training.language_model import LanguageModelConfig
from training.pretrained_lm import PretrainedConfig
from training.recipe import Recipe, StreamStageConfig
from training.stages import open_stage
from training.stages.base import Context
from training.stages.stream import stream_parameters

_TRAINED_BYTES = 16  # weight, gradient and two moments, in float32
_COPY_BYTES = 4  # of an average or of the best weights so far
_ANSWER_TOKENS = 32  # beside the visual tokens: what a prompt and its answer come to
# Bytes per position, width and layer that the backward pass needs (Korthikanti et al. 2022,
# arXiv 2205.05198, at 16 bits without the attention matrix); with recomputation, the inputs alone.
_ACTIVATION_BYTES, _RECOMPUTED_BYTES = 34, 2


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """One stage of the plan."""

    name: str
    steps: int
    batch_size: int
    trained: Mapping[str, int]  # part -> parameters
    frozen: int
    memory_bytes: int  # of weights, optimizer and activations on one device, estimated
    multimodal_samples: Mapping[str, int] | None  # language -> distinct samples; None: streamed
    text_samples: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Plan:
    """What training a recipe would come to."""

    recipe: str
    parameters: Mapping[str, int]  # part -> parameters
    stages: tuple[PlannedStage, ...]


def plan_of(context: Context) -> Plan:
    """Return the plan of a recipe; the model may have shapes alone, pictures are only listed."""
    model = context.model
    parameters = {
        part: sum(p.numel() for p in module.parameters()) for part, module in model.named_children()
    }
    stages = tuple(
        _stage(name, context, sum(parameters.values())) for name in context.recipe.stages
    )
    return Plan(context.recipe.name, parameters, stages)


def _stage(name: str, context: Context, total: int) -> PlannedStage:
    recipe, model = context.recipe, context.model
    config = recipe.stages[name]
    if isinstance(config, StreamStageConfig):
        learning, seen = stream_parameters(model, config), None
    else:
        stage = open_stage(name, context)
        learning, seen = stage.parameters(), stage.record([0.0], 0.0)
    # A memory is filled without a parameter that learns.
    trained = dict.fromkeys(seen.trained if seen else (), 0) | count_by_part(learning)
    learned = sum(trained.values())
    copies = bool(config.validate_every) + bool(recipe.engine.ema)
    memory = memory_of_learning(model, learned, copies)
    if name not in ("spell", "remember"):  # which do not run the language model
        memory += _activations(recipe, model.tokenizer.num_visual, config.batch_size)
    return PlannedStage(
        name=name,
        steps=config.steps,
        batch_size=config.batch_size,
        trained=trained,
        frozen=total - learned,
        memory_bytes=memory,
        multimodal_samples=None if seen is None else seen.multimodal_samples,
        text_samples={} if seen is None else seen.text_samples,
    )


def count_by_part(named: Sequence[tuple[str, nn.Parameter]]) -> dict[str, int]:
    """Return how many parameters each part of a model has among the named ones."""
    counts: dict[str, int] = {}
    for name, parameter in named:
        part = name.partition(".")[0]
        counts[part] = counts.get(part, 0) + parameter.numel()
    return counts


def memory_of_learning(model: nn.Module, learned: int, copies: int) -> int:
    """Return the bytes of a model's weights and of what learning takes beside activations."""
    stored = sum(p.numel() * p.element_size() for p in model.parameters())
    return stored + learned * (_TRAINED_BYTES + copies * _COPY_BYTES)


def _activations(recipe: Recipe, num_visual: int, batch_size: int) -> int:
    """Return an estimate of the bytes of one micro-batch on one device."""
    layers, width = _size(recipe.language_model)
    positions = (num_visual + _ANSWER_TOKENS) * max(1, batch_size // recipe.engine.accumulation)
    each = _RECOMPUTED_BYTES if recipe.engine.gradient_checkpointing else _ACTIVATION_BYTES
    return positions * layers * width * each


def _size(config: LanguageModelConfig | PretrainedConfig) -> tuple[int, int]:
    """Return (layers, width)."""
    if isinstance(config, LanguageModelConfig):
        return config.num_layers, config.width
    content = language_model_config(config)
    return int(content["num_hidden_layers"]), int(content["hidden_size"])
