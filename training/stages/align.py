"""Stage align: the language model learns names, keywords, questions and translations from text."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from training.recipe import AlignConfig
from training.stages.base import Context, generator, lm_parameters, num_answer_tokens
from training.stages.emoji import EmojiStage
from training.tokenizer import Example

_BLOCK = 16  # steps whose texts are drawn at once and sorted by length: half of a batch was padding


class Align(EmojiStage):
    """Text only: a new language model is trained whole, a pretrained one through its adapters.

    The source's embeddings are disturbed by noise of random strength, so that the model later
    forgives visual tokens that are only near words (as in CapDec, arXiv 2211.00575).
    """

    name = "align"

    def __init__(self, context: Context, config: AlignConfig):
        self.context, self.config = context, config
        self.muon = context.recipe.language_model.kind == "tiny_decoder"
        self._latest: tuple[int, list[list[Example]]] = (-1, [])

    def parameters(self) -> list[tuple[str, nn.Parameter]]:
        return lm_parameters(self.context.model)

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

    def loss(self, examples: Sequence[Example], whole: Sequence[Example]) -> Tensor:
        return self._loss(examples, whole, self.config.noise)

    @torch.no_grad()
    def validation_loss(self) -> float:
        rng = generator(self.context.recipe, "align-validation", 0)
        drawn = [self.context.corpus.text_example(rng) for _ in range(512)]
        parts = [drawn[start : start + 64] for start in range(0, len(drawn), 64)]
        return sum(float(self._loss(part, drawn, 0.0)) for part in parts)

    def _loss(self, examples: Sequence[Example], whole: Sequence[Example], noise: float) -> Tensor:
        model = self.context.model
        batch = model.collate([model.tokenizer.example(e) for e in examples])
        x_BTD = model.inputs(batch, None)
        if noise:
            size = x_BTD.detach().float().pow(2).mean().sqrt() * noise
            strength_B = torch.rand(len(examples), 1, 1, device=x_BTD.device) * size
            disturbed = batch.source_BT[..., None] * torch.randn_like(x_BTD) * strength_B
            x_BTD = x_BTD + disturbed.to(x_BTD.dtype)
        states = model.lm.hidden(x_BTD[:, :-1])[-1]
        num_tokens = num_answer_tokens(model, whole)
        return model.answer_loss(batch, states, num_tokens, self.context.words)
