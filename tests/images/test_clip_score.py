"""CLIP-score and top-1 on a scorer whose cosines are known."""

from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from mpm_eval.errors import UserError
from mpm_eval.images.clip_score import clip_score, clip_score_signature, top1_among
from mpm_eval.images.scorers import require_language, require_texts


class Angles:
    """A picture of width w lies at w degrees, a text at the degrees that it says."""

    name = "angles"
    languages: tuple[str, ...] | None = ("en", "de")
    sha256 = "0" * 64
    accuracy: dict[str, float] | None = {"en": 87.25}  # noqa: RUF012
    accuracy_of = "top-1 among 100"
    accuracy_seen: dict[str, float] | None = None
    signature = "angles"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def embed_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        return at([image.width for image in images])

    def embed_texts(self, texts: Sequence[str], language: str) -> np.ndarray:
        require_language(self, language)
        require_texts(self, texts)
        self.asked += texts
        return at([float(text) for text in texts])


def at(degrees: Sequence[float]) -> np.ndarray:
    angle_N = np.radians(degrees)
    return np.stack([np.cos(angle_N), np.sin(angle_N)], axis=1).astype(np.float32)


def pictures(*widths: int) -> list[Image.Image]:
    return [Image.new("RGB", (width, 1)) for width in widths]


def test_the_score_is_100_times_the_cosine_cut_at_0() -> None:
    found = clip_score(pictures(10, 10, 10), ["10", "70", "170"], Angles(), "en")
    np.testing.assert_allclose(found, [100, 50, 0], atol=1e-4)
    assert found.max() <= 100


def test_a_text_given_twice_is_read_once() -> None:
    scorer = Angles()
    clip_score(pictures(10, 20, 30), ["10", "10", "10"], scorer, "de")
    assert scorer.asked == ["10"]


def test_the_signature_holds_the_scale_and_the_scorers_own_accuracy() -> None:
    assert clip_score_signature(Angles(), "en") == (
        "clip_score|scale:100|angles|scorer's own accuracy: 87.2 % (top-1 among 100)"
    )
    assert clip_score_signature(Angles(), "de").endswith("own accuracy: unmeasured")


def test_the_nearest_text_is_a_hit_and_a_tie_is_none() -> None:
    candidates = [["10", "20"], ["10", "20"], ["10", "10.0"]]
    found = top1_among(pictures(12, 12, 10), candidates, [0, 1, 0], Angles(), "en")
    assert found.tolist() == [True, False, False]


def test_one_candidate_is_always_right() -> None:
    assert top1_among(pictures(12), [["90"]], [0], Angles(), "en").tolist() == [True]


@pytest.mark.parametrize(
    ("texts", "language", "message"),
    [
        (["10"], "fr", "scorer 'angles': does not know 'fr'; known: en, de"),
        ([" "], "en", "text 0 is blank"),
    ],
)
def test_a_user_mistake_is_named(texts: list[str], language: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        clip_score(pictures(1), texts, Angles(), language)


def test_a_scorer_of_unknown_languages_refuses_all() -> None:
    scorer = Angles()
    scorer.languages = None
    with pytest.raises(UserError, match="nobody said which languages it knows"):
        clip_score(pictures(1), ["1"], scorer, "en")


@pytest.mark.parametrize(
    ("candidates", "answers", "message"),
    [
        ([["1", "2"]], [0, 0], "1 pictures, 1 lists of candidates and 2 answers"),
        ([["1", "1"]], [0], "repeats a text"),
        ([["1", "2"]], [2], "answer 2 among 2"),
        ([[]], [0], "answer 0 among 0"),
    ],
)
def test_candidates_that_do_not_fit_are_refused(
    candidates: list[list[str]], answers: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        top1_among(pictures(1), candidates, answers, Angles(), "en")


def test_unequal_numbers_and_none_are_refused() -> None:
    with pytest.raises(ValueError, match="2 pictures and 1 texts"):
        clip_score(pictures(1, 2), ["1"], Angles(), "en")
    with pytest.raises(ValueError, match="no texts"):
        clip_score([], [], Angles(), "en")
