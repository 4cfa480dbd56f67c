"""MPM chat: an eye, a bridge, a language model. Shapes: B batch, T tokens, K visual, D width."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.language_model import LanguageModel
from training.tokenizer import ChatTokenizer, Encoded

if TYPE_CHECKING:
    from PIL.Image import Image

_LOGIT_ROWS = 256  # rows of a softmax over the whole vocabulary at once


class Eye(Protocol):
    """What the chat model needs of a vision encoder."""

    dim: int  # feature channels

    def state_dict(self) -> Mapping[str, Tensor]: ...

    def __call__(self, x_BCHW: Tensor) -> Tensor:
        """Return features z_BPC of pictures in 0..1."""
        ...


class Bridge(Protocol):
    """What the chat model needs of the part between eye and language model."""

    @property
    def words(self) -> Tensor | None:
        """Return the words whose vectors it wants to be given; None: a fair sample of all."""
        ...

    def fit_features(self, z_NPC: Tensor) -> None:
        """Set fixed statistics from a sample of training features."""
        ...

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...

    def __call__(self, z_BPC: Tensor, words_VD: Tensor) -> Tensor:
        """Return visual tokens v_BKD at the scale of the words."""
        ...


@dataclass(frozen=True, slots=True)
class Batch:
    """Right-padded ids with the places of source and answers."""

    ids_BT: Tensor
    answer_BT: Tensor  # True at answer tokens, each turn's end included
    source_BT: Tensor  # True at the source slot
    last_B: Tensor  # the last position of each prompt: the state that begins the (last) answer


def collate(rows: Sequence[Encoded], pad: int, device: torch.device | str = "cpu") -> Batch:
    """Return one right-padded batch; under a causal mask padding cannot change an answer."""
    longest = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), longest), pad, dtype=torch.long)
    answer, source = (
        torch.zeros_like(ids, dtype=torch.bool),
        torch.zeros_like(ids, dtype=torch.bool),
    )
    for index, row in enumerate(rows):
        ids[index, : len(row.ids)] = torch.tensor(row.ids)
        source[index, row.source] = True
        for turn in row.answers:
            answer[index, turn] = True
    last = [(row.answers[-1].start if row.answers else len(row.ids)) - 1 for row in rows]
    return Batch(
        ids.to(device), answer.to(device), source.to(device), torch.tensor(last).to(device)
    )


class ChatModel(nn.Module):
    """Visual tokens overwrite the placeholder embeddings of the prompt; no cross-attention."""

    def __init__(
        self,
        lm: LanguageModel,
        vision: Eye,
        bridge: Bridge,
        tokenizer: ChatTokenizer,
        image_size: int,
    ):
        super().__init__()
        self.lm, self.vision, self.bridge = lm, vision, bridge
        self.tokenizer, self.image_size = tokenizer, image_size

    @property
    def device(self) -> torch.device:
        return self.lm.device

    @property
    def dtype(self) -> torch.dtype:
        """The precision in which the language model computes."""
        return self.lm.word_vectors.dtype

    def image_features(self, x_BCHW: Tensor) -> Tensor:
        """Return features z_BPC of pictures in 0..1, resized bilinearly with antialias."""
        return self.vision(self.resized(x_BCHW))

    def resized(self, x_BCHW: Tensor) -> Tensor:
        """Return pictures at the eye's size."""
        size = (self.image_size, self.image_size)
        return F.interpolate(
            x_BCHW, size=size, mode="bilinear", align_corners=False, antialias=True
        )

    @torch.inference_mode()
    def encode_pictures(self, pictures: Sequence["Image"]) -> Tensor:
        """Return v_BKD for RGB pictures of any sizes; each is encoded by itself, so a batch of N
        equals N batches of one."""
        tokens = []
        for picture in pictures:
            x_HWC = torch.from_numpy(np.array(picture.convert("RGB"))).to(self.device)
            features = self.image_features(x_HWC.permute(2, 0, 1)[None].float() / 255)
            tokens.append(self.visual_tokens(features))
        return torch.cat(tokens)

    @torch.inference_mode()
    def text_states(self, texts: Sequence[str]) -> Tensor:
        """Return h_LND in float32: per layer, the position-weighted mean over each text's tokens.

        Raises ValueError for a text without tokens.
        """
        pooled: list[Tensor] = []
        for start in range(0, len(texts), 128):
            rows = [self.tokenizer.prompt("", text) for text in texts[start : start + 128]]
            if any(row.source.start == row.source.stop for row in rows):
                raise ValueError("an empty text has no hidden state")
            pooled.append(self._source_states(self.collate(rows), None))
        return torch.cat(pooled, dim=1)

    @torch.inference_mode()
    def picture_states(self, visual_BKD: Tensor) -> Tensor:
        """Return h_LND in float32 as `text_states` does, with a picture in the place of the text:
        the same prompt, and the same mean over the visual tokens."""
        batch = self.collate([self.tokenizer.prompt("")] * len(visual_BKD))
        return self._source_states(batch, visual_BKD)

    def _source_states(self, batch: Batch, visual_BKD: Tensor | None) -> Tensor:
        """Return h_LBD: per layer, the position-weighted mean over the tokens of the source."""
        weight_BT1 = (batch.source_BT.cumsum(1) * batch.source_BT)[..., None].float()
        weight_BT1 = weight_BT1 / weight_BT1.sum(1, keepdim=True)
        states = self.lm.hidden(self.inputs(batch, visual_BKD))
        return torch.stack([(state.float() * weight_BT1).sum(1) for state in states])

    def visual_tokens(self, features_BPC: Tensor) -> Tensor:
        """Return v_BKD for image features."""
        words_V = self.bridge.words
        words_VD = self.lm.word_vectors if words_V is None else self.lm.embed(words_V)
        return self.bridge(features_BPC, words_VD)

    def collate(self, rows: Sequence[Encoded]) -> Batch:
        """Return one right-padded batch on the model's device."""
        return collate(rows, self.tokenizer.frame.pad, self.device)

    def inputs(self, batch: Batch, visual_BKD: Tensor | None) -> Tensor:
        """Return input embeddings x_BTD with the placeholders overwritten."""
        x_BTD = self.lm.embed(batch.ids_BT)
        if visual_BKD is None:
            return x_BTD
        return x_BTD.masked_scatter(batch.source_BT[..., None], visual_BKD.to(x_BTD.dtype))

    def answer_loss(
        self,
        batch: Batch,
        state_BTD: Tensor,
        num_tokens: int | None = None,
        words: "Words | None" = None,
    ) -> Tensor:
        """Return the cross-entropy (nats) of the answers, summed and divided by `num_tokens`; by
        their own number where that is None.

        `state_BTD` are last hidden states of all positions but the last. The softmax is computed
        at answer positions only (everything else has no label) and, given `words`, over those
        words only.
        """
        wanted = batch.answer_BT[:, 1:]
        labels = batch.ids_BT[:, 1:][wanted]
        states = state_BTD[wanted]
        if words is None:
            logits = self.lm.logits(states)
        else:
            logits, labels = self.lm.logits(states, words.ids_V), words.places(labels)
        total = F.cross_entropy(logits.float(), labels, reduction="sum")
        return total / (len(labels) if num_tokens is None else num_tokens)

    @torch.inference_mode()
    def option_scores(
        self, questions: Sequence[str], options: Sequence[Sequence[str]], visual_BKD: Tensor | None
    ) -> list[list[tuple[float, int]]]:
        """Return, per question, (summed log-probability in nats, tokens) of each option.

        The prompt is read once for all its options, and its last state gives their first tokens.
        """
        tokenizer = self.tokenizer
        prompts = [tokenizer.prompt(question) for question in questions]
        ends = [[[*tokenizer.encode(o), *tokenizer.frame.end] for o in row] for row in options]
        scores: list[list[tuple[float, int]]] = [[] for _ in questions]
        for members in _by_length(prompts):
            visual = None if visual_BKD is None else visual_BKD[torch.tensor(members)]
            x_BTD = self.inputs(self.collate([prompts[i] for i in members]), visual)
            rows = [ids for i in members for ids in ends[i]]
            owner_N = torch.tensor([o for o, i in enumerate(members) for _ in ends[i]])
            totals = self._continued(x_BTD, rows, owner_N.to(self.device))
            for owner, ids, total in zip(owner_N.tolist(), rows, totals, strict=True):
                scores[members[owner]].append((total, len(ids)))
        return scores

    def _continued(self, x_BTD: Tensor, rows: list[list[int]], owner_N: Tensor) -> list[float]:
        """Return the log-probability of each row of ids after the prompt that it belongs to."""
        longest = max(map(len, rows))
        ids_NT = torch.tensor([[*ids, *[0] * (longest - len(ids))] for ids in rows])
        ids_NT = ids_NT.to(self.device)
        real_NT = torch.tensor([[i < len(ids) for i in range(longest)] for ids in rows])
        real_NT = real_NT.to(self.device)
        last_BD, h_NTD = self.lm.continued(x_BTD, owner_N, self.lm.embed(ids_NT[:, :-1]))
        token_NT = torch.zeros(ids_NT.shape, dtype=torch.float64, device=self.device)
        first_BV = torch.log_softmax(self.lm.logits(last_BD).float(), dim=-1)
        token_NT[:, 0] = first_BV[owner_N, ids_NT[:, 0]].double()
        later_NT = real_NT[:, 1:]
        found = list(self._logprobs(h_NTD[later_NT], ids_NT[:, 1:][later_NT]))
        if found:
            token_NT[:, 1:][later_NT] = torch.cat(found).double()
        return [float(total) for total in token_NT.sum(1)]

    def _logprobs(self, states_ND: Tensor, labels_N: Tensor) -> Iterator[Tensor]:
        """Yield log-probabilities of labels, a chunk at a time: a quarter of a million words times
        a batch of options would not fit in memory."""
        parts = zip(states_ND.split(_LOGIT_ROWS), labels_N.split(_LOGIT_ROWS), strict=True)
        for states, labels in parts:
            logprobs = torch.log_softmax(self.lm.logits(states).float(), dim=-1)
            yield logprobs.gather(-1, labels[:, None]).squeeze(-1)

    @torch.inference_mode()
    def generate(
        self, questions: Sequence[str], visual_BKD: Tensor | None, max_new_tokens: int
    ) -> list[str]:
        """Return greedy answers, one per question; prompts of one length are decoded together.

        Grouping by length instead of padding makes a batch of N equal N batches of one.
        """
        prompts = [self.tokenizer.prompt(question) for question in questions]
        frame, answers = self.tokenizer.frame, [""] * len(prompts)
        for members in _by_length(prompts):
            visual = None if visual_BKD is None else visual_BKD[torch.tensor(members)]
            x_BTD = self.inputs(self.collate([prompts[i] for i in members]), visual)
            # Some models pad with what ends an answer.
            banned = {frame.pad, frame.placeholder} - {self.tokenizer.stop}
            rows = self.lm.greedy(x_BTD, max_new_tokens, self.tokenizer.stop, sorted(banned))
            for index, output in zip(members, rows, strict=True):
                answers[index] = self.tokenizer.decode(output)
        return answers


def _by_length(prompts: Sequence[Encoded]) -> Iterator[list[int]]:
    """Yield the places of prompts of one length, shortest first."""
    for length in sorted({len(prompt.ids) for prompt in prompts}):
        yield [i for i, prompt in enumerate(prompts) if len(prompt.ids) == length]


class Words:
    """Some words of a vocabulary: the only ones that a softmax of training runs over.

    What is left out: words outside lose no probability in training. Where the data never uses
    them, the gradient differs from that of the whole softmax only by the share of probability
    that the model gives them.
    """

    def __init__(self, ids: Sequence[int], vocab_size: int, device: torch.device | str = "cpu"):
        self.ids_V = torch.tensor(sorted(set(ids)), device=device)
        self._place = torch.full((vocab_size,), -1, device=device)
        self._place[self.ids_V] = torch.arange(len(self.ids_V), device=device)

    def places(self, ids_N: Tensor) -> Tensor:
        """Return the places of ids among the words; ValueError for one that is not among them."""
        places = self._place[ids_N]
        if bool((places < 0).any()):
            raise ValueError(f"a label is not among the {len(self.ids_V)} words of the softmax")
        return places
