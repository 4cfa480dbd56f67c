"""The bridge: image features to visual tokens. Shapes: B batch, P patches, K visual tokens."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class ResamplerConfig:
    """Size of the bridge between eye and language model."""

    kind: str = "resampler"
    num_tokens: int = 4  # visual tokens per picture
    width: int = 256
    num_heads: int = 4
    num_layers: int = 1
    num_patches: int = 16  # set by the eye
    output: str = "words"  # "words": mixtures of the LM's own input embeddings; "free": any vector
    dropout: float = 0.1


class Layer(nn.Module):
    """Queries read the patches, then each other through one feed-forward."""

    def __init__(self, width: int, num_heads: int, dropout: float):
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.query_norm, self.patch_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, q_BKW: Tensor, z_BPW: Tensor) -> Tensor:
        b, k, w = q_BKW.shape
        heads = self.num_heads

        def split(x: Tensor) -> Tensor:
            return x.view(b, -1, heads, w // heads).transpose(1, 2)

        # Queries also see themselves, so that they can divide the picture between them.
        memory = torch.cat([self.patch_norm(z_BPW), self.query_norm(q_BKW)], dim=1)
        key, value = self.key_value(memory).chunk(2, dim=-1)
        y = F.scaled_dot_product_attention(
            split(self.query(self.query_norm(q_BKW))), split(key), split(value)
        )
        q_BKW = q_BKW + self._drop(self.out(y.transpose(1, 2).reshape(b, k, w)))
        return q_BKW + self._drop(self.down(F.gelu(self.up(self.feed_forward_norm(q_BKW)))))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


class Resampler(nn.Module):
    """Learned queries over image features (Perceiver resampler, arXiv 2204.14198).

    With output "words" a visual token is a convex mixture of the language model's own word
    vectors, so it cannot leave the region where a frozen model knows what to do with it in every
    language; with "free" it is an arbitrary vector of the same width.
    """

    feature_mean: Tensor
    feature_scale: Tensor
    words: Tensor | None = None

    def __init__(self, config: ResamplerConfig, vision_dim: int, lm_width: int):
        super().__init__()
        self.config = config
        w = config.width
        # Fixed statistics of the training pictures' features: set once, then part of the weights.
        self.register_buffer("feature_mean", torch.zeros(vision_dim))
        self.register_buffer("feature_scale", torch.ones(vision_dim))
        self.input = nn.Linear(vision_dim, w)
        self.position = nn.Parameter(torch.randn(config.num_patches, w) * 0.02)
        self.queries = nn.Parameter(torch.randn(config.num_tokens, w))
        self.layers = nn.ModuleList(
            Layer(w, config.num_heads, config.dropout) for _ in range(config.num_layers)
        )
        self.norm = nn.LayerNorm(w)
        self.output = nn.Linear(w, lm_width)

    def fit_features(self, z_NPC: Tensor) -> None:
        """Set the fixed mean and scale from a sample of training features."""
        flat = z_NPC.float().flatten(0, -2)
        self.feature_mean.copy_(flat.mean(0))
        self.feature_scale.copy_(1 / flat.std(0).clamp_min(1e-3))

    def forward(self, z_BPC: Tensor, words_VD: Tensor) -> Tensor:
        """Return visual tokens v_BKD for features z_BPC and the LM's embedding table words_VD."""
        z = (z_BPC - self.feature_mean) * self.feature_scale
        z_BPW = self.input(F.dropout(z, self.config.dropout, self.training)) + self.position
        q_BKW = self.queries.expand(len(z_BPC), -1, -1)
        for layer in self.layers:
            q_BKW = layer(q_BKW, z_BPW)
        u_BKD = self.output(self.norm(q_BKW))
        if self.config.output == "free":
            return u_BKD * words_VD.detach().pow(2).mean().sqrt()
        unit_VD = F.normalize(words_VD, dim=-1)
        weights_BKV = torch.softmax(u_BKD @ unit_VD.T * math.sqrt(u_BKD.shape[-1]), dim=-1)
        return weights_BKV @ words_VD
