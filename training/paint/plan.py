"""What training a painter would come to: parameters, memory, steps and data, without training."""

from typing import Any, cast

import torch
from torch import nn

from mpm_eval.data._emoji_data import emoji_data
from training.backbones import language_model_config
from training.corpus import EmojiCorpus, training_pictures
from training.paint.checkpoint import Parts, assemble
from training.paint.condition import Reader
from training.paint.model import Guide, MPMPaint
from training.paint.reading import open_lm
from training.paint.recipe import CheckpointLM, PaintRecipe, SketchConfig, StreamPaintConfig
from training.plan import Plan, PlannedStage, count_by_part, memory_of_learning
from training.pretrained_lm import PretrainedConfig, build_pretrained
from training.recipe import StageConfig
from training.stages.paint import PaintContext, open_paint_stage, paint_parameters

_BYTES = {"no": 4, "bf16": 2, "fp16": 2}
_POSITIONS = 16  # of a condition; what they take is small beside the pictures


def plan_painter(recipe: PaintRecipe) -> Plan:
    """Return the plan of a painter's recipe; the UNet has shapes alone."""
    model = _shapes(recipe)
    corpus = EmojiCorpus(emoji_data(), cast(Any, recipe))
    most = (recipe.paint.max_pictures if recipe.paint else 0) or None
    pictures = training_pictures(corpus.data)[:most]
    context = PaintContext(recipe, model, corpus, pictures)
    parameters = {
        part: sum(p.numel() for p in module.parameters()) for part, module in model.named_children()
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
    parts = Parts(config, recipe.condition, recipe.unet, recipe.sampling, recipe.languages)
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
        memory_bytes=memory + _activations(context, config, size),
        multimodal_samples=None if seen is None else seen.multimodal_samples,
        text_samples={} if seen is None else seen.text_samples,
    )


@torch.no_grad()
def _activations(context: PaintContext, config: StageConfig, size: int) -> int:
    """Return an estimate of the bytes that one micro-batch leaves for the backward pass: all
    outputs of the layers that learn, or with recomputation those of the UNet's blocks."""
    model, engine = context.model, context.recipe.engine
    sketches, numbers = isinstance(config, SketchConfig), 0

    def count(module: nn.Module, arguments: Any, output: Any) -> None:
        nonlocal numbers
        numbers += output.numel() if isinstance(output, torch.Tensor) else 0

    blocks = ("ResnetBlock2D", "BasicTransformerBlock")
    hooks = [
        module.register_forward_hook(count)
        for module in (model.sketch if sketches and model.sketch else model.unet).modules()
        if (
            type(module).__name__ in blocks
            if engine.gradient_checkpointing and not sketches
            else not any(module.children())
        )
    ]
    with torch.device("meta"):
        z_BZHW = torch.zeros(1, *model.canvas.shape(size))
        c_BTC = torch.zeros(1, _POSITIONS, int(model.unet.config.cross_attention_dim))
        mask_BT = torch.ones(1, _POSITIONS, dtype=torch.bool)
        h_BTLD = torch.zeros(1, _POSITIONS, *model.bridge.scale_LD.shape)
        sketch_BCHW = model.sketch(h_BTLD, mask_BT) if model.sketch else None
        if not sketches:
            guide = Guide(c_BTC, mask_BT, sketch_BCHW)
            model.predict(z_BZHW, torch.zeros(1, dtype=torch.long), guide)
    for hook in hooks:
        hook.remove()
    micro_batch = max(1, config.batch_size // engine.accumulation)
    return numbers * _BYTES[engine.mixed_precision] * micro_batch
