"""A judge behind any OpenAI-compatible endpoint: concurrent, patient, within a budget.

Nothing a server sends is trusted: replies have a deadline and a largest size, and the key is
taken out of every text that is kept or shown.
"""

import json
import os
import queue
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mpm_eval.errors import UserError
from mpm_eval.judging.budget import Budget
from mpm_eval.judging.protocol import JudgeRequest, JudgeStopped, Reply

if TYPE_CHECKING:
    import httpx

KEYS = ("MPM_EVAL_JUDGE_KEY", "OPENAI_API_KEY")

_RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})
_HOPELESS = {
    401: f"refuses the key; set {KEYS[0]} or {KEYS[1]}",
    403: f"refuses the key; set {KEYS[0]} or {KEYS[1]}",
    404: "has no such path or model; check --judge",
}
_MAX_REPLY_BYTES = 4_000_000
_MAX_ERROR = 200  # characters of a server's message that are kept
_LONGEST_BACKOFF_S, _LONGEST_WAIT_S = 30.0, 120.0
_DEAD_AFTER = 3  # requests in a row that never got a connection


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a judge is waited for."""

    timeout_s: float = 120.0  # for one whole reply
    tries: int = 6
    concurrency: int = 4
    first_backoff_s: float = 1.0  # doubles with every try; the wait is random below it


@dataclass(eq=False)  # not frozen: context managers write an exception's traceback
class _Failure(Exception):
    """One try that failed: may another one help, and after how many seconds at the earliest?"""

    reason: str
    retry: bool = True
    wait_s: float = 0.0
    unreachable: bool = False
    charged: bool = False  # the server may have done, and may bill, the work


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
        self._url = f"{base_url}/chat/completions"
        self._patience = patience or Patience()
        self._budget = budget or Budget()
        self._key = next((key for name in KEYS if (key := os.environ.get(name, "").strip())), "")
        self._stop = threading.Event()
        self._unreachable = 0  # requests in a row
        self._lock = threading.Lock()

    def answers(self, requests: Sequence[JudgeRequest]) -> Iterator[tuple[JudgeRequest, Reply]]:
        """Yield replies as they come; see `Judge`. Failed requests come as replies with an error.

        Raises JudgeStopped for a server that cannot be reached, one that refuses the key or does
        not know the model, and when the budget would be exceeded.
        """
        import httpx

        todo: queue.SimpleQueue[JudgeRequest] = queue.SimpleQueue()
        done: queue.SimpleQueue[tuple[JudgeRequest, Reply] | BaseException] = queue.SimpleQueue()
        for request in requests:
            todo.put(request)
        self._stop.clear()
        self._unreachable = 0
        patience = self._patience
        limits = httpx.Timeout(patience.timeout_s, connect=min(10.0, patience.timeout_s), pool=None)
        client = httpx.Client(timeout=limits, headers=self._headers())

        def work() -> None:
            while not self._stop.is_set():
                try:
                    request = todo.get_nowait()
                except queue.Empty:
                    return
                try:
                    done.put((request, self._ask(client, request)))
                except BaseException as error:
                    done.put(error)
                    return

        # daemons: Ctrl-C must not wait for a server that hangs
        workers = [
            threading.Thread(target=work, daemon=True)
            for _ in range(min(patience.concurrency, len(requests)))
        ]
        for worker in workers:
            worker.start()
        try:
            for _ in requests:
                found = done.get()
                if isinstance(found, BaseException):
                    self._stop.set()
                    for worker in workers:
                        worker.join()
                    yield from _finished(done)
                    raise found
                yield found
        finally:
            self._stop.set()
            client.close()

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key}"} if self._key else {}

    def _ask(self, client: "httpx.Client", request: JudgeRequest) -> Reply:
        """Return the reply, or a failed one when every try failed."""
        number, failure = 0, _Failure("not asked")
        unreachable = True
        for number in range(self._patience.tries):
            if number:
                ceiling = min(
                    _LONGEST_BACKOFF_S, self._patience.first_backoff_s * 2 ** (number - 1)
                )
                # full jitter: many waiting clients must not come back at the same moment
                wait_s = max(failure.wait_s, random.uniform(0, ceiling))
                if self._stop.wait(min(wait_s, _LONGEST_WAIT_S)):
                    raise JudgeStopped("stopped")
            try:
                reply = self._try(client, request)
            except _Failure as found:
                failure = found
                unreachable = unreachable and found.unreachable
                if not found.retry:
                    break
            else:
                self._reached(True)
                return reply
        self._reached(not unreachable, failure.reason)
        tries = f" ({number + 1} tries)" if number else ""
        return Reply(error=f"{failure.reason}{tries}")

    def _reached(self, reached: bool, reason: str = "") -> None:
        with self._lock:
            self._unreachable = 0 if reached else self._unreachable + 1
            if self._unreachable >= _DEAD_AFTER:
                raise JudgeStopped(
                    f"{self.settings['base_url']}: cannot be reached ({reason}); start the server "
                    "and run the same command to continue"
                )

    def _try(self, client: "httpx.Client", request: JudgeRequest) -> Reply:
        ticket = self._budget.reserve(request)
        try:
            body = self._post(client, request)
            reply = self._read(body)
        except _Failure as failure:
            self._budget.settle(ticket, used=None if failure.charged else (0, 0))
            raise
        known = bool(reply.num_prompt_tokens)
        used = (reply.num_prompt_tokens, reply.num_reply_tokens) if known else None
        self._budget.settle(ticket, used)
        return reply

    def _post(self, client: "httpx.Client", request: JudgeRequest) -> Any:
        """Return the JSON that the server answers; raises _Failure for everything else."""
        import httpx

        content = {
            "model": self._model,
            "messages": [
                {"role": "system", "content": request.system},
                {"role": "user", "content": request.prompt},
            ],
            "temperature": request.temperature,
            "max_tokens": request.max_reply_tokens,
        }
        deadline = time.monotonic() + self._patience.timeout_s
        try:
            with client.stream("POST", self._url, json=content) as response:
                body = _body(response, deadline)
                if response.status_code != 200:
                    raise self._refused(response, body)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise _Failure(self._clean(f"no connection: {error}"), unreachable=True) from None
        except httpx.TimeoutException:
            raise _Failure(f"no reply in {self._patience.timeout_s:g} s", charged=True) from None
        except httpx.HTTPError as error:
            raise _Failure(self._clean(f"broken reply: {error}"), charged=True) from None
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            raise _Failure("the reply is not JSON, or half of it", charged=True) from None

    def _refused(self, response: "httpx.Response", body: bytes) -> Exception:
        status = response.status_code
        if status in _HOPELESS:
            # their bodies may hold a part of the key
            return JudgeStopped(f"{self.settings['base_url']}: HTTP {status}: {_HOPELESS[status]}")
        message = self._clean(_message(body))
        reason = f"HTTP {status}" + (f": {message}" if message else "")
        wait_s = retry_after_s(response.headers.get("retry-after", ""))
        return _Failure(reason, retry=status in _RETRIED, wait_s=wait_s)

    def _read(self, body: Any) -> Reply:
        try:
            choice = body["choices"][0]
            message = choice["message"]
            text, refusal = message.get("content"), message.get("refusal")
        except (KeyError, IndexError, TypeError, AttributeError):
            raise _Failure("the reply has no choices[0].message", charged=True) from None
        usage = body.get("usage")
        counts = usage if isinstance(usage, dict) else {}
        reply = Reply(
            text=self._clean(text, None) if isinstance(text, str) else "",
            answered_by=self._clean(str(body.get("model") or "")),
            num_prompt_tokens=_count(counts.get("prompt_tokens")),
            num_reply_tokens=_count(counts.get("completion_tokens")),
        )
        error = ""
        if refusal or choice.get("finish_reason") == "content_filter":
            error = f"refused: {self._clean(str(refusal or 'content filter'))}"
        elif not reply.text.strip():
            error = "empty reply"
        return Reply(
            reply.text, error, reply.answered_by, reply.num_prompt_tokens, reply.num_reply_tokens
        )

    def _clean(self, text: str, longest: int | None = _MAX_ERROR) -> str:
        """Return a server's text without the key; on one line and cut where `longest` is given."""
        if self._key:
            text = text.replace(self._key, "[key]")
        text = re.sub(r"(?i)\bbearer\s+\S+", "Bearer [key]", text) if longest else text
        # half of a surrogate pair is legal in JSON, but no text
        text = text.encode("utf-8", "replace").decode("utf-8")
        return " ".join(text.split())[:longest] if longest else text


