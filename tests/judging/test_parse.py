"""Replies as judges write them, in several languages, and what each parser reads in them."""

import pytest

from mpm_eval.errors import UserError
from mpm_eval.judging import parse_scores
from mpm_eval.judging.parse import on_scale

FAILED = (-1.0, -1.0)

# (reply, what LLaVA's script reads, what a careful reader reads)
REPLIES = [
    # the format that the rule asks for
    ("8 7", (8, 7), (8, 7)),
    ("8,7", (8, 7), (8, 7)),
    ("8.5 7.5\nAssistant 1 is better.", (8.5, 7.5), (8.5, 7.5)),
    ("10 10", (10, 10), (10, 10)),
    ("10 0\nThe second answer is empty.", (10, 0), (10, 0)),
    ("9 6\r\nBecause the first one is right.", (9, 6), (9, 6)),
    ("8 7\n\nOn helpfulness alone I would say\n5 9", (8, 7), (8, 7)),
    ("7 8\n助理2的回答更详细。", (7, 8), (7, 8)),
    ("6 9\nDie zweite Antwort ist ausführlicher.", (6, 9), (6, 9)),
    ("９ ６", (9, 6), (9, 6)),  # Python's float reads full-width digits
    # near misses, which LLaVA's parser does not read
    ("8, 7", FAILED, (8, 7)),
    ("8 7 ", FAILED, (8, 7)),
    (" 8 7", FAILED, (8, 7)),
    ("8  7", FAILED, (8, 7)),
    ("8\t7", FAILED, (8, 7)),
    ("8/10 7/10", FAILED, (8, 7)),
    ("8 / 10, 7 / 10", FAILED, (8, 7)),
    ("**8 7**", FAILED, (8, 7)),
    ("**8 7", FAILED, (8, 7)),
    ("`8 7`", FAILED, (8, 7)),
    ("(8, 7)", FAILED, (8, 7)),
    ("8; 7", FAILED, (8, 7)),
    ("| 8 | 7 |", FAILED, (8, 7)),
    ("8 and 7", FAILED, (8, 7)),
    ("Scores: 8 7", FAILED, (8, 7)),
    ("８，７", FAILED, (8, 7)),
    ("８／１０　７／１０", FAILED, (8, 7)),
    # scores on a later line
    ("**Overall evaluation**\n\n8 7\nThe first one is better.", FAILED, (8, 7)),
    ("Here are my scores:\n8, 7", FAILED, (8, 7)),
    ("\n8 7", FAILED, (8, 7)),
    ("<think>Perhaps 3 4?\n3 4</think>\n\n8 7\nDone.", FAILED, (8, 7)),
    ("8\n7\nThe first one is better.", FAILED, (8, 7)),
    ("Assistant 1: 8\nAssistant 2: 7", FAILED, (8, 7)),
    ("**Assistant 1:** 8/10\n**Assistant 2:** 7/10", FAILED, (8, 7)),
    ("Assistant 2: 7. Assistant 1: 8.", FAILED, (8, 7)),
    # other languages
    ("评分：8 7\n两个助手都回答了问题。", FAILED, (8, 7)),
    ("8分 7分", FAILED, (8, 7)),
    ("8分和7分", FAILED, (8, 7)),
    ("助理1：8分，助理2：7分", FAILED, (8, 7)),
    ("以下是我的评分：\n\n８　７", FAILED, (8, 7)),
    ("Bewertung: 8 und 7", FAILED, (8, 7)),
    ("8,5 7,5\nBeide Antworten sind gut.", FAILED, (8.5, 7.5)),
    ("Assistent 1: 8 Punkte, Assistent 2: 7 Punkte", FAILED, (8, 7)),
    ("Notes : 8 et 7", FAILED, (8, 7)),
    ("L'assistant 1 : 8/10\nL'assistant 2 : 7/10", FAILED, (8, 7)),
    ("Puntuaciones: 8 y 7", FAILED, (8, 7)),
    ("Asistente 1: 8\nAsistente 2: 7", FAILED, (8, 7)),
    ("評価：8、7", FAILED, (8, 7)),
    ("8点と7点", FAILED, (8, 7)),
    ("アシスタント1：8点\nアシスタント2：7点", FAILED, (8, 7)),
    # unsure: one number, three, a range, another scale, a contradiction, none
    ("8", FAILED, None),
    ("8/10", FAILED, None),
    ("8 7 9", FAILED, None),
    ("1-10", FAILED, None),
    ("8-7", FAILED, None),
    ("On a scale of 1 to 10 both are fine.", FAILED, None),
    ("85 90", (85, 90), None),
    ("11 9", (11, 9), None),
    ("80/100 70/100", FAILED, None),
    ("8/100 7/100", FAILED, None),
    ("-1 -1", (-1, -1), None),
    ("nan nan", None, None),
    ("Helpfulness: 8 7", FAILED, None),
    ("My scores:\n8 7\n9 6", FAILED, None),
    ("Assistant 1: 8\nAssistant 1: 6\nAssistant 2: 7", FAILED, None),
    ("Assistant 1: 8", FAILED, None),
    ("Note : 8,5", FAILED, None),  # one French score with a decimal comma
    ("1. Clear\n2. Right", FAILED, None),
    ("<think>8 7", FAILED, None),  # cut off while thinking
    ("I'm sorry, I can't help with that.", FAILED, None),
    ("对不起，我无法评分。", FAILED, None),
    ("Es tut mir leid, das kann ich nicht bewerten.", FAILED, None),
    ("两个回答都很好。", FAILED, None),
    ("", FAILED, None),
]


