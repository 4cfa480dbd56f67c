"""MPM chat: an eye, a bridge, a language model. Shapes: B batch, T tokens, K visual, D width."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.language_model import TinyDecoder
from training.resampler import Resampler
from training.tokenizer import EOS, IMAGE, PAD, ChatTokenizer, Encoded
from training.vision import EfficientNetLite0

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class Batch:
    """Right-padded ids with the places of source and answer."""

    ids_BT: Tensor
    answer_BT: Tensor  # True at answer tokens
    source_BT: Tensor  # True at the source slot


def collate(rows: Sequence[Encoded], device: torch.device | str = "cpu") -> Batch:
    """Return one right-padded batch; under a causal mask padding cannot change an answer."""
    longest = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), longest), PAD, dtype=torch.long)
    answer, source = (
        torch.zeros_like(ids, dtype=torch.bool),
        torch.zeros_like(ids, dtype=torch.bool),
    )
    for index, row in enumerate(rows):
        end = len(row.ids)
        ids[index, :end] = torch.tensor(row.ids)
        answer[index, end - row.num_answer : end] = True
        source[index, 2 : 2 + row.num_source] = True
    return Batch(ids.to(device), answer.to(device), source.to(device))


class ChatModel(nn.Module):
    """Visual tokens overwrite the placeholder embeddings of the prompt; no cross-attention."""

    def __init__(
        self,
        lm: TinyDecoder,
        vision: EfficientNetLite0,
        resampler: Resampler,
        tokenizer: ChatTokenizer,
        image_size: int,
    ):
        super().__init__()
        self.lm, self.vision, self.resampler = lm, vision, resampler
        self.tokenizer, self.image_size = tokenizer, image_size

    @property
    def device(self) -> torch.device:
        return self.lm.embedding.weight.device

    def image_features(self, x_BCHW: Tensor) -> Tensor:
        """Return features z_BPC of pictures in 0..1, resized bilinearly with antialias."""
        size = (self.image_size, self.image_size)
        x = F.interpolate(x_BCHW, size=size, mode="bilinear", align_corners=False, antialias=True)
        return self.vision(x)

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
            if any(row.num_source == 0 for row in rows):
                raise ValueError("an empty text has no hidden state")
            pooled.append(self._source_states(collate(rows, self.device), None))
        return torch.cat(pooled, dim=1).float()

    @torch.inference_mode()
    def picture_states(self, visual_BKD: Tensor) -> Tensor:
        """Return h_LND in float32 as `text_states` does, with a picture in the place of the text:
        the same prompt, and the same mean over the visual tokens."""
        batch = collate([self.tokenizer.prompt("")] * len(visual_BKD), self.device)
        return self._source_states(batch, visual_BKD).float()

    def _source_states(self, batch: Batch, visual_BKD: Tensor | None) -> Tensor:
        """Return h_LBD: per layer, the position-weighted mean over the tokens of the source."""
        weight_BT1 = (batch.source_BT.cumsum(1) * batch.source_BT)[..., None].float()
        weight_BT1 = weight_BT1 / weight_BT1.sum(1, keepdim=True)
        states = self.lm.hidden(self.inputs(batch, visual_BKD))
        return torch.stack([(state * weight_BT1).sum(1) for state in states])

    def visual_tokens(self, features_BPC: Tensor) -> Tensor:
        """Return v_BKD for image features."""
        return self.resampler(features_BPC, self.lm.embedding.weight)

    def inputs(self, batch: Batch, visual_BKD: Tensor | None) -> Tensor:
        """Return input embeddings x_BTD with the placeholders overwritten."""
        x_BTD = self.lm.embed(batch.ids_BT)
        if visual_BKD is None:
            return x_BTD
        places = batch.ids_BT == IMAGE
        return x_BTD.masked_scatter(places[..., None], visual_BKD.to(x_BTD.dtype))

    def answer_loss(self, batch: Batch, x_BTD: Tensor) -> Tensor:
        """Return the mean cross-entropy (nats per token) of the answers alone.

        The softmax is computed at answer positions only; everything else has no label.
        """
        hidden = self.lm.hidden(x_BTD[:, :-1])[-1]
        wanted = batch.answer_BT[:, 1:]
        return F.cross_entropy(self.lm.logits(hidden[wanted]), batch.ids_BT[:, 1:][wanted])

    @torch.inference_mode()
    def option_scores(
        self, questions: Sequence[str], options: Sequence[Sequence[str]], visual_BKD: Tensor | None
    ) -> list[list[tuple[float, int]]]:
        """Return, per question, (summed log-probability in nats, tokens) of each option."""
        rows, owners = [], []
        for index, (question, choices) in enumerate(zip(questions, options, strict=True)):
            prompt = self.tokenizer.prompt(question)
            for choice in choices:
                answer = [*self.tokenizer.encode(choice), EOS]
                rows.append(Encoded(prompt.ids + answer, prompt.num_source, len(answer)))
                owners.append(index)
        batch = collate(rows, self.device)
        visual = None if visual_BKD is None else visual_BKD[torch.tensor(owners)]
        hidden = self.lm.hidden(self.inputs(batch, visual)[:, :-1])[-1]
        wanted = batch.answer_BT[:, 1:]
        logprobs = torch.log_softmax(self.lm.logits(hidden[wanted]).float(), dim=-1)
        token = logprobs.gather(-1, batch.ids_BT[:, 1:][wanted][:, None]).squeeze(-1)
        scores: list[list[tuple[float, int]]] = [[] for _ in questions]
        start = 0
        for owner, row in zip(owners, rows, strict=True):
            stop = start + row.num_answer
            scores[owner].append((float(token[start:stop].double().sum()), row.num_answer))
            start = stop
        return scores

    @torch.inference_mode()
    def generate(
        self, questions: Sequence[str], visual_BKD: Tensor | None, max_new_tokens: int
    ) -> list[str]:
        """Return greedy answers, one per question; prompts of one length are decoded together.

        Grouping by length instead of padding makes a batch of N equal N batches of one.
        """
        prompts = [self.tokenizer.prompt(question).ids for question in questions]
        answers = [""] * len(prompts)
        for length in sorted({len(ids) for ids in prompts}):
            members = [i for i, ids in enumerate(prompts) if len(ids) == length]
            ids_BT = torch.tensor([prompts[i] for i in members], device=self.device)
            visual = None if visual_BKD is None else visual_BKD[torch.tensor(members)]
            empty = torch.zeros_like(ids_BT, dtype=torch.bool)
            x_BTD = self.inputs(Batch(ids_BT, empty, empty), visual)
            for index, output in zip(members, self._greedy(x_BTD, max_new_tokens), strict=True):
                answers[index] = self.tokenizer.decode(output)
        return answers

    def _greedy(self, x_BTD: Tensor, max_new_tokens: int) -> list[list[int]]:
        done = torch.zeros(len(x_BTD), dtype=torch.bool, device=x_BTD.device)
        columns: list[Tensor] = []
        for _ in range(max_new_tokens):
            logits = self.lm.logits(self.lm.hidden(x_BTD)[-1][:, -1])
            logits[:, [PAD, IMAGE]] = -torch.inf
            token_B = torch.where(done, EOS, logits.argmax(-1))
            columns.append(token_B)
            done |= token_B == EOS
            if bool(done.all()):
                break
            x_BTD = torch.cat([x_BTD, self.lm.embed(token_B[:, None])], dim=1)
        return [list(map(int, row)) for row in torch.stack(columns, dim=1)] if columns else []
