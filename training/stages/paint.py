"""Stage paint: bridge and UNet learn to paint what a caption says in the pivot."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from mpm_eval.data._emoji_data import IMAGE_SIZE, EmojiData
from training.corpus import EmojiCorpus, Picture
from training.paint.checkpoint import is_cross_attention
from training.paint.condition import CaptionStates, Condition, Sketch, pad_states
from training.paint.model import MPMPaint
from training.paint.recipe import LatentUNet, PaintConfig, PaintRecipe, StreamPaintConfig
from training.stages.base import part_of
from training.stages.emoji import EmojiStage
from training.stages.stream import Seen, StreamStage
from training.streams import StreamSample
from training.tokenizer import Example

_VALIDATED = 256  # pictures of the validation style that the validation loss is taken over


@dataclass
class PaintContext:
    """What the stages of a painter share while a recipe runs."""

    recipe: PaintRecipe
    model: MPMPaint
    corpus: EmojiCorpus
    pictures: Sequence[Picture] = ()  # of the training split
    validation_pictures: Sequence[Picture] = ()
    captions: CaptionStates | None = None  # of all that `Paint` can draw
    process: tuple[int, int] = (0, 1)  # rank and number of processes

    @property
    def device(self) -> torch.device:
        return self.model.device


def open_paint_stage(name: str, context: PaintContext) -> Any:
    """Return a stage of the context's recipe."""
    config = context.recipe.stages[name]
    if isinstance(config, StreamPaintConfig):
        return StreamPaint(context, config, name)
    return Paint(context, cast(PaintConfig, config))


def paint_parameters(context: PaintContext) -> list[tuple[str, nn.Parameter]]:
    """Return what a painter learns: the bridge, and of a pretrained UNet its cross-attention."""
    model, latent = context.model, isinstance(context.recipe.unet, LatentUNet)
    fixed_mix = context.recipe.condition.mix != "learned"
    return [
        *(
            (f"bridge.{name}", parameter)
            for name, parameter in model.bridge.named_parameters()
            if not (fixed_mix and name == "mix_L")
        ),
        *(
            (f"unet.{name}", parameter)
            for name, parameter in model.unet.named_parameters()
            if not latent or is_cross_attention(name)
        ),
    ]


def fit_bridge(context: PaintContext, pivot: Sequence[Tensor]) -> None:
    """Set the bridge's statistics from states of pivot captions and, if languages are centred, of
    the names of training concepts in each language: text, and no pictures."""
    corpus, recipe = context.corpus, context.recipe
    texts = centring_texts(corpus, recipe)
    by_language = {tag: context.model.reader.states(names) for tag, names in texts.items()}
    context.model.bridge.fit(pivot, by_language)


def centring_texts(corpus: EmojiCorpus, recipe: PaintRecipe) -> dict[str, list[str]]:
    """Return the distinct names of each language that its mean is taken over; none if none are."""
    if not recipe.condition.centre:
        return {}
    return {
        language: sorted(
            {name for c in corpus.trained_concepts if (name := corpus.data.name(c, language))}
        )
        for language in recipe.languages
    }


def caption_texts(data: EmojiData, pictures: Sequence[Picture], pivot: str) -> Iterator[str]:
    """Yield every caption that pictures can have: the name, or a keyword."""
    for picture in pictures:
        yield data.name(picture.concept, pivot)
        yield from data.keywords(picture.concept, pivot)


