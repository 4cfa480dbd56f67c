"""A judge behind a real server process that also fails in every way a server can."""

from datetime import UTC, datetime
from itertools import pairwise

import pytest

from mpm_eval.endpoint import Patience, retry_after_s
from mpm_eval.errors import UserError
from mpm_eval.judging.budget import Budget, Limits
from mpm_eval.judging.judges import open_judge
from mpm_eval.judging.openai import OpenAIJudge, open_openai
from mpm_eval.judging.protocol import JudgeStopped, Reply
from tests.judging.conftest import KEY, StartServer, requests

pytestmark = pytest.mark.slow  # the server waits, hangs and trickles

QUICK = Patience(timeout_s=0.3, tries=3, concurrency=1, first_backoff_s=0.01)


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MPM_EVAL_JUDGE_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def ask(spec: str, number: int = 1, patience: Patience = QUICK) -> list[Reply]:
    judge = open_judge(spec, patience)
    return [reply for _, reply in judge.answers(requests(number))]


def test_a_reply_comes_with_its_tokens_and_the_model_that_answered(
    start_server: StartServer,
) -> None:
    (reply,) = ask(start_server().spec)
    assert reply.text.endswith("\nBecause.") and not reply.error
    assert (reply.answered_by, reply.num_prompt_tokens, reply.num_reply_tokens) == (
        "tiny-0314", 100, 10,
    )  # fmt: skip


@pytest.mark.parametrize(
    "rule", ["500", "hang", "trickle", "garbage", "wrong-json", "json-list", "half", "reset"]
)
def test_a_passing_failure_is_tried_again(rule: str, start_server: StartServer) -> None:
    server = start_server(rule, "ok")
    (reply,) = ask(server.spec)
    assert reply.error == "" and reply.text
    assert server.asked() == [rule, "ok"]


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("500", "HTTP 500: internal error (3 tries)"),
        ("hang", "no reply in 0.3 s (3 tries)"),
        ("trickle", "the reply did not end in time (3 tries)"),
        ("garbage", "the reply is not JSON, or half of it (3 tries)"),
        ("wrong-json", "the reply has no choices[0].message (3 tries)"),
        ("json-list", "the reply has no choices[0].message (3 tries)"),
        ("half", "broken reply: peer closed connection"),
        ("reset", "broken reply: Server disconnected"),
        ("400", "HTTP 400: max_tokens is too large"),
        ("redirect", "HTTP 302"),
        ("refusal", "refused: I cannot help with that."),
        ("filtered", "refused: content filter"),
        ("empty", "empty reply"),
    ],
)
def test_a_lasting_failure_is_a_failed_reply_with_its_reason(
    rule: str, reason: str, start_server: StartServer
) -> None:
    (reply,) = ask(start_server(rule).spec)
    assert reply.error.startswith(reason)


def test_a_request_that_a_server_refuses_for_good_is_not_tried_again(
    start_server: StartServer,
) -> None:
    server = start_server("400")
    ask(server.spec, 2)
    assert server.asked() == ["400", "400"]


def test_retry_after_is_waited_for(start_server: StartServer) -> None:
    waits: list[float] = []
    server = start_server("429", "ok")
    judge = open_judge(server.spec, QUICK)
    assert isinstance(judge, OpenAIJudge)

    class Recorder:
        def wait(self, seconds: float) -> bool:
            waits.append(seconds)
            return False

        def is_set(self) -> bool:
            return False

        set = clear = lambda self: None

    judge._stop = Recorder()  # type: ignore[assignment]
    ((_, reply),) = judge.answers(requests(1))
    assert not reply.error and server.asked() == ["429", "ok"]
    assert waits == [1.0]  # the header's second, not the back-off of at most 0.01


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("1.5", 1.5),
        ("Fri, 31 Jul 2026 12:00:30 GMT", 30.0),
        ("Fri, 31 Jul 2026 11:00:00 GMT", 0.0),
        ("", 0.0),
        ("soon", 0.0),
        ("-3", 0.0),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(header: str, seconds: float) -> None:
    now = datetime(2026, 7, 31, 12, 0, 0, tzinfo=UTC)
    assert retry_after_s(header, lambda: now) == seconds


def test_back_off_is_random_below_a_doubling_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    ceilings: list[float] = []
    monkeypatch.setattr("random.uniform", lambda low, high: ceilings.append(high) or 0.0)
    patience = Patience(timeout_s=0.5, tries=8, concurrency=1, first_backoff_s=1.0)
    ask("openai:http://127.0.0.1:9/v1#tiny", 1, patience)
    assert ceilings == [1, 2, 4, 8, 16, 30, 30]
    assert all(a <= b for a, b in pairwise(ceilings))


