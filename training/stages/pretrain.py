"""Stage pretrain: eye and language model frozen, the bridge learns pivot captions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from training.recipe import PretrainConfig
from training.stages.base import Context, num_answer_tokens, part_of
from training.stages.emoji import CaptionStage, views
from training.tokenizer import Example

_TEMPERATURE = 0.05  # of the contrastive term, on cosine similarities
_ROWS = 64  # pictures or names at once where nothing learns


@dataclass(frozen=True)
class _Names:
    """Hidden states of names in one language, standardised: N concepts, L layers, D width."""

    h_NLD: Tensor
    unit_NE: Tensor  # each flattened, at length 1
    mean: Tensor
    scale: Tensor
    row: Mapping[str, int]  # concept -> its place


class Pretrain(CaptionStage):
    """Learns captions; beside their loss, the hidden states that answer "What is this?" for a
    picture are pulled to those for its name given as text, and away from those of other names.
    Every term sees the language of the caption only: the pivot's, where no share is native.
    """

    name = "pretrain"
    muon = False

    def __init__(self, context: Context, config: PretrainConfig):
        self.context, self.config = context, config
        self._names_by_language: dict[str, _Names] = {}

    def loss(self, examples: Sequence[Example], whole: Sequence[Example]) -> Tensor:
        model, config = self.context.model, self.config
        visual_BKD = model.visual_tokens(views(self.context, examples))
        batch = model.collate([model.tokenizer.example(e) for e in examples])
        states = model.lm.hidden(model.inputs(batch, visual_BKD)[:, :-1])
        num_tokens = num_answer_tokens(model, whole)
        loss = model.answer_loss(batch, states[-1], num_tokens, self.context.words)
        if not (config.matching or config.contrastive):
            return loss
        each = torch.arange(len(examples), device=batch.last_B.device)
        h_BLD = torch.stack([s[each, batch.last_B].float() for s in states[1:]], dim=1)
        # All read the names of the whole batch: sharded weights are gathered by all at once.
        for language in sorted({e.language for e in whole}):
            self._names(language)
            places = [i for i, e in enumerate(examples) if e.language == language]
            members = [examples[i] for i in places]
            if not members:
                continue
            loss = loss + part_of(self._agreement(h_BLD[places], members, language), members, whole)
        return loss

    def _agreement(self, h_BLD: Tensor, examples: Sequence[Example], language: str) -> Tensor:
        """Return the mean of the matching and contrastive terms of examples in one language."""
        config, names = self.config, self._names(language)
        h_BLD = (h_BLD - names.mean) * names.scale
        rows = [names.row[self.context.pictures[e.image].concept.id] for e in examples]
        target_B = torch.tensor(rows, device=h_BLD.device)
        loss = h_BLD.new_zeros(())
        if config.matching:
            loss = loss + config.matching * F.mse_loss(h_BLD, names.h_NLD[target_B])
        near_BN = F.normalize(h_BLD.flatten(1), dim=-1) @ names.unit_NE.T
        return loss + config.contrastive * F.cross_entropy(near_BN / _TEMPERATURE, target_B)

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Return the loss of pivot names on drawings in the validation style."""
        context = self.context
        assert context.validation_NPC is not None
        model, pivot, corpus = context.model, context.recipe.pivot, context.corpus
        rows = [
            model.tokenizer.example(
                Example(corpus.prompts[pivot], corpus.data.name(picture.concept, pivot))
            )
            for picture in context.validation_pictures
        ]
        tokens, total = sum(row.num_answer for row in rows), 0.0
        for start in range(0, len(rows), _ROWS):
            batch = model.collate(rows[start : start + _ROWS])
            features = context.validation_NPC[start : start + _ROWS].to(context.device).float()
            states = model.lm.hidden(model.inputs(batch, model.visual_tokens(features))[:, :-1])
            total += float(model.answer_loss(batch, states[-1], tokens, context.words))
        return total

    def _names(self, language: str) -> _Names:
        """Return the states of every training concept's name, as captions in a language give it."""
        if language not in self._names_by_language:
            self._names_by_language[language] = self._read_names(language)
        return self._names_by_language[language]

    def _read_names(self, language: str) -> _Names:
        model, corpus = self.context.model, self.context.corpus
        named = [c for c in corpus.trained_concepts if corpus.data.name(c, language)]
        question = corpus.prompts[language]
        rows = [model.tokenizer.prompt(question, corpus.caption_name(c, language)) for c in named]
        found: list[Tensor] = []
        with torch.no_grad():
            for start in range(0, len(rows), _ROWS):
                batch = model.collate(rows[start : start + _ROWS])
                each = torch.arange(len(batch.last_B), device=batch.last_B.device)
                states = model.lm.hidden(model.inputs(batch, None))[1:]
                found.append(torch.stack([s[each, batch.last_B].float() for s in states], dim=1))
        h_NLD = torch.cat(found)
        mean, scale = h_NLD.mean(0), 1 / (h_NLD.std(0) + 1e-3)
        h_NLD = (h_NLD - mean) * scale
        unit_NE = F.normalize(h_NLD.flatten(1), dim=-1)
        return _Names(h_NLD, unit_NE, mean, scale, {c.id: i for i, c in enumerate(named)})
