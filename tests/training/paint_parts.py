"""Painters small enough for tests: mpm-tiny reads, or a tiny language model and Stable Diffusion."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

SMALL_PAINT: tuple[str, ...] = (
    "unet.size=8",
    "unet.patch=1",
    "unet.channels=[8,16]",
    "unet.num_heads=2",
    "unet.num_groups=4",
    "condition.width=16",
    "paint.steps=4",
    "paint.batch_size=4",
    "paint.max_pictures=6",
    "sampling.steps=3",
    "engine.mixed_precision=no",
)


def train_painter(out: Path, extra: Sequence[str] = ()) -> Path:
    from training.interface import train

    return train("tiny_paint", out, [*SMALL_PAINT, *extra])


def write_diffusion(folder: Path) -> Path:
    """Write UNet, VAE and schedule of a tiny Stable Diffusion as a pipeline of diffusers does."""
    import torch
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel

    torch.manual_seed(0)
    UNet2DConditionModel(
        sample_size=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=12,
        attention_head_dim=2,
    ).save_pretrained(folder / "unet")
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(4, 8),
        norm_num_groups=4,
    ).save_pretrained(folder / "vae")
    DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
    ).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    return folder


def write_captions(folder: Path, count: int = 8) -> Path:
    """Write pictures with English captions as a stream reads them."""
    import numpy as np
    from PIL import Image

    lines, rng = [], np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        pixels = rng.integers(0, 256, (20, 16 + index, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
        caption = f"number {index}" + " or so" * (index % 3)  # of unequal lengths
        lines.append(json.dumps({"image": f"{index}.png", "caption": caption}))
    (folder / "data.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "data.jsonl"


def small_diffusion(root: Path, lm_folder: Callable[[str], Path]) -> tuple[str, ...]:
    """Return what makes `sd21_paint` small: tiny parts of the same classes, written to folders."""
    source = write_captions(root / "captions")
    return (
        "threads=1",
        f"language_model.source={lm_folder('qwen2')}",
        "language_model.dtype=float32",
        f"unet.source={write_diffusion(root / 'sd')}",
        "unet.size=8",
        *(
            f"{table}.{key}"
            for table in ("stream_paint", "stream_refine")
            for key in ("steps=2", "batch_size=4", "held_out=2", "validate_every=0",
                        "warmup_steps=1", "learning_rate=0.02", f"data.source={source}")
        ),
        "stream_paint.size=4",
        "engine.mixed_precision=no",
        "engine.accumulation=2",
        "engine.ema=0.5",
        "sampling.steps=2",
    )  # fmt: skip
