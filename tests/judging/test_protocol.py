"""The frame to the letter, and how replies make one pair of scores."""

from dataclasses import replace

import pytest

from mpm_eval.errors import UserError
from mpm_eval.judging.protocol import Judging, Reply, combine, judge_requests, judgement_of
from mpm_eval.schema import Judgement
from tests.judging.conftest import requests, sample

LLAVA = Judging("openai:tiny", {}, "llava", 1)
ROBUST = Judging("openai:tiny", {}, "robust", 2)

# llava/eval/eval_gpt_review_visual.py of haotian-liu/LLaVA
FRAME = """[Context]
Boats in a harbour.

boat: [0.1, 0.2, 0.3, 0.4]

[Question]
How many boats are there, 2?

[Assistant 1]
There are 2 red boats in the harbour.

[End of Assistant 1]

[Assistant 2]
Two {boats}.

[End of Assistant 2]

[System]
Judge.

"""


def judgements(judging: Judging, *replies: str) -> list[Judgement]:
    asked = judge_requests(judging, sample(1), "One.")
    return [judgement_of(judging, r, Reply(t)) for r, t in zip(asked, replies, strict=True)]


def test_llava_mode_asks_once_in_the_published_frame_with_the_reference_first() -> None:
    (request,) = judge_requests(LLAVA, sample(2), "Two {boats}.")
    assert request.prompt == FRAME
    assert request.system == (
        "You are a helpful and precise assistant for checking the quality of the answer."
    )
    assert (request.temperature, request.max_reply_tokens) == (0.2, 1024)
    assert (request.order, request.repeat) == ("reference-first", 0)


def test_robust_mode_asks_in_both_orders_at_temperature_0_and_repeats() -> None:
    asked = judge_requests(ROBUST, sample(2), "Two.")
    assert [(r.order, r.repeat) for r in asked] == [
        ("reference-first", 0), ("reference-first", 1),
        ("candidate-first", 0), ("candidate-first", 1),
    ]  # fmt: skip
    assert {r.temperature for r in asked} == {0.0}
    swapped = asked[2].prompt
    assert swapped.index("Two.") < swapped.index("[Assistant 2]") < swapped.index("2 red boats")


def test_everything_that_can_change_a_reply_changes_the_request_s_hash() -> None:
    base = sample(1)
    hashes = [
        judge_requests(judging, member, output)[0].sha256
        for judging, member, output in (
            (LLAVA, base, "One."),
            (LLAVA, base, "Two."),
            (LLAVA, sample(2), "One."),
            (LLAVA, replace(base, language="zh"), "One."),
            (LLAVA, replace(base, question="Why?"), "One."),
            (replace(LLAVA, judge="openai:other"), base, "One."),
            (replace(LLAVA, mode="robust"), base, "One."),
            (replace(LLAVA, max_reply_tokens=180), base, "One."),
        )
    ]
    hashes += [r.sha256 for r in judge_requests(ROBUST, base, "One.")[1:]]
    assert len(set(hashes)) == len(hashes)
    assert hashes[0] == judge_requests(LLAVA, base, "One.")[0].sha256


def test_scores_are_stored_as_reference_and_candidate_whatever_was_shown_first() -> None:
    found = judgements(ROBUST, "8 6", "8 6", "5 9", "5 9")
    assert [j.scores for j in found] == [(8, 6), (8, 6), (9, 5), (9, 5)]


def test_a_sample_s_scores_are_the_mean_over_repeats_then_orders() -> None:
    assert combine(ROBUST, judgements(ROBUST, "8 6", "10 8", "5 9", "?")) == (9.0, 6.0)


def test_one_order_alone_is_a_failure() -> None:
    assert combine(ROBUST, judgements(ROBUST, "8 6", "8 6", "?", "")) is None
    assert combine(LLAVA, []) is None


@pytest.mark.parametrize("reply", ["", "Both are fine.", "85 90", "nan 5", "8, 7", "-1 -1"])
def test_a_reply_without_two_scores_on_the_scale_fails_in_llava_mode(reply: str) -> None:
    (found,) = judgements(LLAVA, reply)
    assert found.scores is None and found.reply == reply
    assert found.error == "no two scores from 0 to 10 in the reply"


def test_a_failed_reply_keeps_its_reason_and_has_no_scores() -> None:
    (request,) = requests(1)
    found = judgement_of(LLAVA, request, Reply("8 7", error="refused"))
    assert found.error == "refused" and found.scores is None


def test_a_sample_without_words_about_its_picture_cannot_be_judged() -> None:
    with pytest.raises(UserError, match=r"sample '1' \(en\): holds nothing for a judge to read"):
        judge_requests(LLAVA, replace(sample(1), brief=None), "One.")


def test_a_signature_has_no_spaces_and_tells_protocols_apart() -> None:
    signatures = {
        judging.signature
        for judging in (LLAVA, ROBUST, replace(ROBUST, repeats=1), replace(LLAVA, judge="hf:a b|c"))
    }
    assert len(signatures) == 4
    for signature in signatures:
        assert not any(c.isspace() for c in signature)
        assert all(":" in part for part in signature.split("|"))
