"""What puts pictures and texts into one space; `open_scorer` is the only door.

Shapes: N pictures or texts, D dimensions of the common space.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from mpm_eval.errors import UserError, unknown

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

SCORERS = {
    "emoji": "emoji, embedded: drawings of single things, 15 languages",
    "hf": "hf:FOLDER or hf:ID@REVISION, a dual encoder of transformers; give its languages",
}


class ImageTextScorer(Protocol):
    """Two frozen encoders whose cosines say how well a text describes a picture."""

    name: str
    languages: tuple[str, ...] | None  # None: unknown, and every language is refused
    sha256: str  # of the weights
    accuracy: Mapping[str, float] | None  # language -> held-out, in percent; None: unmeasured
    accuracy_of: str  # what `accuracy` measured, in words; "" when unmeasured
    accuracy_seen: Mapping[str, float] | None  # the same of concepts it learned, in a new style
    signature: str  # name, weights, resizing and what else can change a vector

    def embed_images(self, images: "Sequence[Image]") -> "np.ndarray":
        """Return unit vectors_ND in single precision, in order; any sizes and modes."""
        ...

    def embed_texts(self, texts: Sequence[str], language: str) -> "np.ndarray":
        """Return unit vectors_ND in single precision, in order.

        Raises UserError for a language the scorer does not know and for a blank text.
        """
        ...


def open_scorer(spec: str, languages: Sequence[str] | None = None) -> ImageTextScorer:
    """Return the scorer that `spec` names; raises UserError for one that cannot be had.

    `languages` are those that a scorer of the hub knows: no configuration says so. The embedded
    one knows its own, and refuses others.
    """
    kind, _, argument = spec.partition(":")
    if kind == "hf":
        from mpm_eval.images.huggingface import open_dual_encoder

        return open_dual_encoder(argument, None if languages is None else tuple(languages))
    if spec == "emoji":
        from mpm_eval.images.emoji_scorer import load_scorer

        scorer = load_scorer()
        for language in languages or ():
            require_language(scorer, language)
        return scorer
    raise unknown("scorer", spec if kind not in SCORERS else kind, SCORERS, "--scorer")


def require_language(scorer: ImageTextScorer, language: str) -> None:
    """Raise UserError unless the scorer knows the language."""
    if scorer.languages is None:
        raise UserError(
            f"scorer '{scorer.name}': nobody said which languages it knows; declare them, e.g. "
            f"languages {language}, if its card does"
        )
    if language not in scorer.languages:
        raise UserError(
            f"scorer '{scorer.name}': does not know '{language}'; known: "
            f"{', '.join(scorer.languages)}"
        )


def require_texts(scorer: ImageTextScorer, texts: Sequence[str]) -> None:
    """Raise UserError for no texts and for a blank one, which means nothing."""
    if not texts:
        raise ValueError("images: no texts to embed")
    for index, text in enumerate(texts):
        if not text.strip():
            raise UserError(f"scorer '{scorer.name}': text {index} is blank; leave it out")
