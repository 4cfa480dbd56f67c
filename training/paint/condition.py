"""What a painter's UNet attends to: hidden states of a frozen language model, and their bridge.

Shapes: B prompts, T positions, L layers, D width of the language model, C of the condition,
G languages and the mean over all of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from mpm_eval.errors import UserError
from mpm_eval.strict import canonical_sha256
from training.checkpoint import read_tensors, write_tensors
from training.language_model import LanguageModel
from training.paint.recipe import ConditionConfig
from training.tokenizer import ChatTokenizer, Encoded

_BATCH = 64


@dataclass(frozen=True, slots=True)
class Condition:
    """Hidden states of a batch of prompts, padded on the right."""

    h_BTLD: Tensor
    mask_BT: Tensor  # True at real positions
    language_B: Tensor  # rows of the bridge's means

    def to(self, device: torch.device | str) -> "Condition":
        """Return the same on a device."""
        return Condition(
            self.h_BTLD.to(device), self.mask_BT.to(device), self.language_B.to(device)
        )


def pad_states(states: Sequence[Tensor], language_B: Tensor) -> Condition:
    """Return h_TLD of several prompts as one batch."""
    lengths_B = torch.tensor([len(h_TLD) for h_TLD in states])
    h_BTLD = nn.utils.rnn.pad_sequence(list(states), batch_first=True)
    mask_BT = torch.arange(h_BTLD.shape[1]) < lengths_B[:, None]
    return Condition(h_BTLD, mask_BT.to(h_BTLD.device), language_B)


class Reader:
    """A frozen language model reads prompts; gradients never reach it."""

    def __init__(self, lm: LanguageModel, tokenizer: ChatTokenizer, config: ConditionConfig):
        self.lm, self.tokenizer, self.config = lm, tokenizer, config

    def states(self, prompts: Sequence[str]) -> list[Tensor]:
        """Return h_TLD in float32 of each prompt: the layers that the config names, at positions
        from the prompt on. What stands before it is the same for all, and left out.

        Prompts of one length are read together, so there is no padding. Raises ValueError for a
        blank prompt and UserError for a layer that the model does not have.
        """
        rows = [self._encode(prompt) for prompt in prompts]
        found: dict[int, Tensor] = {}
        by_length = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
        for start in range(0, len(rows), _BATCH):
            batch = by_length[start : start + _BATCH]
            for length in sorted({len(rows[i].ids) for i in batch}):
                members = [i for i in batch if len(rows[i].ids) == length]
                h_BTLD = self._read([rows[i] for i in members])
                for index, h_TLD in zip(members, h_BTLD, strict=True):
                    source = rows[index].source
                    whole = self.config.positions == "all"
                    found[index] = h_TLD[source.start if whole else source.stop :].clone()
        return [found[index] for index in range(len(rows))]

    def _encode(self, prompt: str) -> Encoded:
        if not prompt.strip():
            raise ValueError("an empty prompt does not say what to paint")
        question, longest = self.config.question, self.config.max_tokens
        return self.tokenizer.prompt(question, prompt, max_source=longest)

    @torch.no_grad()
    def _read(self, rows: Sequence[Encoded]) -> Tensor:
        ids_BT = torch.tensor([row.ids for row in rows], device=self.lm.device)
        hidden = self.lm.hidden(self.lm.embed(ids_BT))
        for layer in self.config.layers:
            if not -len(hidden) <= layer < len(hidden):
                raise UserError(
                    f"condition.layers: there is no layer {layer}; this language model has "
                    f"0 (embeddings) to {len(hidden) - 1}"
                )
        return torch.stack([hidden[layer].float() for layer in self.config.layers], dim=2)


class Bridge(nn.Module):
    """Standardised states, mixed over layers, linear, LayerNorm (MPM section on painting).

    Means and scales are fixed statistics of text: every channel of every layer has unit variance
    over pivot captions, so no layer and no outlier channel drowns the others. With a mean of its
    own, each language is centred.
    """

    mean_GLD: Tensor
    scale_LD: Tensor

    def __init__(
        self, config: ConditionConfig, lm_width: int, width: int, languages: Sequence[str]
    ):
        super().__init__()
        self.languages = tuple(languages) if config.centre else ()
        num_layers = len(config.layers)
        self.linear = nn.Linear(lm_width, width, bias=False)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        # Learned rather than the states of "": the same in all languages, and under no centring.
        self.null_C = nn.Parameter(torch.randn(width))
        self.mix_L = nn.Parameter(torch.zeros(num_layers), requires_grad=config.mix == "learned")
        self.register_buffer("mean_GLD", torch.zeros(len(self.languages) + 1, num_layers, lm_width))
        self.register_buffer("scale_LD", torch.ones(num_layers, lm_width))

    def fit(self, pivot: Sequence[Tensor], by_language: Mapping[str, Sequence[Tensor]]) -> None:
        """Set the fixed statistics from h_TLD of pivot captions, and of names in each language.

        The last mean serves languages without one: that of the pivot captions, or with centring
        the mean over all languages.
        """
        flat_NLD = torch.cat(list(pivot))
        means = [torch.cat(list(by_language[tag])).mean(0) for tag in self.languages]
        last = torch.stack(means).mean(0) if means else flat_NLD.mean(0)
        self.mean_GLD.copy_(torch.stack([*means, last]))
        self.scale_LD.copy_(1 / (flat_NLD.std(0) + 1e-3))

    def rows(self, languages: Sequence[str]) -> Tensor:
        """Return the row of each language's mean; a variant without one has that of its base."""
        known = {tag: row for row, tag in enumerate(self.languages)}
        last = len(self.languages)
        found = [known.get(tag, known.get(tag.partition("-")[0], last)) for tag in languages]
        return torch.tensor(found)

    def standardised(self, condition: Condition) -> Tensor:
        """Return h_BTLD around the mean of its language, in units of the pivot's deviation."""
        mean_BLD = self.mean_GLD[condition.language_B]
        return (condition.h_BTLD - mean_BLD[:, None]) * self.scale_LD

    def forward(self, h_BTLD: Tensor, dropped_B: Tensor | None = None) -> Tensor:
        """Return c_BTC of standardised states; a dropped prompt is the learned null at all its
        positions, and attention to equal things does not depend on their number."""
        weight_L = torch.softmax(self.mix_L, dim=0)
        c_BTC = self.norm(self.linear(torch.einsum("btld,l->btd", h_BTLD, weight_L)))
        if dropped_B is not None:
            c_BTC = torch.where(dropped_B[:, None, None], self.null_C.to(c_BTC.dtype), c_BTC)
        return c_BTC


