"""Checkpoints of this project's trainer, called through training.interface."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mpm_eval.backends.paint_checkpoint import PaintBackend, is_painter, open_paint
from mpm_eval.errors import UserError
from mpm_eval.schema import OptionScore, Request, TrainingRecord

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image
    from torch import Tensor

    from training.interface import ChatModel

_CACHED_PICTURES = 4096  # visual tokens of one picture take a few kilobytes


class CheckpointBackend:
    """A checkpoint folder. A picture is encoded once and shared by all languages and questions."""

    capabilities = frozenset({"generate", "choose", "embed", "embed_images"})
    # Prompts of one length are decoded together: a small batch falls into groups of a few.
    batch_size = 256

    def __init__(self, folder: Path, seed: int) -> None:
        from training.interface import checkpoint_sha256, load_checkpoint, pick_device

        self.name = folder.resolve().name
        self.device = pick_device()
        self._model: ChatModel
        self.training_record: TrainingRecord | None
        self._model, self.training_record = load_checkpoint(folder, self.device)
        self.sha256 = checkpoint_sha256(folder)
        recipe = self.training_record.recipe if self.training_record else "unknown"
        # Decoding is greedy: the seed changes nothing and is recorded by the run itself.
        self.identity: Mapping[str, str] = {
            "recipe": recipe,
            "device": self.device,
            "dtype": str(self._model.dtype).removeprefix("torch."),
        }
        self._visual: dict[str, Tensor] = {}

    def generate(self, requests: Sequence[Request]) -> list[str]:
        """Return greedy answers, in order."""
        texts = [""] * len(requests)
        longest = max((request.max_new_tokens for request in requests), default=0)
        for members in _by_picture(requests):
            visual = self._visual_tokens([requests[i] for i in members])
            answers = self._model.generate([requests[i].prompt for i in members], visual, longest)
            for index, answer in zip(members, answers, strict=True):
                texts[index] = answer
        return texts

    def choose(self, requests: Sequence[Request]) -> list[tuple[OptionScore, ...]]:
        """Return summed log-probabilities (nats, end of answer included) of each option."""
        scores: list[tuple[OptionScore, ...]] = [()] * len(requests)
        for members in _by_picture(requests):
            visual = self._visual_tokens([requests[i] for i in members])
            found = self._model.option_scores(
                [requests[i].prompt for i in members],
                [requests[i].options for i in members],
                visual,
            )
            for index, options in zip(members, found, strict=True):
                scores[index] = tuple(OptionScore(*option) for option in options)
        return scores

    def embed(self, texts: Sequence[str], language: str) -> "np.ndarray":
        """Return h_LND: hidden states of each layer, mean over the text's tokens weighted by
        position (Muennighoff, arXiv 2202.08904), embeddings first."""
        return self._model.text_states(texts).cpu().numpy()

    def embed_images(self, images: Sequence["Image"]) -> "np.ndarray":
        """Return h_LND: hidden states of each layer with the picture where `embed` has the text,
        pooled over its visual tokens in the same way."""
        visual_BKD = self._model.encode_pictures(images)
        return self._model.picture_states(visual_BKD).cpu().numpy()

    def _visual_tokens(self, requests: Sequence[Request]) -> "Tensor | None":
        """Return v_BKD for the requests' pictures; None when they have none."""
        import torch

        if requests[0].image is None:
            return None
        keys = [request.image_key or str(id(request.image)) for request in requests]
        missing = {k: r for k, r in zip(keys, requests, strict=True) if k not in self._visual}
        if missing:
            if len(self._visual) + len(missing) > _CACHED_PICTURES:
                kept = {key: self._visual[key] for key in keys if key in self._visual}
                self._visual = kept
            images = [request.image for request in missing.values() if request.image is not None]
            tokens = self._model.encode_pictures(images)
            self._visual.update(zip(missing, tokens, strict=True))
        return torch.stack([self._visual[key] for key in keys])


def _by_picture(requests: Sequence[Request]) -> list[list[int]]:
    """Return the indices of requests with a picture, then those without; no empty part."""
    parts = [
        [i for i, request in enumerate(requests) if (request.image is None) is blind]
        for blind in (False, True)
    ]
    return [part for part in parts if part]


def open_checkpoint(argument: str, seed: int) -> CheckpointBackend | PaintBackend:
    """Return the backend of a checkpoint folder, chat or painter; UserError when something is
    missing or broken."""
    if not argument:
        raise UserError("model 'checkpoint': give the folder, e.g. checkpoint:checkpoints/mine")
    if is_painter(Path(argument)):
        return open_paint(argument, seed)
    return CheckpointBackend(Path(argument), seed)
