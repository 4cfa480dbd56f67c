"""Backends: how a model is called. A Protocol, and a lazy table of those that are shipped."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mpm_eval.schema import OptionScore, Request, TrainingRecord

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class Failure:
    """Why one request has no answer: in place of it, its sample is counted as failed."""

    reason: str


class Backend(Protocol):
    """A model that can be called; methods outside `capabilities` never are, and may be missing."""

    name: str  # shown in results
    sha256: str  # of everything that can change an answer: weights, tokenizer, settings
    # of "generate", "choose", "embed", "embed_images", "paint", "oracle" (sees references)
    capabilities: frozenset[str]
    training_record: TrainingRecord | None  # None: a stranger's model, labelled unknown
    identity: Mapping[str, str]  # revision, device, dtype, card hash: written into results
    batch_size: int  # requests per call that suit this backend

    def generate(self, requests: Sequence[Request]) -> Sequence[str | Failure]:
        """Return one output text per request, in order, or why there is none.

        What no request can get past (a dead server) is a UserError: nothing of the call is kept.
        """
        ...

    def choose(self, requests: Sequence[Request]) -> Sequence[tuple[OptionScore, ...] | Failure]:
        """Return, per request, the score of each of its options, in their order; as `generate`."""
        ...

    def embed(self, texts: Sequence[str], language: str) -> "np.ndarray":
        """Return pooled hidden states h_LND in float32: layers (embeddings first), texts, width."""
        ...

    def embed_images(self, images: Sequence["Image"]) -> "np.ndarray":
        """Return pooled hidden states h_LND of pictures, in the layers and the space of `embed`."""
        ...

    def paint(
        self, requests: Sequence[Request], seeds: Sequence[int]
    ) -> "Sequence[Image | Failure]":
        """Return one picture per request, in order, or why there is none.

        A picture depends on its prompt and seed alone, never on the batch. Of `Request.size` 0 the
        size is the backend's, the same for all. `identity` may say sampler, steps, guidance and
        rerank: they are written into the signature of every score.
        """
        ...


# spec prefix -> "module:function"; the function takes (argument, seed) and returns a Backend
BACKENDS: dict[str, str] = {
    "echo": "mpm_eval.backends.echo:open_echo",
    "checkpoint": "mpm_eval.backends.checkpoint:open_checkpoint",
    "paint": "mpm_eval.backends.paint_checkpoint:open_paint",
    "hf": "mpm_eval.backends.huggingface:open_huggingface",
    "openai": "mpm_eval.backends.openai_api:open_openai",
}
