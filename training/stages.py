"""The stages of MPM: align (text), pretrain (pivot captions), instruct (question answering)."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpm_eval.schema import StageRecord
from training.chat_model import ChatModel, collate
from training.corpus import EmojiCorpus, Picture
from training.recipe import AlignConfig, InstructConfig, PretrainConfig, Recipe
from training.tokenizer import ASSISTANT, Example

_BLOCK = 16  # steps whose texts are drawn at once and sorted by length: half of a batch was padding
_TEMPERATURE = 0.05  # of the contrastive term, on cosine similarities


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


class Stage(Protocol):
    """One stage: which parameters learn, from which examples, by which loss."""

    name: str
    muon: bool

    @property
    def config(self) -> AlignConfig | PretrainConfig | InstructConfig: ...

    def parameters(self) -> list[tuple[str, nn.Parameter]]: ...

    def examples(self, step: int) -> list[Example]:
        """Return the batch of one step: a function of seed, stage and step alone, so a resumed run
        sees the same data, and replaying all steps is the evidence for the training record."""
        ...

    def loss(self, examples: Sequence[Example]) -> Tensor: ...

    def validation_loss(self) -> float: ...


def generator(recipe: Recipe, stage: str, step: int) -> random.Random:
    """Return the source of every random choice of one step."""
    return random.Random(f"{recipe.seed}/{stage}/{step}")


class Align:
    """The language model learns names, keywords, questions and translation pairs from text only.

    The source's embeddings are disturbed by noise of random strength, so that the model later
    forgives visual tokens that are only near words (as in CapDec, arXiv 2211.00575).
    """

    name = "align"
    muon = True

    def __init__(self, context: Context):
        self.context, self.config = context, context.recipe.align
        self._latest: tuple[int, list[list[Example]]] = (-1, [])

    def parameters(self) -> list[tuple[str, nn.Parameter]]:
        return [(f"lm.{name}", p) for name, p in self.context.model.lm.named_parameters()]

    def examples(self, step: int) -> list[Example]:
        block, place = divmod(step, _BLOCK)
        return self._block(block)[place]

    def _block(self, block: int) -> list[list[Example]]:
        """Return the batches of _BLOCK steps, examples of like length together, in random order."""
        if self._latest[0] != block:
            size = self.config.batch_size
            rng = generator(self.context.recipe, self.name, block)
            drawn = [self.context.corpus.text_example(rng) for _ in range(_BLOCK * size)]
            drawn.sort(key=lambda e: len(self.context.model.tokenizer.example(e).ids))
            batches = [drawn[start : start + size] for start in range(0, len(drawn), size)]
            rng.shuffle(batches)
            self._latest = (block, batches)
        return self._latest[1]

    def loss(self, examples: Sequence[Example]) -> Tensor:
        return self._loss(examples, self.config.noise)

    @torch.no_grad()
    def validation_loss(self) -> float:
        rng = generator(self.context.recipe, "align-validation", 0)
        return float(self._loss([self.context.corpus.text_example(rng) for _ in range(512)], 0.0))

    def _loss(self, examples: Sequence[Example], noise: float) -> Tensor:
        model = self.context.model
        batch = collate([model.tokenizer.example(e) for e in examples])
        x_BTD = model.inputs(batch, None)
        if noise:
            size = x_BTD.detach().pow(2).mean().sqrt() * noise
            strength_B = torch.rand(len(examples), 1, 1) * size
            x_BTD = x_BTD + batch.source_BT[..., None] * torch.randn_like(x_BTD) * strength_B
        return model.answer_loss(batch, x_BTD)


class Pretrain:
    """Language model and eye frozen; the bridge learns pivot captions.

    Beside the caption loss, the hidden states that answer "What is this?" for a picture are pulled
    to those for its pivot name given as text, and away from those of other names. Both terms see
    the pivot language only.
    """

    name = "pretrain"
    muon = False

    def __init__(self, context: Context):
        self.context, self.config = context, context.recipe.pretrain

    def parameters(self) -> list[tuple[str, nn.Parameter]]:
        return [(f"resampler.{n}", p) for n, p in self.context.model.resampler.named_parameters()]

    def examples(self, step: int) -> list[Example]:
        rng, pictures = generator(self.context.recipe, self.name, step), self.context.pictures
        chosen = [rng.randrange(len(pictures)) for _ in range(self.config.batch_size)]
        return [self.context.corpus.caption_example(i, pictures[i], rng) for i in chosen]

    def loss(self, examples: Sequence[Example]) -> Tensor:
        model, config = self.context.model, self.config
        visual_BKD = model.visual_tokens(random_views(self.context, examples))
        batch = collate([model.tokenizer.example(e) for e in examples])
        x_BTD = model.inputs(batch, visual_BKD)
        states = model.lm.hidden(x_BTD[:, :-1])
        wanted = batch.answer_BT[:, 1:]
        loss = F.cross_entropy(model.lm.logits(states[-1][wanted]), batch.ids_BT[:, 1:][wanted])
        if not (config.matching or config.contrastive):
            return loss
        words_NLD, mean, scale, row = self._words
        answering = batch.ids_BT[:, :-1] == ASSISTANT
        h_BLD = (torch.stack([s[answering] for s in states[1:]], dim=1) - mean) * scale
        target_B = torch.tensor([row[self.context.pictures[e.image].concept.id] for e in examples])
        loss = loss + config.matching * F.mse_loss(h_BLD, words_NLD[target_B])
        near_BN = (
            F.normalize(h_BLD.flatten(1), dim=-1) @ F.normalize(words_NLD.flatten(1), dim=-1).T
        )
        return loss + config.contrastive * F.cross_entropy(near_BN / _TEMPERATURE, target_B)

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Return the loss of pivot names on drawings in the validation style."""
        context = self.context
        assert context.validation_NPC is not None
        pivot, corpus = context.recipe.pivot, context.corpus
        rows = [
            context.model.tokenizer.example(
                Example(corpus.prompts[pivot], corpus.data.name(picture.concept, pivot))
            )
            for picture in context.validation_pictures
        ]
        total, tokens = 0.0, 0
        for start in range(0, len(rows), 128):
            batch = collate(rows[start : start + 128])
            visual = context.model.visual_tokens(
                context.validation_NPC[start : start + 128].float()
            )
            num = int(batch.answer_BT.sum())
            total += (
                float(context.model.answer_loss(batch, context.model.inputs(batch, visual))) * num
            )
            tokens += num
        return total / tokens

    @cached_property
    def _words(self) -> tuple[Tensor, Tensor, Tensor, dict[str, int]]:
        """Standardised hidden states of every training concept's pivot name as text."""
        context, pivot = self.context, self.context.recipe.pivot
        model, concepts = context.model, context.corpus.trained_concepts
        rows = [
            model.tokenizer.prompt(
                context.corpus.prompts[pivot], context.corpus.data.name(c, pivot)
            )
            for c in concepts
        ]
        found: list[Tensor] = []
        with torch.no_grad():
            for start in range(0, len(rows), 128):
                batch = collate(rows[start : start + 128])
                states = model.lm.hidden(model.inputs(batch, None))[1:]
                found.append(torch.stack([s[batch.ids_BT == ASSISTANT] for s in states], dim=1))
        h_NLD = torch.cat(found)
        mean, scale = h_NLD.mean(0), 1 / (h_NLD.std(0) + 1e-3)
        return (h_NLD - mean) * scale, mean, scale, {c.id: i for i, c in enumerate(concepts)}


