"""Stage remember: a memory bridge keeps the training pictures and their names. It has no steps."""

from collections import Counter
from collections.abc import Sequence
from typing import NoReturn

import torch
from torch import nn

from mpm_eval.schema import StageRecord
from training.memory_bridge import MemoryBridge
from training.recipe import RememberConfig
from training.stages.base import Context, name_tokens
from training.stages.emoji import EmojiStage
from training.tokenizer import Example


class Remember(EmojiStage):
    """The plain views of all training pictures, with their names in the pivot."""

    name = "remember"
    muon = False

    def __init__(self, context: Context, config: RememberConfig):
        self.context, self.config = context, config

    @property
    def _bridge(self) -> MemoryBridge:
        bridge = self.context.model.bridge
        assert isinstance(bridge, MemoryBridge)
        return bridge

    def parameters(self) -> list[tuple[str, nn.Parameter]]:
        return []

    def prepare(self) -> None:
        """Remember all there is to remember."""
        assert self.context.features_ANPC is not None
        names_MK, row = name_tokens(self.context)
        owner_N = torch.tensor([row[p.concept.id] for p in self.context.pictures])
        plain_NPC = self.context.features_ANPC[0].to(self.context.device)
        self._bridge.remember(plain_NPC, owner_N, names_MK)

    def examples(self, step: int) -> list[Example]:
        return []

    def loss(self, examples: Sequence[Example], whole: Sequence[Example]) -> NoReturn:
        raise NotImplementedError("a stage without steps has no loss")

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Return the mean of -log of the weight of the right name, in nats, over drawings in the
        validation style."""
        context = self.context
        assert context.validation_NPC is not None
        _, row = name_tokens(context)
        right_B = torch.tensor([row[p.concept.id] for p in context.validation_pictures])
        weight_BM = self._bridge.weights(context.validation_NPC.to(context.device)).cpu()
        return float(-weight_BM[torch.arange(len(right_B)), right_B].clamp_min(1e-12).log().mean())

    def record(self, curve: Sequence[float], validation: float) -> StageRecord:
        """Return the evidence: what is remembered was seen."""
        context = self.context
        return StageRecord(
            name=self.name,
            data={"emoji": context.corpus.data.sha256},
            multimodal_samples={context.recipe.pivot: len(context.pictures)},
            text_samples={},
            steps=0,
            seed=context.recipe.seed,
            losses={"validation": validation},
            trained=("bridge",),
            samples_seen=len(context.pictures),
            images=dict(sorted(Counter(p.vendor for p in context.pictures).items())),
        )
