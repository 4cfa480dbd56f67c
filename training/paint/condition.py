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
    """The mean of the training pictures, weighted by how near their captions are to a prompt.

    A Gaussian kernel over states that are pooled over positions (Nadaraya-Watson). Nothing of it
    is learned by steps: captions and pictures are remembered when training begins, as in diffusion
    with retrieval (Blattmann et al. 2022, arXiv 2204.11824). A new UNet needs many passes to find
    out what every condition looks like; this way it has to learn how to draw it.
    """

    SIZE = 32  # pixels of both sides of what is remembered, whatever the UNet's
    # Times the squared distance in standardised states. At a third of it Chinese and German names
    # call up blends, at three times of it no more names are told apart: training/LOG.md.
    _SHARPNESS = 0.2

    key_ND: Tensor
    picture_NCHW: Tensor

    def __init__(self, count: int, num_layers: int, lm_width: int):
        super().__init__()
        self.register_buffer("key_ND", torch.zeros(count, num_layers * lm_width))
        self.register_buffer("picture_NCHW", torch.zeros(count, 3, self.SIZE, self.SIZE))

    def fit(self, h_BTLD: Tensor, mask_BT: Tensor, x_BCHW: Tensor) -> None:
        """Remember standardised states of captions with their pictures in -1..1."""
        self.key_ND.copy_(_pooled(h_BTLD, mask_BT))
        self.picture_NCHW.copy_(x_BCHW)

    def forward(self, h_BTLD: Tensor, mask_BT: Tensor, forgotten_B: Tensor | None = None) -> Tensor:
        """Return x_BCHW; `forgotten_B` has the row that each prompt is not to see, or -1."""
        distance_BN = torch.cdist(_pooled(h_BTLD, mask_BT), self.key_ND).square()
        score_BN = -self._SHARPNESS / h_BTLD.shape[2] * distance_BN
        if forgotten_B is not None:
            row_N = torch.arange(len(self.key_ND), device=score_BN.device)
            score_BN = score_BN.masked_fill(row_N == forgotten_B[:, None], -torch.inf)
        return torch.einsum("bn,nchw->bchw", score_BN.softmax(-1), self.picture_NCHW)


def _pooled(h_BTLD: Tensor, mask_BT: Tensor) -> Tensor:
    """Return the mean over real positions, layers side by side."""
    weight_BT = mask_BT / mask_BT.sum(1, keepdim=True)
    # Not a matrix product, which mixed precision would round.
    return (h_BTLD * weight_BT[:, :, None, None]).sum(1).flatten(1)


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