def test_a_dead_server_stops_the_rest(own_server: StartServer) -> None:
    server = own_server()
    server.kill()
    judge = open_judge(server.spec, QUICK)
    found = []
    with pytest.raises(JudgeStopped, match=r"cannot be reached \(no connection"):
        for _, reply in judge.answers(requests(20)):
            found.append(reply.error)
    assert len(found) == 2  # the third in a row stops
    assert all(error.startswith("no connection") for error in found)


@pytest.mark.parametrize(("rule", "status"), [("echo-401", 401), ("404", 404)])
def test_what_no_request_can_mend_stops_at_once(
    rule: str, status: int, start_server: StartServer
) -> None:
    server = start_server(rule)
    with pytest.raises(JudgeStopped, match=f"HTTP {status}"):
        ask(server.spec, 5)
    assert len(server.asked()) == 1


@pytest.mark.parametrize("name", ["MPM_EVAL_JUDGE_KEY", "OPENAI_API_KEY"])
@pytest.mark.parametrize("rule", ["echo-400", "echo-reply", "echo-401"])
def test_a_key_that_a_server_sends_back_is_not_kept(
    name: str, rule: str, start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, KEY)
    kept = ""
    try:
        (reply,) = ask(start_server(rule).spec)
        kept = repr(reply)
    except JudgeStopped as error:
        kept = str(error)
    assert KEY not in kept and KEY[3:] not in kept
    assert "[key]" in kept or "refuses the key" in kept


@pytest.mark.slow
def test_many_requests_at_a_time_all_come_back_once(start_server: StartServer) -> None:
    server = start_server("500", "hang", "garbage", "half", "429", "ok")
    patience = Patience(timeout_s=0.5, tries=4, concurrency=8, first_backoff_s=0.01)
    judge = open_judge(server.spec, patience)
    asked = requests(40)
    found = list(judge.answers(asked))
    assert sorted(r.sha256 for r, _ in found) == sorted(r.sha256 for r in asked)
    assert all(not reply.error for _, reply in found)


def test_the_request_cap_counts_every_try(start_server: StartServer) -> None:
    server = start_server("500", "500", "ok")
    judge = open_judge(server.spec, QUICK, Budget(Limits(requests=4)))
    with pytest.raises(JudgeStopped, match=r"--max-requests 4"):
        list(judge.answers(requests(9)))
    assert len(server.asked()) == 4


def test_what_was_on_its_way_when_a_budget_ends_is_not_lost(start_server: StartServer) -> None:
    server = start_server("slow")
    patience = Patience(timeout_s=5, tries=1, concurrency=3)
    judge = open_judge(server.spec, patience, Budget(Limits(requests=4)))
    found = []
    with pytest.raises(JudgeStopped):
        for _, reply in judge.answers(requests(9)):
            found.append(reply)
    assert len(found) == len(server.asked()) == 4


def test_a_cost_cap_is_never_exceeded(start_server: StartServer) -> None:
    limits = Limits(usd=0.01, usd_per_million_in=10.0, usd_per_million_out=1.0)
    budget = Budget(limits)
    judge = open_judge(start_server().spec, Patience(concurrency=4), budget)
    with pytest.raises(JudgeStopped, match=r"--max-cost 0.01"):
        list(judge.answers(requests(60)))
    # 100 tokens in and 10 out a reply cost 0.00101 dollars
    assert budget.num_requests > 0 and budget.usd <= 0.01
    assert budget.usd == pytest.approx(budget.num_requests * 0.00101)


def test_a_token_cap_counts_a_lost_reply_at_its_worst(start_server: StartServer) -> None:
    budget = Budget(Limits(tokens=20_000))
    judge = open_judge(start_server("half", "ok").spec, QUICK, budget)
    list(judge.answers(requests(1)))
    request = requests(1)[0]
    worst = len(request.system.encode()) + len(request.prompt.encode()) + 64
    assert (budget.tokens_in, budget.tokens_out) == (worst + 100, 1024 + 10)


@pytest.mark.parametrize(
    "argument",
    [
        "",
        "http://localhost:8000/v1",
        "http://localhost:8000/v1#",
        "localhost:8000#m",
        "ftp://localhost#m",
        "http://localhost:port/v1#m",
        "#m",
    ],
)
def test_an_incomplete_spec_says_how_it_is_written(argument: str) -> None:
    with pytest.raises(UserError, match=r"write openai:BASE_URL#MODEL"):
        open_openai(argument, QUICK, Budget())


@pytest.mark.parametrize(
    "url",
    ["http://user:hunter2@host/v1#m", "http://hunter2@host/v1#m", "http://h/v1?key=hunter2#m"],
)
def test_a_secret_in_the_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(UserError, match=r"set the key in the environment") as caught:
        open_openai(url, QUICK, Budget())
    assert "hunter2" not in str(caught.value)


def test_another_judge_is_an_error_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"unknown judge 'openia'; did you mean 'openai'"):
        open_judge("openia:http://localhost#m")
    with pytest.raises(UserError, match=r"unknown judge 'embedded:other'"):
        open_judge("embedded:other")
