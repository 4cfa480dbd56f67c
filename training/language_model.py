"""The tiny decoder language model. Shapes: B batch, T tokens, D width, H heads, V vocabulary."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


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

    @property
    def device(self) -> torch.device: ...

    @property
    def word_vectors(self) -> Tensor:
        """Return input embeddings w_VD at the scale the model expects: all, or a fair sample."""
        ...

    def embed(self, ids_BT: Tensor) -> Tensor:
        """Return input embeddings x_BTD at the scale the model expects."""
        ...

    def hidden(self, x_BTD: Tensor, mask_BT: Tensor | None = None) -> list[Tensor]:
        """Return L+1 hidden states, embeddings first, the last one normalised."""
        ...

    def logits(self, h_D: Tensor, ids_V: Tensor | None = None) -> Tensor:
        """Return logits for hidden states of any leading shape: over the vocabulary, or over the
        words `ids_V` alone."""
        ...

    def greedy(
        self, x_BTD: Tensor, max_new_tokens: int, stop: int, banned: Sequence[int]
    ) -> list[list[int]]:
        """Return the likeliest continuation of each row, `stop` included where it was reached."""
        ...

    def continued(self, x_BTD: Tensor, owner_N: Tensor, y_NTD: Tensor) -> tuple[Tensor, Tensor]:
        """Return (last_BD, h_NTD): the last hidden state of each prompt x, and those of all
        positions of y, each row of which continues the prompt that `owner_N` names."""
        ...

    def learned(self) -> list[tuple[str, nn.Parameter]]:
        """Return the named parameters that a stage which trains the model trains."""
        ...

    def settle(self) -> None:
        """Make the model as fast as it can be while it is not trained."""
        ...

    def unsettle(self) -> None:
        """Undo `settle` exactly: the model is to be trained."""
        ...

    def checkpoint_gradients(self) -> None:
        """Recompute activations in the backward pass instead of keeping them."""
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


def next_token(
    logits_BV: Tensor, done_B: Tensor, stop: int, banned: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Return (token_B, done_B): the likeliest token that is not banned; `stop` for rows done."""
    logits_BV[:, list(banned)] = -torch.inf
    token_B = torch.where(done_B, stop, logits_BV.argmax(-1))
    return token_B, done_B | (token_B == stop)


def rows_of(columns: Sequence[Tensor]) -> list[list[int]]:
    """Return the tokens of each row from tokens_B per step."""
    return [list(map(int, row)) for row in torch.stack(list(columns), dim=1)] if columns else []


def _rotate(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = rotary
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


class TinyDecoder(nn.Module):
    """A decoder with tied embeddings; right-padded batches need no mask, left-padded ones do."""

    _no_split_modules = ("Block",)  # transformers' name for what is sharded one by one

    def __init__(self, config: LanguageModelConfig):
        super().__init__()
        self.config, self.width = config, config.width
        self._recompute = False
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

    @property
    def device(self) -> torch.device:
        return self.embedding.weight.device

    @property
    def word_vectors(self) -> Tensor:
        return self.embedding.weight

    def learned(self) -> list[tuple[str, nn.Parameter]]:
        return list(self.named_parameters())

    def settle(self) -> None:
        """There is nothing to settle."""

    def unsettle(self) -> None:
        """There is nothing to undo."""

    def checkpoint_gradients(self) -> None:
        self._recompute = True

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
            if self._recompute and self.training:
                x_BTD = checkpoint(block, x_BTD, rotary, mask, use_reentrant=False)
            else:
                x_BTD = block(x_BTD, rotary, mask)
            states.append(x_BTD)
        states[-1] = self.final_norm(x_BTD)
        return states

    def logits(self, h_D: Tensor, ids_V: Tensor | None = None) -> Tensor:
        words_VD = self.embedding.weight if ids_V is None else self.embedding.weight[ids_V]
        return h_D @ words_VD.T

    def continued(self, x_BTD: Tensor, owner_N: Tensor, y_NTD: Tensor) -> tuple[Tensor, Tensor]:
        h_NTD = self.hidden(torch.cat([x_BTD[owner_N], y_NTD], dim=1))[-1]
        length = x_BTD.shape[1]
        first_N = torch.searchsorted(owner_N, torch.arange(len(x_BTD), device=owner_N.device))
        return h_NTD[first_N, length - 1], h_NTD[:, length:]

    def greedy(
        self, x_BTD: Tensor, max_new_tokens: int, stop: int, banned: Sequence[int]
    ) -> list[list[int]]:
        done = torch.zeros(len(x_BTD), dtype=torch.bool, device=x_BTD.device)
        columns: list[Tensor] = []
        for _ in range(max_new_tokens):
            logits = self.logits(self.hidden(x_BTD)[-1][:, -1])
            token_B, done = next_token(logits, done, stop, banned)
            columns.append(token_B)
            if bool(done.all()):
                break
            x_BTD = torch.cat([x_BTD, self.embed(token_B[:, None])], dim=1)
        return rows_of(columns)

    def _rotary(self, num_positions: int, like: Tensor) -> tuple[Tensor, Tensor]:
        size = self.width // self.config.num_heads
        inverse = 10_000.0 ** (-torch.arange(0, size, 2, device=like.device) / size)
        angle = torch.arange(num_positions, device=like.device)[:, None] * inverse
        return angle.cos().to(like.dtype), angle.sin().to(like.dtype)
