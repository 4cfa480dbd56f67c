"""Backends: how a model is called. A Protocol, and a lazy table of those that are shipped."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from mpm_eval.schema import OptionScore, Request, TrainingRecord

if TYPE_CHECKING:
    import numpy as np


class Backend(Protocol):
    """A model that can be called. Methods outside `capabilities` are never called."""

    name: str  # shown in results
    sha256: str  # of everything that can change an answer: weights, tokenizer, settings
    capabilities: frozenset[str]  # of "generate", "choose", "embed", "oracle" (sees references)
    training_record: TrainingRecord | None  # None: a stranger's model, labelled unknown
    identity: Mapping[str, str]  # revision, device, dtype, card hash: written into results
    batch_size: int  # requests per call that suit this backend

    def generate(self, requests: Sequence[Request]) -> list[str]:
        """Return one output text per request, in order."""
        ...

    def choose(self, requests: Sequence[Request]) -> list[tuple[OptionScore, ...]]:
        """Return, per request, the score of each of its options, in their order."""
        ...

    def embed(self, texts: Sequence[str], language: str) -> "np.ndarray":
        """Return pooled hidden states h_LND in float32: layers (embeddings first), texts, width."""
        ...


# spec prefix -> "module:function"; the function takes (argument, seed) and returns a Backend
BACKENDS: dict[str, str] = {
    "echo": "mpm_eval.backends.echo:open_echo",
    "checkpoint": "mpm_eval.backends.checkpoint:open_checkpoint",
}
