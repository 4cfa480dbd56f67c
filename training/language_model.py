"""The tiny decoder language model. Shapes: B batch, T tokens, D width, H heads, V vocabulary."""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class LanguageModelConfig:
    """Size of the decoder; `vocab_size` is set by the tokenizer that was trained."""

    kind: str = "tiny_decoder"
    width: int = 192
    num_layers: int = 4
    num_heads: int = 4
    feed_forward: int = 768
    vocab_size: int = 8000


class LanguageModel(Protocol):
    """What the chat model needs of any causal language model, frozen or not."""

    width: int

    def embed(self, ids_BT: Tensor) -> Tensor:
        """Return input embeddings x_BTD at the scale the model expects."""
        ...

    def hidden(self, x_BTD: Tensor, mask_BT: Tensor | None = None) -> list[Tensor]:
        """Return L+1 hidden states, embeddings first, the last one normalised."""
        ...

    def logits(self, h_D: Tensor) -> Tensor:
        """Return logits over the vocabulary for hidden states of any leading shape."""
        ...


class Block(nn.Module):
    """Pre-norm attention with rotary positions, then a GELU feed-forward."""

    def __init__(self, config: LanguageModelConfig):
        super().__init__()
        d, ff = config.width, config.feed_forward
        self.num_heads = config.num_heads
        self.attention_norm = nn.RMSNorm(d)
        self.qkv = nn.Linear(d, 3 * d, bias=False)
        self.out = nn.Linear(d, d, bias=False)
        self.feed_forward_norm = nn.RMSNorm(d)
        self.up = nn.Linear(d, ff, bias=False)
        self.down = nn.Linear(ff, d, bias=False)

    def forward(self, x_BTD: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        b, t, d = x_BTD.shape
        qkv = self.qkv(self.attention_norm(x_BTD)).view(
            b, t, 3, self.num_heads, d // self.num_heads
        )
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(
            _rotate(q, rotary), _rotate(k, rotary), v, attn_mask=mask, is_causal=mask is None
        )
        x_BTD = x_BTD + self.out(y.transpose(1, 2).reshape(b, t, d))
        return x_BTD + self.down(F.gelu(self.up(self.feed_forward_norm(x_BTD))))


def _rotate(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = rotary
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


class TinyDecoder(nn.Module):
    """A decoder with tied embeddings; right-padded batches need no mask, left-padded ones do."""

    def __init__(self, config: LanguageModelConfig):
        super().__init__()
        self.config, self.width = config, config.width
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.final_norm = nn.RMSNorm(config.width)
        nn.init.normal_(self.embedding.weight, std=0.1)
        for name, weight in self.named_parameters():
            if weight.dim() == 2 and name != "embedding.weight":
                residual = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(
                    weight, std=0.04 / (math.sqrt(2 * config.num_layers) if residual else 1)
                )

    def embed(self, ids_BT: Tensor) -> Tensor:
        return self.embedding(ids_BT)

    def hidden(self, x_BTD: Tensor, mask_BT: Tensor | None = None) -> list[Tensor]:
        """`mask_BT` is True at real tokens; positions count from the first column either way."""
        t = x_BTD.shape[1]
        rotary = self._rotary(t, x_BTD)
        mask = None
        if mask_BT is not None:
            causal = torch.ones(t, t, dtype=torch.bool, device=x_BTD.device).tril()
            # The diagonal stays open: a padded query with no key at all would give NaN.
            eye = torch.eye(t, dtype=torch.bool, device=x_BTD.device)
            mask = (causal & mask_BT[:, None, None, :]) | eye
        states = [x_BTD]
        for block in self.blocks:
            x_BTD = block(x_BTD, rotary, mask)
            states.append(x_BTD)
        states[-1] = self.final_norm(x_BTD)
        return states

    def logits(self, h_D: Tensor) -> Tensor:
        return h_D @ self.embedding.weight.T

    def _rotary(self, num_positions: int, like: Tensor) -> tuple[Tensor, Tensor]:
        size = self.width // self.config.num_heads
        inverse = 10_000.0 ** (-torch.arange(0, size, 2, device=like.device) / size)
        angle = torch.arange(num_positions, device=like.device)[:, None] * inverse
        return angle.cos().to(like.dtype), angle.sin().to(like.dtype)
