"""How far a judge can be trusted, on judgements whose numbers are known by hand."""

from pathlib import Path

import pytest

from mpm_eval.errors import UserError
from mpm_eval.judging.protocol import Judging, Reply, judge_requests, judgement_of
from mpm_eval.judging.quality import agreement, judge_quality, read_human
from mpm_eval.schema import Judgement
from tests.judging.conftest import sample


def judged(judging: Judging, *samples: tuple[str, ...]) -> list[Judgement]:
    """Return judgements from replies: one tuple a sample, in the order of its requests."""
    found = []
    for number, replies in enumerate(samples):
        asked = judge_requests(judging, sample(number), "answer")
        found += [judgement_of(judging, r, Reply(t)) for r, t in zip(asked, replies, strict=True)]
    return found


ROBUST = Judging("j", {}, "robust", 1)
THRICE = Judging("j", {}, "robust", 3)
LLAVA = Judging("j", {}, "llava", 1)


def test_order_swap_finds_a_judge_that_likes_the_first_place() -> None:
    # reference first, then candidate first; replies name the first one first
    found = judged(ROBUST, ("9 7", "9 7"), ("9 7", "8 8"), ("9 5", "5 9"))
    swap = judge_quality(ROBUST, found, 6)["order_swap"]
    # margins candidate - reference: (-2, 2), (-2, 0), (-4, -4)
    assert swap["num_samples"] == 3
    assert swap["same_verdict"] == pytest.approx(1 / 3)
    assert swap["mean_change"] == pytest.approx((4 + 2 + 0) / 3)
    assert swap["first_place_bonus"] == pytest.approx((2 + 1 + 0) / 3)


def test_repeat_variance_is_of_the_answer_s_score_within_one_order() -> None:
    found = judged(THRICE, ("9 5", "9 6", "9 7", "4 9", "4 9", "4 9"))
    repeats = judge_quality(THRICE, found, 6)["repeats_of_one_request"]
    assert repeats == {"num_requests": 2, "all_equal": 0.5, "mean_variance": 0.5}


def test_failures_are_counted_by_reason_and_what_was_not_asked_apart() -> None:
    found = judged(LLAVA, ("8 7",), ("?",), ("",))
    quality = judge_quality(LLAVA, found, 5)
    assert quality["num_judged"] == 1 and quality["num_failed"] == 2
    assert quality["num_not_asked"] == 2
    assert quality["failures"] == {"no two scores from 0 to 10 in the reply": 2}


def test_what_cannot_be_measured_is_null() -> None:
    quality = judge_quality(LLAVA, judged(LLAVA, ("8 7",), ("8 6",)), 2)
    assert quality["order_swap"] is None and quality["repeats_of_one_request"] is None
    assert quality["agreement"] is None


def test_agreement_uses_the_samples_that_were_judged() -> None:
    found = judged(LLAVA, ("9 2",), ("9 4",), ("9 6",), ("?",))
    human = {(str(i), "en"): float(score) for i, score in enumerate((1, 3, 7, 5))}
    agreed = judge_quality(LLAVA, found, 4, human)["agreement"]
    assert (agreed["num_samples"], agreed["num_failed"]) == (3, 1)
    assert agreed["spearman"] == agreed["kendall_tau_b"] == pytest.approx(1.0)


def test_given_scores_of_samples_that_were_never_judged_are_an_error() -> None:
    with pytest.raises(UserError, match=r"--human: no judgement of id '7' in language 'en'"):
        judge_quality(LLAVA, judged(LLAVA, ("8 7",)), 1, {("7", "en"): 3.0})


def test_rank_correlations_and_kappa_by_hand() -> None:
    # ranks 1 2 3 4 against 2 1 3 4: rho = 1 - 6 * 2 / (4 * 15), tau = (5 - 1) / 6
    found = agreement([(1, 2), (2, 1), (3, 3), (4, 4)])
    assert found["spearman"] == pytest.approx(0.8)
    assert found["kendall_tau_b"] == pytest.approx(4 / 6)
    # observed (1 + 1) / 4; expected: mean squared difference of two uniform {1..4}, 2.5
    assert found["quadratic_weighted_kappa"] == pytest.approx(1 - 0.5 / 2.5)


@pytest.mark.parametrize("pairs", [[], [(1, 2), (2, 3)], [(1, 5), (2, 5), (3, 5)]])
def test_too_few_or_constant_scores_have_no_agreement(pairs: list[tuple[float, float]]) -> None:
    assert set(agreement(pairs).values()) == {None}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no scores"),
        ('{"id": "1", "language": "en"}', ":1: key 'score' is missing"),
        ('{"id": "1", "language": "en", "score": "8"}', "score: expected a number"),
        ('{"id": "1", "language": "en", "score": NaN}', "NaN is not valid JSON"),
        ('{"id": "1", "language": "en", "score": 1}\n' * 2, ":2: '1' in 'en' is given twice"),
    ],
)
def test_a_bad_file_of_human_scores_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "human.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"human\.jsonl") as caught:
        read_human(path)
    assert message in str(caught.value)