def open_openai(argument: str, patience: Patience, budget: Budget) -> OpenAIJudge:
    """Return the judge of "BASE_URL#MODEL".

    Raises UserError, which repeats no part of the URL that may hold a secret, for a URL with a
    user, a password or a query, and for anything that is no URL or names no model.
    """
    url, _, model = argument.partition("#")
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises for a port that is no number
    except ValueError:
        parts = urlsplit("")
    if parts.username or parts.password or parts.query:
        raise UserError(
            "--judge openai: the URL holds a user, a password or a query; leave it out and set the "
            f"key in the environment: {KEYS[0]} or {KEYS[1]}"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or not model.strip():
        raise UserError(
            "--judge openai: write openai:BASE_URL#MODEL, e.g. "
            "openai:http://localhost:8000/v1#my-model"
        )
    return OpenAIJudge(url.rstrip("/"), model.strip(), patience, budget)


def retry_after_s(header: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> float:
    """Return the seconds that a Retry-After header asks for (a number or a date), else 0."""
    if re.fullmatch(r"\s*\d+(\.\d+)?\s*", header):
        return float(header)
    try:
        when = parsedate_to_datetime(header)
    except ValueError:
        return 0.0
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - now()).total_seconds())


def _finished(done: "queue.SimpleQueue[Any]") -> Iterator[tuple[JudgeRequest, Reply]]:
    """Yield what was on its way when judging stopped: it is paid for."""
    while True:
        try:
            found = done.get_nowait()
        except queue.Empty:
            return
        if not isinstance(found, BaseException):
            yield found


def _body(response: "httpx.Response", deadline: float) -> bytes:
    """Return the body; a server that sends a byte now and then is not waited for for ever."""
    body = bytearray()
    for part in response.iter_bytes():
        body += part
        if time.monotonic() > deadline:
            raise _Failure("the reply did not end in time", charged=True)
        if len(body) > _MAX_REPLY_BYTES:
            raise _Failure(f"the reply is over {_MAX_REPLY_BYTES} bytes", charged=True)
    return bytes(body)


def _message(body: bytes) -> str:
    try:
        error = json.loads(body).get("error")
        return str(error.get("message") if isinstance(error, dict) else error or "")
    except (ValueError, AttributeError, RecursionError):
        return body.decode("utf-8", "replace")


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
