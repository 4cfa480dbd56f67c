"""What stages on the emoji data share: views of pictures, pivot captions, the evidence."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from mpm_eval.schema import StageRecord
from training.stages.base import Context, bridge_parameters, generator, losses, parts_of
from training.tokenizer import Example


class EmojiStage:
    """What stages on the emoji data share."""

    name: str
    muon: bool
    context: Context
    config: Any
    draws_own = False

    def prepare(self) -> None:
        """Fit the bridge's fixed statistics to the plain views of the training pictures."""
        assert self.context.features_ANPC is not None
        self.context.model.bridge.fit_features(self.context.features_ANPC[0])

    def state(self) -> dict[str, Any]:
        return {}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Every step draws its examples anew."""

    def parameters(self) -> list[tuple[str, nn.Parameter]]:
        raise NotImplementedError

    def examples(self, step: int) -> list[Example]:
        raise NotImplementedError

    def record(self, curve: Sequence[float], validation: float) -> StageRecord:
        """Return the evidence of the stage, counted by replaying its draws."""
        seen: dict[tuple[str, bool], set[tuple[str, str, str]]] = {}
        pictures, context = set[int](), self.context
        for step in range(self.config.steps):
            for e in self.examples(step):
                source = context.pictures[e.image].key if e.image >= 0 else e.source
                place = seen.setdefault((e.language, e.image >= 0), set())
                place.add((source, e.question, e.answer))
                if e.image >= 0:
                    pictures.add(e.image)
        counts = {key: len(found) for key, found in sorted(seen.items())}
        return StageRecord(
            name=self.name,
            data={"emoji": context.corpus.data.sha256},
            multimodal_samples={lang: n for (lang, multi), n in counts.items() if multi},
            text_samples={lang: n for (lang, multi), n in counts.items() if not multi},
            steps=self.config.steps,
            seed=context.recipe.seed,
            losses=losses(curve, validation),
            trained=parts_of(self.parameters()),
            samples_seen=self.config.steps * self.config.batch_size,
            images=dict(sorted(Counter(context.pictures[i].vendor for i in pictures).items())),
        )


class CaptionStage(EmojiStage):
    """A stage in which the bridge alone learns, from captions of training pictures."""

    def parameters(self) -> list[tuple[str, nn.Parameter]]:
        return bridge_parameters(self.context.model)

    def examples(self, step: int) -> list[Example]:
        rng = generator(self.context.recipe, self.name, step)
        chosen = [rng.randrange(len(self.context.pictures)) for _ in range(self.config.batch_size)]
        return [caption(self.context, index, rng) for index in chosen]


def caption(context: Context, index: int, rng: random.Random) -> Example:
    """Return a caption of a training picture, with the view of it that is to be seen."""
    example = context.corpus.caption_example(index, context.pictures[index], rng)
    return replace(example, view=rng.randrange(context.recipe.num_views))


def views(context: Context, examples: Sequence[Example]) -> Tensor:
    """Return z_BPC: features of the view of each example's picture that its draw chose."""
    assert context.features_ANPC is not None
    chosen = torch.tensor([e.view for e in examples]), torch.tensor([e.image for e in examples])
    return context.features_ANPC[chosen].to(context.device).float()
