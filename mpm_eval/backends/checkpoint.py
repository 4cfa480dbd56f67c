"""Checkpoints of this project's trainer, called through training.interface."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mpm_eval.backends.paint_checkpoint import PaintBackend, is_painter, open_paint
from mpm_eval.errors import UserError
from mpm_eval.schema import OptionScore, Request, TrainingRecord

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image
    from torch import Tensor

    from training.interface import ChatModel

_CACHED_PICTURES = 4096  # visual tokens of one picture take a few kilobytes
_CACHED_ANSWERS = 65_536  # to what was asked without a picture

Answer = TypeVar("Answer")


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
        self._blind: dict[tuple[object, ...], Any] = {}

    def generate(self, requests: Sequence[Request]) -> list[str]:
        """Return greedy answers, in order."""
        longest = max((request.max_new_tokens for request in requests), default=0)

        def ask(part: Sequence[Request]) -> list[str]:
            prompts = [request.prompt for request in part]
            return self._model.generate(prompts, self._visual_tokens(part), longest)

        return self._answers(requests, [(r.prompt, longest) for r in requests], ask)

    def choose(self, requests: Sequence[Request]) -> list[tuple[OptionScore, ...]]:
        """Return summed log-probabilities (nats, end of answer included) of each option."""

        def ask(part: Sequence[Request]) -> list[tuple[OptionScore, ...]]:
            prompts, options = [r.prompt for r in part], [r.options for r in part]
            found = self._model.option_scores(prompts, options, self._visual_tokens(part))
            return [tuple(OptionScore(*option) for option in scores) for scores in found]

        return self._answers(requests, [(r.prompt, r.options) for r in requests], ask)

    def _answers(
        self,
        requests: Sequence[Request],
        keys: Sequence[tuple[object, ...]],
        ask: Callable[[Sequence[Request]], list[Answer]],
    ) -> list[Answer]:
        """Return answers in order. What is asked without a picture is asked once, whatever batch
        it comes in: without pictures a task has few different questions."""
        found: dict[int, Answer] = {}
        seeing = [i for i, request in enumerate(requests) if request.image is not None]
        if seeing:
            found.update(zip(seeing, ask([requests[i] for i in seeing]), strict=True))
        if len(self._blind) > _CACHED_ANSWERS:
            self._blind.clear()
        blind = [i for i, request in enumerate(requests) if request.image is None]
        new = {keys[i]: requests[i] for i in blind if keys[i] not in self._blind}
        if new:
            self._blind.update(zip(new, ask(list(new.values())), strict=True))
        found.update((i, self._blind[keys[i]]) for i in blind)
        return [found[i] for i in range(len(requests))]

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


def open_checkpoint(argument: str, seed: int) -> CheckpointBackend | PaintBackend:
    """Return the backend of a checkpoint folder, chat or painter; UserError when something is
    missing or broken."""
    if not argument:
        raise UserError("model 'checkpoint': give the folder, e.g. checkpoint:checkpoints/mine")
    if is_painter(Path(argument)):
        return open_paint(argument, seed)
    return CheckpointBackend(Path(argument), seed)