class Paint(EmojiStage):
    """Drawings of the training styles, captioned in the pivot by their name or a keyword."""

    name = "paint"
    muon = False

    def __init__(self, context: PaintContext, config: PaintConfig):
        self.context = cast(Any, context)  # of what the other stages share, it uses the corpus
        self.config = config
        self._painter = context

    def parameters(self) -> list[tuple[str, nn.Parameter]]:
        return paint_parameters(self._painter)

    def prepare(self) -> None:
        """Fit the bridge's fixed statistics to the states of all captions, and the sketch to the
        mean picture of every name."""
        context = self._painter
        assert context.captions is not None
        texts = caption_texts(context.corpus.data, context.pictures, context.recipe.pivot)
        fit_bridge(context, context.captions.of(sorted(set(texts))))
        if context.model.sketch is not None:
            self._fit(context.model.sketch, context.captions)

    def _fit(self, sketch: Sketch, captions: CaptionStates) -> None:
        context = self._painter
        data, pivot, bridge = context.corpus.data, context.recipe.pivot, context.model.bridge
        names = [data.name(context.pictures[i].concept, pivot) for i in self._first.values()]
        condition = pad_states(captions.of(names), bridge.rows([pivot] * len(names)))
        condition = condition.to(context.device)
        x_NCHW = _scaled(load_pixels(data, context.pictures, Sketch.SIZE), context.device)
        row_N = torch.tensor(self._rows)
        mean_BCHW = torch.stack([x_NCHW[row_N == row].mean(0) for row in range(len(names))])
        sketch.fit(bridge.standardised(condition), condition.mask_BT, mean_BCHW)

    def examples(self, step: int) -> list[Example]:
        rng = random.Random(f"{self._painter.recipe.seed}/{self.name}/{step}")
        return [self._example(rng) for _ in range(self.config.batch_size)]

    def _example(self, rng: random.Random) -> Example:
        context = self._painter
        index, pivot = rng.randrange(len(context.pictures)), context.recipe.pivot
        concept, data = context.pictures[index].concept, context.corpus.data
        keywords = data.keywords(concept, pivot)
        if keywords and rng.random() < self.config.keyword_share:
            return Example("", rng.choice(keywords), image=index, language=pivot)
        return Example("", data.name(concept, pivot), image=index, language=pivot)

    def loss(self, examples: Sequence[Example], whole: Sequence[Example]) -> Tensor:
        context = self._painter
        assert context.captions is not None
        x_BCHW = self._pixels[[e.image for e in examples]]
        states = context.captions.of([e.answer for e in examples])
        rows_B = context.model.bridge.rows([e.language for e in examples])
        concept_B = torch.tensor([self._rows[e.image] for e in examples])
        losses_B = noisy_losses(
            context.model, x_BCHW, pad_states(states, rows_B), self.config, concept_B
        )
        return part_of(losses_B.mean(), examples, whole)

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Return the loss of pivot names on drawings in the validation style, at times and noise
        that are always the same."""
        context = self._painter
        data, pivot = context.corpus.data, context.recipe.pivot
        pictures = context.validation_pictures[:_VALIDATED]
        x_NCHW = load_pixels(data, pictures, context.model.size)
        names = [data.name(picture.concept, pivot) for picture in pictures]
        states = context.model.reader.states(names)
        return fixed_loss(context.model, x_NCHW, states, [pivot] * len(names))

    @cached_property
    def _first(self) -> dict[str, int]:
        """The first picture of every concept, in the order of the sketch's rows."""
        found: dict[str, int] = {}
        for index, picture in enumerate(self._painter.pictures):
            found.setdefault(picture.concept.id, index)
        return found

    @cached_property
    def _rows(self) -> list[int]:
        """The sketch's row of every picture."""
        row = {concept: row for row, concept in enumerate(self._first)}
        return [row[picture.concept.id] for picture in self._painter.pictures]

    @cached_property
    def _pixels(self) -> Tensor:
        context = self._painter
        return load_pixels(context.corpus.data, context.pictures, context.model.size)


