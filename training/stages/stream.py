"""Stages on streamed pictures and texts: pretrain on captions, instruct on conversations."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mpm_eval.schema import StageRecord
from training.chat_model import ChatModel
from training.recipe import StreamStageConfig
from training.stages.base import (
    Context,
    bridge_parameters,
    lm_parameters,
    losses,
    num_answer_tokens,
    parts_of,
    vision_parameters,
)
from training.streams import Stream, StreamSample
from training.tokenizer import Example

_HELD_OUT_SEED = 0  # the held-out samples are the same for every seed of a recipe
_FITTED = 64  # pictures from which the bridge's fixed statistics are taken


@dataclass(frozen=True, slots=True)
class Seen:
    """One streamed sample as the model takes it."""

    example: Example
    x_CHW: Tensor  # uint8


class StreamStage:
    """Bridge, and if asked eye and language model, learn from a stream.

    Every process reads its own part of the stream and takes the mean over its own answer tokens,
    so only with equally long answers is the loss that of one process with the whole batch.
    """

    muon = False
    draws_own = True

    def __init__(self, context: Context, config: StreamStageConfig, name: str):
        self.context, self.config, self.name = context, config, name
        self._rank, self._world = context.process
        self._counts: Counter[str] = Counter()
        self._held_out = self._take_held_out()
        self._keys = {sample.key for sample in self._held_out}
        self._stream = Stream(config.data, context.recipe.seed, self._rank, self._world)

    def parameters(self) -> list[tuple[str, nn.Parameter]]:
        return stream_parameters(self.context.model, self.config)

    def prepare(self) -> None:
        """Fit the bridge's fixed statistics to the first held-out pictures."""
        with torch.no_grad():
            samples = self._held_out[:_FITTED]
            features = _features(self.context.model, [self._seen(s) for s in samples])
        self.context.model.bridge.fit_features(features)

    def examples(self, step: int) -> list[Seen]:
        """Return this process's next samples; `step` is where the stream stands anyway."""
        batch: list[Seen] = []
        while len(batch) < max(1, self.config.batch_size // self._world):
            sample = next(self._stream)
            if sample.key not in self._keys:
                batch.append(self._seen(sample))
        self._counts.update(seen.example.language for seen in batch)
        return batch

    def loss(self, examples: Sequence[Seen], whole: Sequence[Seen]) -> Tensor:
        num_tokens = num_answer_tokens(self.context.model, [seen.example for seen in whole])
        return self._loss(examples, num_tokens * self._world)

    def _loss(self, examples: Sequence[Seen], num_tokens: int) -> Tensor:
        model = self.context.model
        visual_BKD = model.visual_tokens(_features(model, examples))
        batch = model.collate([model.tokenizer.example(seen.example) for seen in examples])
        states = model.lm.hidden(model.inputs(batch, visual_BKD)[:, :-1])[-1]
        return model.answer_loss(batch, states, num_tokens)

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Return the loss of the samples that were held out of the stream."""
        seen = [self._seen(sample) for sample in self._held_out]
        num_tokens = num_answer_tokens(self.context.model, [s.example for s in seen])
        size = self.config.batch_size
        parts = [seen[start : start + size] for start in range(0, len(seen), size)]
        return sum(float(self._loss(part, num_tokens)) for part in parts)

    def state(self) -> dict[str, Any]:
        return {"stream": self._stream.state(), "counts": dict(self._counts)}

    def resume(self, state: Mapping[str, Any]) -> None:
        self._counts = Counter(state["counts"])
        self._stream = Stream.resume(
            self.config.data, self.context.recipe.seed, state["stream"], self._rank, self._world
        )

    def record(self, curve: Sequence[float], validation: float) -> StageRecord:
        """Return the evidence: samples by language, repetition included, over all processes."""
        counts = {lang: n * self._world for lang, n in sorted(self._counts.items())}
        return StageRecord(
            name=self.name,
            data={self.config.data.source: self._stream.identity()},
            multimodal_samples=counts,
            text_samples={},
            steps=self.config.steps,
            seed=self.context.recipe.seed,
            losses=losses(curve, validation),
            trained=parts_of(self.parameters()),
            samples_seen=sum(counts.values()),
            images={self.config.data.source: sum(counts.values())},
            num_skipped=self._stream.num_bad,
        )

    def _take_held_out(self) -> list[StreamSample]:
        stream = Stream(self.config.data, _HELD_OUT_SEED)
        return [next(stream) for _ in range(self.config.held_out)]

    def _seen(self, sample: StreamSample) -> Seen:
        turns = [(question or self.config.prompt, answer) for question, answer in sample.turns]
        *history, (question, answer) = turns
        example = Example(question, answer, language=sample.language, history=tuple(history))
        pixels = torch.from_numpy(np.array(sample.image)).permute(2, 0, 1)
        return Seen(example, pixels)


def stream_parameters(
    model: ChatModel, config: StreamStageConfig
) -> list[tuple[str, nn.Parameter]]:
    """Return what a streamed stage trains, by name in the chat model."""
    learned = [*bridge_parameters(model), *vision_parameters(model)]
    return [*learned, *lm_parameters(model)] if config.train_language_model else learned


def _features(model: ChatModel, examples: Sequence[Seen]) -> Tensor:
    """Return z_BPC of pictures of any sizes; without a graph unless the eye learns."""
    resized = [model.resized(seen.x_CHW[None].to(model.device).float() / 255) for seen in examples]
    learns = bool(vision_parameters(model))
    with torch.set_grad_enabled(learns and torch.is_grad_enabled()):
        return model.vision(torch.cat(resized)).float()
