"""Stage instruct: question answering about pictures, on the pivot plus k translated pairs."""

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor, nn

from mpm_eval.errors import UserError
from training.recipe import InstructConfig, PretrainConfig
from training.stages.base import (
    Context,
    bridge_parameters,
    generator,
    lm_parameters,
    num_answer_tokens,
)
from training.stages.emoji import EmojiStage, caption, views
from training.stages.pretrain import Pretrain
from training.tokenizer import Example


class Instruct(EmojiStage):
    """The bridge, and if asked the language model, learn to answer; captions are repeated."""

    name = "instruct"
    muon = False

    def __init__(self, context: Context, config: InstructConfig):
        self.context, self.config = context, config
        captions = context.recipe.pretrain or PretrainConfig()
        if config.train_language_model:
            # Their targets are hidden states of the language model, which moves: a resumed run
            # would take later ones than an uninterrupted run does.
            captions = replace(captions, matching=0.0, contrastive=0.0)
        self._captions = Pretrain(context, captions)

    def parameters(self) -> list[tuple[str, nn.Parameter]]:
        learned = bridge_parameters(self.context.model)
        if self.config.train_language_model:
            learned += lm_parameters(self.context.model)
        return learned

    @cached_property
    def _translated(self) -> list[Example]:
        recipe, pictures = self.context.recipe, self.context.pictures
        if self.config.translated_pairs > len(pictures):
            raise UserError(
                f"instruct.translated_pairs: {self.config.translated_pairs} pairs per language, "
                f"but {len(pictures)} training pictures; lower it"
            )
        rng = generator(recipe, "translated-pairs", 0)
        return [
            self.context.corpus.question_example(index, pictures[index], language, rng)
            for language in recipe.languages
            if language != recipe.pivot
            for index in rng.sample(range(len(pictures)), self.config.translated_pairs)
        ]

    def examples(self, step: int) -> list[Example]:
        rng = generator(self.context.recipe, self.name, step)
        return [self._example(rng) for _ in range(self.config.batch_size)]

    def _example(self, rng: random.Random) -> Example:
        context, config = self.context, self.config
        index, kind = rng.randrange(len(context.pictures)), rng.random()
        if self._translated and kind > 1 - config.translated_share:
            example = rng.choice(self._translated)
        elif kind < config.caption_share:
            return caption(context, index, rng)
        else:
            picture, pivot = context.pictures[index], context.recipe.pivot
            example = context.corpus.question_example(index, picture, pivot, rng)
        return replace(example, view=rng.randrange(context.recipe.num_views))

    def loss(self, examples: Sequence[Example], whole: Sequence[Example]) -> Tensor:
        """Captions keep the whole loss of stage pretrain: it ties the bridge to words in every
        language, which questions in the pivot alone would slowly undo."""
        total = torch.zeros((), device=self.context.device)
        kinds = zip(
            self._divide(examples),
            self._divide(whole),
            (self._captions.loss, self._answers),
            strict=True,
        )
        for mine, all_of_it, loss in kinds:
            if all_of_it:
                # Who has none computes along: sharded weights are gathered by all at once.
                share = len(all_of_it) / len(whole) if mine else 0.0
                total = total + loss(mine or all_of_it[:1], all_of_it) * share
        return total

    def _answers(self, examples: Sequence[Example], whole: Sequence[Example]) -> Tensor:
        model = self.context.model
        batch = model.collate([model.tokenizer.example(e) for e in examples])
        visual_BKD = model.visual_tokens(views(self.context, examples))
        states = model.lm.hidden(model.inputs(batch, visual_BKD)[:, :-1])[-1]
        num_tokens = num_answer_tokens(model, whole)
        return model.answer_loss(batch, states, num_tokens, self.context.words)

    def _divide(self, examples: Sequence[Example]) -> tuple[list[Example], list[Example]]:
        """Return (captions, questions)."""
        prompts = set(self.context.corpus.prompts.values())
        captions = [e for e in examples if e.question in prompts]
        return captions, [e for e in examples if e.question not in prompts]

    def validation_loss(self) -> float:
        return self._captions.validation_loss()