class Sketch(nn.Module):
    """From standardised states straight to a small picture: the mean of what they may mean.

    A new UNet finds out late what its condition is good for; this network does in a minute, and
    leaves the UNet to sharpen what it paints.
    """

    SIZE = 32  # pixels of both sides, whatever the UNet's
    _QUERIES = 4

    def __init__(self, lm_width: int, width: int):
        super().__init__()
        self.query_QD = nn.Parameter(torch.randn(self._QUERIES, lm_width) / lm_width**0.5)
        self.layers = nn.Sequential(
            nn.Linear(self._QUERIES * lm_width, width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, 3 * self.SIZE**2),
        )

    def forward(self, h_BTLD: Tensor, mask_BT: Tensor) -> Tensor:
        """Return x_BCHW, around -1..1; every query pools all layers at all real positions."""
        h_BND = h_BTLD.flatten(1, 2)
        mask_BN = mask_BT.repeat_interleave(h_BTLD.shape[2], dim=1)
        score_BQN = torch.einsum("qd,bnd->bqn", self.query_QD, h_BND)
        weight_BQN = score_BQN.masked_fill(~mask_BN[:, None], -torch.inf).softmax(-1)
        pooled_BQD = weight_BQN @ h_BND
        return self.layers(pooled_BQD.flatten(1)).unflatten(1, (3, self.SIZE, self.SIZE))


class CaptionStates:
    """Hidden states of the distinct captions of a data set: computed once, kept with a hash."""

    def __init__(self, h_NLD: Tensor, starts: Mapping[str, tuple[int, int]]):
        self._h_NLD, self._starts = h_NLD, starts

    def of(self, captions: Sequence[str]) -> list[Tensor]:
        """Return h_TLD of each caption."""
        return [self._h_NLD[slice(*self._starts[caption])] for caption in captions]


def caption_states(
    reader: Reader, captions: Sequence[str], lm_sha256: str, cache: Path
) -> CaptionStates:
    """Return the states of captions; the cache is used again only for the same captions, language
    model and condition."""
    wanted = sorted(set(captions))
    identity = canonical_sha256([wanted, lm_sha256, reader.config])
    if cache.is_file():
        tensors, content = read_tensors(cache)
        if content.get("identity") == identity:
            return CaptionStates(tensors["states"], _starts(wanted, tensors["lengths"]))
    found = [h_TLD.cpu() for h_TLD in reader.states(wanted)]
    h_NLD, lengths = torch.cat(found), torch.tensor([len(h_TLD) for h_TLD in found])
    write_tensors(cache, {"states": h_NLD, "lengths": lengths}, {"identity": identity})
    return CaptionStates(h_NLD, _starts(wanted, lengths))


def _starts(captions: Sequence[str], lengths: Tensor) -> dict[str, tuple[int, int]]:
    ends = lengths.cumsum(0).tolist()
    return {
        caption: (end - int(length), end)
        for caption, end, length in zip(captions, ends, lengths, strict=True)
    }