class Instruct:
    """Question answering about pictures: on the pivot, plus k translated pairs per language."""

    name = "instruct"
    muon = False

    def __init__(self, context: Context):
        self.context, self.config = context, context.recipe.instruct
        self._captions = Pretrain(context)

    def parameters(self) -> list[tuple[str, nn.Parameter]]:
        learned = self._captions.parameters()
        if self.config.train_language_model:
            learned += [(f"lm.{name}", p) for name, p in self.context.model.lm.named_parameters()]
        return learned

    @cached_property
    def _translated(self) -> list[Example]:
        recipe, pictures = self.context.recipe, self.context.pictures
        rng = generator(recipe, "translated-pairs", 0)
        return [
            self.context.corpus.question_example(index, pictures[index], language, rng)
            for language in recipe.languages
            if language != recipe.pivot
            for index in rng.sample(range(len(pictures)), self.config.translated_pairs)
        ]

    def examples(self, step: int) -> list[Example]:
        context, config = self.context, self.config
        rng = generator(context.recipe, self.name, step)
        examples: list[Example] = []
        for _ in range(config.batch_size):
            index, kind = rng.randrange(len(context.pictures)), rng.random()
            if self._translated and kind > 1 - config.translated_share:
                examples.append(rng.choice(self._translated))
            elif kind < config.caption_share:
                examples.append(context.corpus.caption_example(index, context.pictures[index], rng))
            else:
                picture, pivot = context.pictures[index], context.recipe.pivot
                examples.append(context.corpus.question_example(index, picture, pivot, rng))
        return examples

    def loss(self, examples: Sequence[Example]) -> Tensor:
        """Captions keep the whole loss of stage 2a: it ties the bridge to words in every language,
        which questions in the pivot alone would slowly undo."""
        prompt = self.context.corpus.prompts[self.context.recipe.pivot]
        captions = [e for e in examples if e.question == prompt]
        asked = [e for e in examples if e.question != prompt]
        total = torch.zeros(())
        if captions:
            total = total + self._captions.loss(captions) * (len(captions) / len(examples))
        if asked:
            model = self.context.model
            batch = collate([model.tokenizer.example(e) for e in asked])
            visual_BKD = model.visual_tokens(random_views(self.context, asked))
            answers = model.answer_loss(batch, model.inputs(batch, visual_BKD))
            total = total + answers * (len(asked) / len(examples))
        return total

    def validation_loss(self) -> float:
        return self._captions.validation_loss()


