"""What training a painter would come to: parameters, memory, steps and data, without training."""

from typing import Any, cast

import torch
from torch import nn

from mpm_eval.data._emoji_data import emoji_data
from training.backbones import language_model_config
from training.corpus import EmojiCorpus, training_pictures
from training.paint.checkpoint import assemble, parts_of
from training.paint.condition import Reader, Sketch
from training.paint.model import Guide, MPMPaint
from training.paint.reading import open_lm
from training.paint.recipe import CheckpointLM, PaintRecipe, StreamPaintConfig
from training.plan import Plan, PlannedStage, count_by_part, memory_of_learning
from training.pretrained_lm import PretrainedConfig, build_pretrained
from training.stages.paint import PaintContext, open_paint_stage, paint_parameters

_BYTES = {"no": 4, "bf16": 2, "fp16": 2}
_POSITIONS = 16  # of a condition; what they take is small beside the pictures


def plan_painter(recipe: PaintRecipe) -> Plan:
    """Return the plan of a painter's recipe; the UNet has shapes alone."""
    model = _shapes(recipe)
    corpus = EmojiCorpus(emoji_data(), cast(Any, recipe))
    pictures = training_pictures(corpus.data)[: recipe.max_pictures]
    context = PaintContext(recipe, model, corpus, pictures)
    parameters = {
        part: count
        for part, module in model.named_children()
        if (count := sum(p.numel() for p in module.parameters()))  # a sketch has none
    }
    stages = tuple(_stage(name, context, sum(parameters.values())) for name in recipe.stages)
    return Plan(recipe.name, parameters, stages)


def _shapes(recipe: PaintRecipe) -> MPMPaint:
    config: Any = recipe.language_model
    if isinstance(config, CheckpointLM):
        opened = open_lm(config)
        lm, config = opened.lm, opened.config
    else:
        assert isinstance(config, PretrainedConfig)
        with torch.device("meta"):
            lm = build_pretrained(language_model_config(config), config)
    parts = parts_of(recipe, config)
    with torch.device("meta"):
        return assemble(parts, Reader(lm, cast(Any, None), recipe.condition), weights=False)[0]


def _stage(name: str, context: PaintContext, total: int) -> PlannedStage:
    config, model = context.recipe.stages[name], context.model
    size = getattr(config, "size", 0) or model.size
    stage = None if isinstance(config, StreamPaintConfig) else open_paint_stage(name, context)
    seen = stage and stage.record([0.0], 0.0)
    trained = count_by_part(stage.parameters() if stage else paint_parameters(context))
    learned = sum(trained.values())
    copies = bool(config.validate_every) + bool(context.recipe.engine.ema)
    memory = memory_of_learning(model, learned, copies)
    return PlannedStage(
        name=name,
        steps=config.steps,
        batch_size=config.batch_size,
        trained=trained,
        frozen=total - learned,
        memory_bytes=memory + _activations(context, size, config.batch_size),
        multimodal_samples=None if seen is None else seen.multimodal_samples,
        text_samples={} if seen is None else seen.text_samples,
    )


@torch.no_grad()
def _activations(context: PaintContext, size: int, batch_size: int) -> int:
    """Return an estimate of the bytes that one micro-batch leaves for the backward pass: all
    outputs of the UNet's layers, or with recomputation those of its blocks."""
    model, engine = context.model, context.recipe.engine
    numbers = 0

    def count(module: nn.Module, arguments: Any, output: Any) -> None:
        nonlocal numbers
        numbers += output.numel() if isinstance(output, torch.Tensor) else 0

    blocks = ("ResnetBlock2D", "BasicTransformerBlock")
    hooks = [
        module.register_forward_hook(count)
        for module in model.unet.modules()
        if (
            type(module).__name__ in blocks
            if engine.gradient_checkpointing
            else not any(module.children())
        )
    ]
    with torch.device("meta"):
        z_BZHW = torch.zeros(1, *model.canvas.shape(size))
        c_BTC = torch.zeros(1, _POSITIONS, int(model.unet.config.cross_attention_dim))
        mask_BT = torch.ones(1, _POSITIONS, dtype=torch.bool)
        sketch_BCHW = torch.zeros(1, 3, Sketch.SIZE, Sketch.SIZE) if model.sketch else None
        guide = Guide(c_BTC, mask_BT, sketch_BCHW)
        model.predict(z_BZHW, torch.zeros(1, dtype=torch.long), guide)
    for hook in hooks:
        hook.remove()
    return numbers * _BYTES[engine.mixed_precision] * max(1, batch_size // engine.accumulation)