class StreamPaint(StreamStage):
    """Streamed pictures and their captions, in whatever language the stream has."""

    def __init__(self, context: PaintContext, config: StreamPaintConfig, name: str):
        self._painter, self._size = context, config.size or context.model.size
        super().__init__(cast(Any, context), cast(Any, config), name)
        self._config = config

    def parameters(self) -> list[tuple[str, nn.Parameter]]:
        return paint_parameters(self._painter)

    def prepare(self) -> None:
        """Fit the bridge's fixed statistics to the held-out captions in the pivot."""
        pivot = self._painter.recipe.pivot
        captions = [s.turns[0][1] for s in self._held_out if s.language == pivot]
        fit_bridge(self._painter, self._painter.model.reader.states(captions))

    def loss(self, examples: Sequence[Seen], whole: Sequence[Seen]) -> Tensor:
        x_BCHW, condition = self._batch(examples)
        losses_B = noisy_losses(self._painter.model, x_BCHW, condition, self._config)
        return losses_B.sum() / (len(whole) * self._world)

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Return the loss of the held-out samples, at times and noise that are always the same."""
        seen = [self._seen(sample) for sample in self._held_out]
        states = self._painter.model.reader.states([s.example.answer for s in seen])
        x_NCHW = torch.stack([s.x_CHW for s in seen])
        return fixed_loss(self._painter.model, x_NCHW, states, [s.example.language for s in seen])

    def _batch(self, examples: Sequence[Seen]) -> tuple[Tensor, Condition]:
        model = self._painter.model
        states = model.reader.states([seen.example.answer for seen in examples])
        rows_B = model.bridge.rows([seen.example.language for seen in examples])
        return torch.stack([seen.x_CHW for seen in examples]), pad_states(states, rows_B)

    def _seen(self, sample: StreamSample) -> Seen:
        from PIL import Image, ImageOps

        side = (self._size, self._size)
        picture = ImageOps.fit(sample.image, side, Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
        return Seen(Example("", sample.turns[0][1], language=sample.language), pixels)


def _scaled(x_BCHW: Tensor, device: torch.device) -> Tensor:
    """Return bytes as values in -1..1."""
    return x_BCHW.to(device).float() / 127.5 - 1


def noisy_losses(
    model: MPMPaint,
    x_BCHW: Tensor,
    condition: Condition,
    config: PaintConfig | StreamPaintConfig,
    row_B: Tensor | None = None,
) -> Tensor:
    """Return the loss of each picture (bytes) at a random time; `row_B` are rows of the sketch.

    The times of a batch are spread evenly (Kingma et al. 2021, arXiv 2107.00630): less noise in
    its loss. All randomness is torch's, which the loop seeds for every step.
    """
    count, device = len(x_BCHW), model.device
    even_B = (torch.rand((), device=device) + torch.arange(count, device=device) / count) % 1
    time_B = (even_B * model.num_times).long()
    dropped_B = torch.rand(count, device=device) < config.drop
    shape = model.canvas.shape(x_BCHW.shape[-1])
    noise_BZHW = torch.randn((count, *shape), device=device)
    forgotten_B, noise = None, 0.0
    if isinstance(config, PaintConfig) and row_B is not None:
        kept_B = torch.rand(count, device=device) >= config.forget
        forgotten_B, noise = row_B.to(device).masked_fill(kept_B, -1), config.noise
    guide = model.guide(condition.to(device), dropped_B, forgotten_B, noise)
    return model.losses(_scaled(x_BCHW, device), guide, time_B, noise_BZHW)


def fixed_loss(
    model: MPMPaint, x_NCHW: Tensor, states: Sequence[Tensor], languages: Sequence[str]
) -> float:
    """Return the mean loss of pictures, each at one time, always with the same noise."""
    generator = torch.Generator().manual_seed(0)
    time_N = (torch.rand(len(x_NCHW), generator=generator) * model.num_times).long()
    rows_N, total = model.bridge.rows(languages), 0.0
    for start in range(0, len(x_NCHW), 64):
        part = slice(start, start + 64)
        x_BCHW = _scaled(x_NCHW[part], model.device)
        shape = (len(x_BCHW), *model.canvas.shape(x_BCHW.shape[-1]))
        noise = torch.randn(shape, generator=generator).to(model.device)
        guide = model.guide(pad_states(states[part], rows_N[part]).to(model.device))
        time_B = time_N[part].to(model.device)
        total += float(model.losses(x_BCHW, guide, time_B, noise).sum())
    return total / len(x_NCHW)


def load_pixels(data: EmojiData, pictures: Sequence[Picture], size: int) -> Tensor:
    """Return x_NCHW in bytes; a smaller picture's pixels are means of those that they cover."""
    from PIL import Image

    smaller = size <= IMAGE_SIZE
    how = Image.Resampling.BOX if smaller else Image.Resampling.BICUBIC
    loaded = [np.asarray(data.load_image(p.key).resize((size, size), how)) for p in pictures]
    return torch.from_numpy(np.stack(loaded)).permute(0, 3, 1, 2)
