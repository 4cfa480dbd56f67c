"""A judge behind any OpenAI-compatible endpoint: concurrent, patient, within a budget."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mpm_eval.endpoint import (
    NOT_FOUND,
    REFUSED_KEY,
    Endpoint,
    FailedTry,
    GaveUp,
    Patience,
    concurrently,
    message_of,
    split_url,
)
from mpm_eval.judging.budget import Budget
from mpm_eval.judging.protocol import JudgeRequest, JudgeStopped, Reply

if TYPE_CHECKING:
    import httpx

KEYS = ("MPM_EVAL_JUDGE_KEY", "OPENAI_API_KEY")

_DEAD_AFTER = 3  # requests in a row that never got a connection


class OpenAIJudge:
    """Asks BASE_URL/chat/completions; the key comes from the environment alone."""

    settings: Mapping[str, Any]

    def __init__(
        self,
        base_url: str,
        model: str,
        patience: Patience | None = None,
        budget: Budget | None = None,
    ) -> None:
        self.name = f"openai:{model}"
        self.settings = {"base_url": base_url}
        self._model = model
        self._endpoint = Endpoint(base_url, KEYS, patience or Patience())
        self._budget = budget or Budget()
        self._stop = threading.Event()
        self._unreachable = 0  # requests in a row
        self._lock = threading.Lock()

    def answers(self, requests: Sequence[JudgeRequest]) -> Iterator[tuple[JudgeRequest, Reply]]:
        """Yield replies as they come; see `Judge`. Failed requests come as replies with an error.

        Raises JudgeStopped for a server that cannot be reached, one that refuses the key or does
        not know the model, and when the budget would be exceeded.
        """
        self._stop.clear()
        self._unreachable = 0
        with self._endpoint.connect() as client:
            yield from concurrently(
                requests,
                lambda request: self._ask(client, request),
                self._endpoint.patience.concurrency,
                self._stop,
                keep_finished=True,  # it is paid for
            )

    def _ask(self, client: "httpx.Client", request: JudgeRequest) -> Reply:
        """Return the reply, or a failed one when every try failed."""
        try:
            reply = self._endpoint.persist(lambda: self._try(client, request), self._stop)
        except GaveUp as given_up:
            return self._failed(given_up)
        self._reached(True)
        return reply

    def _failed(self, given_up: GaveUp) -> Reply:
        """Return the failed reply; raises JudgeStopped where no other request can do better."""
        last = given_up.last
        if given_up.stopped:
            raise JudgeStopped("stopped")
        if last.status in REFUSED_KEY:
            raise JudgeStopped(f"{self._endpoint.base_url}: {last.reason}")
        if last.status == NOT_FOUND:
            raise JudgeStopped(
                f"{self._endpoint.base_url}: HTTP {NOT_FOUND}: has no such path or model; "
                "check --judge"
            )
        reason = f"no connection: {last.reason}" if last.unreachable else last.reason
        self._reached(not given_up.unreachable, reason)
        return Reply(error=f"{reason}{given_up.tries}")

    def _reached(self, reached: bool, reason: str = "") -> None:
        with self._lock:
            self._unreachable = 0 if reached else self._unreachable + 1
            if self._unreachable >= _DEAD_AFTER:
                raise JudgeStopped(
                    f"{self._endpoint.base_url}: cannot be reached ({reason}); start the server "
                    "and run the same command to continue"
                )

    def _try(self, client: "httpx.Client", request: JudgeRequest) -> Reply:
        ticket = self._budget.reserve(request)
        content = {
            "model": self._model,
            "messages": [
                {"role": "system", "content": request.system},
                {"role": "user", "content": request.prompt},
            ],
            "temperature": request.temperature,
            "max_tokens": request.max_reply_tokens,
        }
        try:
            reply = self._read(self._endpoint.post(client, content))
        except FailedTry as failed:
            self._budget.settle(ticket, used=None if failed.charged else (0, 0))
            raise
        known = bool(reply.num_prompt_tokens)
        used = (reply.num_prompt_tokens, reply.num_reply_tokens) if known else None
        self._budget.settle(ticket, used)
        return reply

    def _read(self, body: Any) -> Reply:
        message, finish_reason = message_of(body)
        text, usage = message.get("content"), body.get("usage")
        counts = usage if isinstance(usage, dict) else {}
        kept = self._endpoint.without_key(text) if isinstance(text, str) else ""
        return Reply(
            text=kept,
            error=self._endpoint.refusal(message, finish_reason)
            or ("" if kept.strip() else "empty reply"),
            answered_by=self._endpoint.clean(str(body.get("model") or "")),
            num_prompt_tokens=_count(counts.get("prompt_tokens")),
            num_reply_tokens=_count(counts.get("completion_tokens")),
        )


def open_openai(argument: str, patience: Patience, budget: Budget) -> OpenAIJudge:
    """Return the judge of "BASE_URL#MODEL".

    Raises UserError for a URL that is none, names no model, or holds a secret.
    """
    return OpenAIJudge(*split_url(argument, "--judge openai", " or ".join(KEYS)), patience, budget)


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
