"""How well texts describe pictures: CLIP-score, and the right text found among others.

Shapes: N pictures, D dimensions of the scorer's space.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mpm_eval.images.scorers import ImageTextScorer

if TYPE_CHECKING:
    from PIL.Image import Image

SCALE = 100.0  # as torchmetrics; the paper's is 2.5


def clip_score(
    images: "Sequence[Image]", texts: Sequence[str], scorer: ImageTextScorer, language: str
) -> np.ndarray:
    """Return score_N = 100 * max(cosine, 0) of each picture and its text, 0 to 100.

    CLIPScore (Hessel et al. 2021, arXiv 2104.08718) on the scale of torchmetrics; the paper prints
    2.5 * max(cosine, 0). Cosines of different scorers are not comparable. Raises ValueError for
    unequal numbers and none, UserError for a language the scorer does not know and a blank text.
    """
    if len(images) != len(texts):
        raise ValueError(f"images: {len(images)} pictures and {len(texts)} texts")
    text_ND = _texts(texts, scorer, language)
    cosine_N = np.einsum("nd,nd->n", scorer.embed_images(images).astype(np.float64), text_ND)
    return np.asarray(SCALE * np.clip(cosine_N, 0.0, 1.0))


def clip_score_signature(scorer: ImageTextScorer, language: str) -> str:
    """Return what a CLIP-score in one language depends on, with the scorer's own accuracy."""
    return f"clip_score|scale:100|{scorer.signature}|{accuracy_note(scorer, language)}"


def top1_among(
    images: "Sequence[Image]",
    candidate_texts: Sequence[Sequence[str]],
    answers: Sequence[int],
    scorer: ImageTextScorer,
    language: str,
) -> np.ndarray:
    """Return hit_N: whether the right text of each picture is nearer than all its other candidates.

    `answers` are places in each picture's candidates. A tie is no hit. Raises ValueError for
    unequal numbers, none, an answer out of range and candidates that repeat a text, which no scorer
    could tell apart.
    """
    if not len(images) == len(candidate_texts) == len(answers):
        raise ValueError(
            f"images: {len(images)} pictures, {len(candidate_texts)} lists of candidates and "
            f"{len(answers)} answers"
        )
    for candidates, answer in zip(candidate_texts, answers, strict=True):
        if len(set(candidates)) != len(candidates):
            raise ValueError("images: a list of candidates repeats a text")
        if not 0 <= answer < len(candidates):
            raise ValueError(f"images: answer {answer} among {len(candidates)} candidates")
    distinct = list(dict.fromkeys(text for candidates in candidate_texts for text in candidates))
    place = {text: index for index, text in enumerate(distinct)}
    text_ND = _texts(distinct, scorer, language)
    image_ND = scorer.embed_images(images).astype(np.float64)
    hits: list[bool] = []
    for image_D, candidates, answer in zip(image_ND, candidate_texts, answers, strict=True):
        cosines = text_ND[[place[text] for text in candidates]] @ image_D
        right = cosines[answer]
        hits.append(bool((np.delete(cosines, answer) < right).all()))
    return np.array(hits)


def accuracy_note(scorer: ImageTextScorer, language: str) -> str:
    """Return how often the scorer itself is right in a language, to stand beside its scores."""
    seen = (scorer.accuracy_seen or {}).get(language)
    known = [f"{seen:.1f} % (seen concepts, a new style)"] if seen is not None else []
    held_out = (scorer.accuracy or {}).get(language)
    if held_out is not None:
        known.append(f"{held_out:.1f} % ({scorer.accuracy_of})")
    return f"scorer's own accuracy: {', '.join(known) or 'unmeasured'}"


def _texts(texts: Sequence[str], scorer: ImageTextScorer, language: str) -> np.ndarray:
    distinct = list(dict.fromkeys(texts))
    place = {text: index for index, text in enumerate(distinct)}
    vectors = scorer.embed_texts(distinct, language).astype(np.float64)
    return np.asarray(vectors[[place[text] for text in texts]])
