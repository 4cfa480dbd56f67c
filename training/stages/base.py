"""What the stages share: the context of a run, the seam to the loop, random choices, losses."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mpm_eval.schema import StageRecord
from training.chat_model import ChatModel, Words
from training.corpus import EmojiCorpus, Picture
from training.recipe import Recipe, StageConfig
from training.tokenizer import Example


@dataclass
class Context:
    """What all stages share while a recipe runs."""

    recipe: Recipe
    model: ChatModel
    corpus: EmojiCorpus
    pictures: Sequence[Picture] = ()  # of the training split
    features_ANPC: Tensor | None = None  # their views
    validation_pictures: Sequence[Picture] = ()
    validation_NPC: Tensor | None = None
    process: tuple[int, int] = (0, 1)  # rank and number of processes

    @property
    def device(self) -> torch.device:
        return self.model.device

    @cached_property
    def words(self) -> Words | None:
        """The words of the softmax in training; None: all of the vocabulary."""
        if not self.recipe.engine.data_vocabulary:
            return None
        tokenizer = self.model.tokenizer
        ids = {id for text in set(self.corpus.texts()) for id in tokenizer.encode(text)}
        vocab_size = tokenizer.vocab_size
        return Words([*ids, *tokenizer.frame.end], vocab_size, self.device)


class Stage(Protocol):
    """One stage: which parameters learn, from which examples, by which loss."""

    name: str
    muon: bool
    draws_own: bool  # each process draws its own part of a batch, instead of the whole

    @property
    def config(self) -> StageConfig: ...

    def parameters(self) -> list[tuple[str, nn.Parameter]]:
        """Return what learns, by its name in the chat model."""
        ...

    def prepare(self) -> None:
        """Do what comes once, before the first step of the first stage with pictures."""
        ...

    def examples(self, step: int) -> list[Any]:
        """Return the batch of one step. For the emoji data it is a function of seed, stage and
        step alone, so a resumed run sees the same data, and replaying all steps is the evidence
        for the training record; a streamed stage keeps its place in `state`."""
        ...

    def loss(self, examples: Sequence[Any], whole: Sequence[Any]) -> Tensor:
        """Return what a part of a batch adds to the loss of the whole batch.

        The losses of the parts add up to the loss of the whole, however it is divided between
        processes and micro-batches.
        """
        ...

    def validation_loss(self) -> float: ...

    def state(self) -> dict[str, Any]:
        """Return what `resume` needs beside the number of steps: small, as JSON."""
        ...

    def resume(self, state: Mapping[str, Any]) -> None: ...

    def record(self, curve: Sequence[float], validation: float) -> StageRecord:
        """Return the evidence of what the stage saw, from the losses of all its steps."""
        ...


def generator(recipe: Recipe, stage: str, step: int) -> random.Random:
    """Return the source of every random choice of one step."""
    return random.Random(f"{recipe.seed}/{stage}/{step}")


def bridge_parameters(model: ChatModel) -> list[tuple[str, nn.Parameter]]:
    """Return the bridge's parameters by their names in the chat model."""
    return [(f"bridge.{name}", p) for name, p in model.bridge.named_parameters()]


def lm_parameters(model: ChatModel) -> list[tuple[str, nn.Parameter]]:
    """Return what of the language model may learn, by name in the chat model."""
    return [(f"lm.{name}", p) for name, p in model.lm.learned()]


def vision_parameters(model: ChatModel) -> list[tuple[str, nn.Parameter]]:
    """Return what of the eye learns: the blocks that its config unfroze."""
    unfrozen: Mapping[str, nn.Parameter] = getattr(model.vision, "unfrozen", {})
    return [(f"vision.{name}", p) for name, p in unfrozen.items()]


def name_tokens(context: Context) -> tuple[Tensor, dict[str, int]]:
    """Return (the pivot names of the training concepts as words_NK, row of each concept by id).

    Names longer than the visual tokens are cut, shorter ones end in the frame's first word after
    the source.
    """
    tokenizer, pivot = context.model.tokenizer, context.recipe.pivot
    count, fill = tokenizer.num_visual, tokenizer.frame.middle[0]
    rows: list[list[int]] = []
    places: dict[str, int] = {}
    for concept in context.corpus.trained_concepts:
        name = context.corpus.data.name(concept, pivot)
        places[concept.id] = len(rows)
        rows.append([*tokenizer.encode(name)[:count], *[fill] * count][:count])
    return torch.tensor(rows, device=context.device), places


def num_answer_tokens(model: ChatModel, examples: Sequence[Example]) -> int:
    """Return the number of answer tokens, over all turns."""
    turns = (turn for e in examples for turn in model.tokenizer.example(e).answers)
    return sum(turn.stop - turn.start for turn in turns)


def part_of(loss: Tensor, part: Sequence[object], whole: Sequence[object]) -> Tensor:
    """Return a mean over examples as a part of the mean over the whole batch."""
    return loss * (len(part) / len(whole))


def parts_of(named: Sequence[tuple[str, nn.Parameter]]) -> tuple[str, ...]:
    """Return the parts of the model that parameters belong to, e.g. ("bridge", "lm")."""
    return tuple(sorted({name.partition(".")[0] for name, _ in named}))


def losses(curve: Sequence[float], validation: float) -> dict[str, float]:
    """Return the mean loss of the first and the last twentieth of the steps, and of validation."""
    few = max(1, len(curve) // 20)
    return {
        "first": sum(curve[:few]) / few,
        "last": sum(curve[-few:]) / few,
        "validation": validation,
    }
