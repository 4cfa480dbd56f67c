"""Random changes of style and pose for pictures, as one batched tensor function."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def augment(x_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    """Return pictures in 0..1, each turned, scaled, shifted, mirrored and recoloured at random.

    Drawing styles differ in palette, outline and proportions far more than in layout, hence the
    strong colour changes: a random colour matrix, contrast, and now and then no colour at all.
    """
    b = len(x_BCHW)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(b, *shape, generator=generator)

    angle, scale = uniform(-0.3, 0.3) * (math.pi / 4), uniform(0.9, 1.3)
    mirror = torch.where(uniform(0, 1) < 0.25, -1.0, 1.0)
    cos, sin = angle.cos() * scale, angle.sin() * scale
    theta = torch.stack(
        [
            torch.stack([cos * mirror, -sin, uniform(-0.12, 0.12)], dim=-1),
            torch.stack([sin * mirror, cos * uniform(0.85, 1.15), uniform(-0.12, 0.12)], dim=-1),
        ],
        dim=1,
    )
    grid = F.affine_grid(theta, list(x_BCHW.shape), align_corners=False)
    # Sampling 1 - x pads with white, the background of every picture.
    x = 1 - F.grid_sample(1 - x_BCHW, grid, align_corners=False)
    mix = torch.eye(3) + uniform(-0.25, 0.25, 3, 3)
    mix = mix / mix.sum(-1, keepdim=True)  # rows sum to one: white stays white
    x = torch.einsum("bij,bjhw->bihw", mix, x)
    grey = x.mean(1, keepdim=True)
    colour = torch.where(uniform(0, 1) < 0.15, 0.0, uniform(0.5, 1.3))[:, None, None, None]
    x = grey + (x - grey) * colour
    contrast = uniform(0.7, 1.3)[:, None, None, None]
    return (1 - (1 - x) * contrast).clamp(0, 1)
