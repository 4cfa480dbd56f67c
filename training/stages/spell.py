"""Stage spell: visual tokens learn to spell the pivot name, without running the language model."""

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from training.recipe import SpellConfig
from training.stages.base import Context, name_tokens, part_of
from training.stages.emoji import CaptionStage, views
from training.tokenizer import Example


class Spell(CaptionStage):
    """The k-th visual token is to be nearest to the k-th word of the picture's pivot name.

    A frozen language model then reads the picture as it reads the name. A step costs a hundredth
    of one through the language model, so the bridge learns here what a picture shows, and in
    stage pretrain how to say what a name alone does not.
    """

    name = "spell"
    muon = False

    def __init__(self, context: Context, config: SpellConfig):
        self.context, self.config = context, config

    def loss(self, examples: Sequence[Example], whole: Sequence[Example]) -> Tensor:
        visual_BKD = self.context.model.visual_tokens(views(self.context, examples))
        concepts = [self.context.pictures[e.image].concept.id for e in examples]
        return part_of(self._loss(visual_BKD, concepts), examples, whole)

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Return the loss on drawings in the validation style."""
        context = self.context
        assert context.validation_NPC is not None
        features = context.validation_NPC.to(context.device)
        visual = torch.cat([context.model.visual_tokens(z.float()) for z in features.split(128)])
        return float(self._loss(visual, [p.concept.id for p in context.validation_pictures]))

    def _loss(self, visual_BKD: Tensor, concepts: Sequence[str]) -> Tensor:
        words_WD, names_NK, row = self._names
        target_B = torch.tensor([row[concept] for concept in concepts], device=visual_BKD.device)
        similar_BKW = F.normalize(visual_BKD, dim=-1) @ words_WD.T / self.config.temperature
        loss = F.cross_entropy(similar_BKW.flatten(0, 1), names_NK[target_B].flatten())
        if self.config.contrastive:
            # The mean over the tokens of each name of how near the visual tokens are to it.
            places_K = torch.arange(names_NK.shape[1], device=names_NK.device)
            near_BN = similar_BKW[:, places_K, names_NK].mean(-1) * _SHARPER
            loss = loss + self.config.contrastive * F.cross_entropy(near_BN, target_B)
        return loss

    @cached_property
    def _names(self) -> tuple[Tensor, Tensor, dict[str, int]]:
        """Return (unit word vectors, the names as their rows, row of each concept's name)."""
        names_NK, row = name_tokens(self.context)
        ids_W, places_NK = torch.unique(names_NK, return_inverse=True)
        with torch.no_grad():
            words = F.normalize(self.context.model.lm.embed(ids_W).float(), dim=-1)
        return words, places_NK, row


_SHARPER = 4.0  # a mean over tokens varies less than one token does
