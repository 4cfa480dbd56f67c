"""The judge without a network: what it can tell apart, and what it says of itself."""

from dataclasses import replace

import pytest

from mpm_eval.errors import UserError
from mpm_eval.judging.embedded import EmbeddedJudge, keyword_coverage
from mpm_eval.judging.parse import parse_scores
from mpm_eval.judging.protocol import CANDIDATE_FIRST, JudgeRequest
from tests.judging.conftest import requests

TEXTS = {
    "en": ("A brown dog runs on the grass.", "A dog is running on a lawn.", "Two old radios."),
    "zh": ("一只棕色的狗在草地上奔跑。", "一只狗在草坪上跑。", "两台旧收音机。"),
    "de": ("Ein brauner Hund läuft auf der Wiese.", "Ein Hund rennt auf dem Rasen.", "Zwei Radios."),
    "fr": ("Un chien brun court sur l'herbe.", "Un chien court sur la pelouse.", "Deux radios."),
    "es": ("Un perro marrón corre por la hierba.", "Un perro corre por el césped.", "Dos radios."),
}  # fmt: skip


def request(reference: str, candidate: str, language: str) -> JudgeRequest:
    return replace(requests(1)[0], reference=reference, candidate=candidate, language=language)


def score(reference: str, candidate: str, language: str) -> float:
    ((_, reply),) = EmbeddedJudge().answers([request(reference, candidate, language)])
    scores = parse_scores(reply.text)
    assert scores is not None and scores[0] == 10.0
    return scores[1]


@pytest.mark.parametrize("language", TEXTS)
def test_a_paraphrase_beats_an_unrelated_answer_and_the_reference_gets_10(language: str) -> None:
    reference, paraphrase, unrelated = TEXTS[language]
    assert score(reference, reference, language) == 10.0
    assert 10 > score(reference, paraphrase, language) > score(reference, unrelated, language) + 1


def test_a_blank_answer_gets_1() -> None:
    assert score(TEXTS["en"][0], " \n", "en") == 1.0


def test_scores_come_in_the_order_in_which_the_answers_are_shown() -> None:
    asked = replace(request("A dog.", "", "en"), order=CANDIDATE_FIRST)
    ((_, reply),) = EmbeddedJudge().answers([asked])
    assert reply.text == "1.00 10"


def test_languages_that_the_encoder_does_not_know_are_refused_by_name() -> None:
    asked = [request("a", "b", tag) for tag in ("sw", "en", "hi")]
    with pytest.raises(UserError, match=r"its encoder does not know hi, sw; give another judge"):
        list(EmbeddedJudge().answers(asked))


def test_its_name_says_what_it_is() -> None:
    assert EmbeddedJudge().name == "embedded:similarity"


@pytest.mark.parametrize(
    ("candidate", "reference", "language", "share"),
    [
        ("three brown dogs", "three dogs, 5 cats", "en", 2 / 4),
        ("the cat is on it", "it is", "en", None),  # no keyword
        ("一只狗", "一只猫", "zh", 1 / 2),  # 一只 of 一只, 只猫
        ("猫", "猫", "zh", 1.0),
        ("", "three dogs", "en", 0.0),
    ],
)
def test_keyword_coverage_by_hand(
    candidate: str, reference: str, language: str, share: float | None
) -> None:
    assert keyword_coverage(candidate, reference, language) == share
