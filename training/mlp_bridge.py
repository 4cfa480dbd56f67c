"""The plain bridge: one visual token per patch, through an MLP (LLaVA-1.5, arXiv 2310.03744).

Shapes: B batch, N pictures, P patches, C channels, K visual tokens, V words, D width.
"""

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpm_eval.errors import UserError

# E[gelu(x)²] for x of a standard normal distribution
_GELU_POWER = 0.425


@dataclass(frozen=True)
class MLPConfig:
    """Size of the plain bridge between eye and language model."""

    kind: str = "mlp"
    pool: int = 1  # side of the squares of patches that are averaged to one; 1: none
    num_layers: int = 2  # linear layers, GELU between them

    def check(self, num_patches: int) -> None:
        """Raise UserError for a size below 1 and for a grid that cannot be pooled."""
        for key, value in (("pool", self.pool), ("num_layers", self.num_layers)):
            if value < 1:
                raise UserError(f"{key}: must be at least 1, got {value}")
        side = math.isqrt(num_patches)
        if self.pool > 1 and side * side != num_patches:
            raise UserError(
                f"pool: {num_patches} patches are not a square grid (a class token is not part of "
                "one); leave the class token out, or set pool to 1"
            )
        if side % self.pool:
            fitting = ", ".join(str(n) for n in range(1, side + 1) if side % n == 0)
            raise UserError(
                f"pool: a grid of {side} x {side} patches cannot be divided into squares of "
                f"{self.pool}; give one of {fitting}"
            )

    def num_tokens(self, num_patches: int) -> int:
        """Return the visual tokens per picture; raises UserError as `check` does."""
        self.check(num_patches)
        return num_patches // self.pool**2


class MLPBridge(nn.Module):
    """Linear layers with GELU between them, over each patch or each average of a few."""

    feature_mean: Tensor
    feature_scale: Tensor
    words: Tensor | None = None

    def __init__(self, config: MLPConfig, vision_dim: int, lm_width: int):
        super().__init__()
        self.config = config
        # Fixed statistics of the training pictures' features: set once, then part of the weights.
        self.register_buffer("feature_mean", torch.zeros(vision_dim))
        self.register_buffer("feature_scale", torch.ones(vision_dim))
        widths = [vision_dim] + [lm_width] * config.num_layers
        layers = [nn.Linear(a, b) for a, b in itertools.pairwise(widths)]
        # Features of unit variance become tokens of unit variance: of the size of words.
        for index, layer in enumerate(layers):
            power = _GELU_POWER if index else 1.0
            nn.init.normal_(layer.weight, std=(power * layer.in_features) ** -0.5)
            nn.init.zeros_(layer.bias)
        self.layers = nn.ModuleList(layers)

    def fit_features(self, z_NPC: Tensor) -> None:
        """Set the fixed mean and scale from a sample of training features."""
        flat = self._pooled(z_NPC.float()).flatten(0, -2)
        self.feature_mean.copy_(flat.mean(0))
        self.feature_scale.copy_(1 / flat.std(0).clamp_min(1e-3))

    def forward(self, z_BPC: Tensor, words_VD: Tensor) -> Tensor:
        """Return visual tokens v_BKD for features z_BPC, in row order of the grid.

        Their scale is the root mean square of the LM's embedding table words_VD.
        """
        u = (self._pooled(z_BPC) - self.feature_mean) * self.feature_scale
        for index, layer in enumerate(self.layers):
            u = layer(F.gelu(u) if index else u)
        words_VD = words_VD.detach()
        return u * (torch.linalg.vector_norm(words_VD) / math.sqrt(words_VD.numel()))

    def _pooled(self, z_BPC: Tensor) -> Tensor:
        """Return the averages z_BKC of squares of patches."""
        pool = self.config.pool
        if pool == 1:
            return z_BPC
        side = math.isqrt(z_BPC.shape[1])
        grid_BCHW = z_BPC.transpose(1, 2).unflatten(2, (side, side))
        return F.avg_pool2d(grid_BCHW, pool).flatten(2).transpose(1, 2)