def test_there_are_at_least_forty_replies() -> None:
    assert len(REPLIES) >= 40
    assert len({reply for reply, _, _ in REPLIES}) == len(REPLIES)


@pytest.mark.parametrize(("reply", "llava", "robust"), REPLIES, ids=[repr(r[0]) for r in REPLIES])
def test_a_reply_is_read(reply: str, llava: object, robust: object) -> None:
    if llava is not None:  # nan equals nothing
        assert parse_scores(reply, mode="llava") == llava
    assert parse_scores(reply, mode="robust") == robust


def llava_script(review: str) -> list[float]:
    """The rule of llava/eval/eval_gpt_review_visual.py, written apart from the parser: the oracle."""
    first = review.split("\n")[0].replace(",", " ").split(" ")
    try:
        return [float(p) for p in first] if len(first) == 2 else [-1, -1]
    except ValueError:
        return [-1, -1]


@pytest.mark.parametrize("reply", [r[0] for r in REPLIES if r[0] != "nan nan"])
def test_llava_mode_equals_the_published_rule(reply: str) -> None:
    assert list(parse_scores(reply) or ()) == llava_script(reply)


@pytest.mark.parametrize("reply", [r[0] for r in REPLIES])
def test_what_llava_reads_on_the_scale_the_robust_parser_reads_alike(reply: str) -> None:
    read = on_scale(parse_scores(reply, "llava"))
    if read is not None:
        assert parse_scores(reply, "robust") == read


def test_the_scale_refuses_what_is_no_score() -> None:
    for scores in (None, FAILED, (float("nan"), 5.0), (float("inf"), 5.0), (5.0, 10.5)):
        assert on_scale(scores) is None
    assert on_scale((0.0, 10.0)) == (0.0, 10.0)


def test_another_mode_is_an_error() -> None:
    with pytest.raises(UserError, match=r"unknown mode 'strict'.*llava, robust"):
        parse_scores("8 7", mode="strict")


@pytest.mark.parametrize("text", ["9" * 100_000, "8 " * 50_000, "Assistant 1: " * 20_000])
def test_a_very_long_reply_is_read_in_reasonable_time(text: str) -> None:
    assert parse_scores(text, "robust") is None
