"""What a UNet paints on: patches of pixels with a new UNet, or the latents of a pretrained one.

Shapes: B batch, Z channels of the canvas, H and W its sides; pictures x_BCHW are in -1..1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpm_eval.errors import UserError
from mpm_eval.strict import read_json
from training.paint.recipe import LatentUNet, PixelUNet
from training.paint.sampler import diffusers
from training.provenance import Provenance, locate, one_line, weights_sha256

# Of a scheduler's configuration, what belongs to the noise that a UNet was trained with.
_NOISE = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas",
          "prediction_type", "rescale_betas_zero_snr")  # fmt: skip
_PARTS = ("unet", "vae", "scheduler")


class Canvas(Protocol):
    """Between pictures and what the UNet sees."""

    clips: bool  # values stay in -1..1

    def encode(self, x_BCHW: Tensor, random: bool) -> Tensor:
        """Return z_BZHW: a sample of torch's generator, or where nothing is random the mean."""
        ...

    def decode(self, z_BZHW: Tensor) -> Tensor:
        """Return x_BCHW, not yet clipped."""
        ...

    def shape(self, size: int) -> tuple[int, int, int]:
        """Return (Z, H, W) of a picture of so many pixels on both sides."""
        ...


class Patches:
    """The pixels of a patch are the channels of one place: fewer places, all the detail."""

    clips = True

    def __init__(self, patch: int):
        self.patch = patch

    def encode(self, x_BCHW: Tensor, random: bool) -> Tensor:
        return F.pixel_unshuffle(x_BCHW, self.patch)

    def decode(self, z_BZHW: Tensor) -> Tensor:
        return F.pixel_shuffle(z_BZHW, self.patch)

    def shape(self, size: int) -> tuple[int, int, int]:
        return (3 * self.patch**2, size // self.patch, size // self.patch)


class Latents(nn.Module):
    """The latent space of a frozen AutoencoderKL."""

    clips = False

    def __init__(self, vae: Any):
        super().__init__()
        self.vae = vae
        self.factor = 2 ** (len(vae.config.block_out_channels) - 1)

    @torch.no_grad()
    def encode(self, x_BCHW: Tensor, random: bool) -> Tensor:
        found = self.vae.encode(x_BCHW).latent_dist
        return (found.sample() if random else found.mode()) * self.vae.config.scaling_factor

    @torch.no_grad()
    def decode(self, z_BZHW: Tensor) -> Tensor:
        return self.vae.decode(z_BZHW / self.vae.config.scaling_factor).sample

    def shape(self, size: int) -> tuple[int, int, int]:
        return (int(self.vae.config.latent_channels), size // self.factor, size // self.factor)


@dataclass(frozen=True)
class OpenedCanvas:
    """A UNet with its canvas, its noise schedule and where its weights came from."""

    unet: Any
    canvas: Any
    noise: Mapping[str, Any]  # configuration of a scheduler of diffusers
    backbones: Mapping[str, Provenance]


def open_canvas(config: PixelUNet | LatentUNet, width: int, weights: bool = True) -> OpenedCanvas:
    """Return a new UNet with conditions of `width`, or a pretrained one, which brings its own.

    Without `weights` a pretrained one has its shapes alone, for which configurations suffice.
    Raises UserError without diffusers, and for a folder that is missing or cannot be read.
    """
    if isinstance(config, LatentUNet):
        return _pretrained(config, weights)
    noise = {
        "num_train_timesteps": 1000,
        "beta_schedule": "squaredcos_cap_v2",
        "prediction_type": config.prediction,
    }
    canvas = Patches(config.patch)
    channels, side, _ = canvas.shape(config.size)
    down = [f"{'CrossAttn' if a else ''}DownBlock2D" for a in config.attention]
    up = [f"{'CrossAttn' if a else ''}UpBlock2D" for a in reversed(config.attention)]
    unet = diffusers().UNet2DConditionModel(
        sample_size=side,
        in_channels=channels * (2 if config.sketch else 1),
        out_channels=channels,
        down_block_types=tuple(down),
        up_block_types=tuple(up),
        block_out_channels=config.channels,
        layers_per_block=config.layers_per_block,
        cross_attention_dim=width,
        # diffusers calls the number of heads so, and keeps the name for compatibility
        attention_head_dim=config.num_heads,
        norm_num_groups=config.num_groups,
    )
    return OpenedCanvas(unet, canvas, noise, {})


def _pretrained(config: LatentUNet, weights: bool) -> OpenedCanvas:
    package = diffusers()
    folder, revision = locate(config.source, config.revision, weights, _PARTS)
    unet = _load(package.UNet2DConditionModel, folder / "unet", weights)
    vae = _load(package.AutoencoderKL, folder / "vae", weights)
    schedule = read_json(folder / "scheduler" / "scheduler_config.json")
    noise = {key: schedule[key] for key in _NOISE if schedule.get(key) is not None}
    backbones = {
        part: Provenance(config.source, revision, weights_sha256(folder / part))
        for part in ("unet", "vae")
        if weights
    }
    canvas = Latents(vae)
    shrinks = canvas.factor * 2 ** (len(unet.config.block_out_channels) - 1)
    if config.size % shrinks:
        raise UserError(f"unet.size: must be a multiple of {shrinks}, got {config.size}")
    return OpenedCanvas(unet, canvas, noise, backbones)


def _load(cls: Any, folder: Path, weights: bool) -> Any:
    if not weights:
        return cls.from_config(read_json(folder / "config.json"))
    weights_sha256(folder)  # pickles and truncated files are refused before they are read
    try:
        found = cls.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder}: not a {cls.__name__} ({one_line(error)})") from None
    return found.eval()