def random_views(context: Context, examples: Sequence[Example]) -> Tensor:
    """Return z_BPC: one random view of each example's picture."""
    assert context.features_ANPC is not None
    views = torch.randint(len(context.features_ANPC), (len(examples),))
    return context.features_ANPC[views, torch.tensor([e.image for e in examples])].float()


def make_record(
    stage: Stage, context: Context, curve: Sequence[float], validation: float
) -> StageRecord:
    """Return the evidence of one stage, counted by replaying its draws."""
    seen: dict[tuple[str, bool], set[tuple[str, str, str]]] = {}
    pictures: set[int] = set()
    for step in range(stage.config.steps):
        for e in stage.examples(step):
            source = context.pictures[e.image].key if e.image >= 0 else e.source
            seen.setdefault((e.language, e.image >= 0), set()).add((source, e.question, e.answer))
            if e.image >= 0:
                pictures.add(e.image)
    few = max(1, len(curve) // 20)
    return StageRecord(
        name=stage.name,
        data={"emoji": context.corpus.data.sha256},
        multimodal_samples=_counts(seen, multimodal=True),
        text_samples=_counts(seen, multimodal=False),
        steps=stage.config.steps,
        seed=context.recipe.seed,
        losses={
            "first": sum(curve[:few]) / few,
            "last": sum(curve[-few:]) / few,
            "validation": validation,
        },
        trained=tuple(sorted({name.partition(".")[0] for name, _ in stage.parameters()})),
        samples_seen=stage.config.steps * stage.config.batch_size,
        images=_by_vendor(context.pictures[i].vendor for i in pictures),
    )


def _counts(
    seen: dict[tuple[str, bool], set[tuple[str, str, str]]], multimodal: bool
) -> dict[str, int]:
    return {
        lang: len(found)
        for (lang, is_multi), found in sorted(seen.items())
        if is_multi is multimodal
    }


def _by_vendor(vendors: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for vendor in vendors:
        counts[vendor] = counts.get(vendor, 0) + 1
    return dict(sorted(counts.items()))
