"""A patient client of one OpenAI-compatible chat endpoint, careful with its key.

Nothing a server sends is trusted: replies have a deadline and a largest size, and the key is taken
out of every text that is kept or shown. Models and judges are both asked through it.
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
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from mpm_eval.errors import UserError

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
R = TypeVar("R")

REFUSED_KEY = frozenset({401, 403})
NOT_FOUND = 404
_RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})
_MAX_REPLY_BYTES = 4_000_000
_MAX_ERROR = 200  # characters of a server's message that are kept
_LONGEST_BACKOFF_S, _LONGEST_WAIT_S = 30.0, 120.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a server is waited for."""

    timeout_s: float = 120.0  # for one whole reply
    tries: int = 6
    concurrency: int = 4
    first_backoff_s: float = 1.0  # doubles with every try; the wait is random below it


@dataclass(eq=False)  # not frozen: context managers write an exception's traceback
class FailedTry(Exception):
    """One try that failed: may another one help, and after how many seconds at the earliest?"""

    reason: str
    retry: bool = True
    wait_s: float = 0.0
    unreachable: bool = False  # no connection
    charged: bool = False  # the server may have done, and may bill, the work
    status: int = 0  # HTTP status of a refusal


@dataclass(eq=False)
class GaveUp(Exception):
    """No further try is left or makes sense."""

    last: FailedTry
    num_tries: int
    unreachable: bool  # in every try
    stopped: bool = False  # given up because everything stops

    @property
    def tries(self) -> str:
        return f" ({self.num_tries} tries)" if self.num_tries > 1 else ""


class Endpoint:
    """BASE_URL/chat/completions; the key comes from the environment alone."""

    def __init__(self, base_url: str, keys: Sequence[str], patience: Patience):
        self.base_url, self.patience = base_url, patience
        self._keys = " or ".join(keys)
        self._key = next((key for name in keys if (key := os.environ.get(name, "").strip())), "")

    def connect(self) -> "httpx.Client":
        """Return a client that threads may share; it is the caller's to close."""
        import httpx

        timeout_s = self.patience.timeout_s
        return httpx.Client(
            timeout=httpx.Timeout(timeout_s, connect=min(10.0, timeout_s), pool=None),
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
        )

    def post(self, client: "httpx.Client", chat: Mapping[str, Any]) -> Any:
        """Return the JSON that the server answers; raises FailedTry for everything else."""
        import httpx

        deadline = time.monotonic() + self.patience.timeout_s
        try:
            with client.stream("POST", f"{self.base_url}/chat/completions", json=chat) as response:
                body = _body(response, deadline)
                if response.status_code != 200:
                    raise self._refused(response, body)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise FailedTry(self.clean(str(error)), unreachable=True) from None
        except httpx.TimeoutException:
            raise FailedTry(f"no reply in {self.patience.timeout_s:g} s", charged=True) from None
        except httpx.HTTPError as error:
            raise FailedTry(self.clean(f"broken reply: {error}"), charged=True) from None
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            raise FailedTry("the reply is not JSON, or half of it", charged=True) from None

    def _refused(self, response: "httpx.Response", body: bytes) -> FailedTry:
        status = response.status_code
        if status in REFUSED_KEY:
            # their bodies may hold a part of the key
            reason = f"HTTP {status}: refuses the key; set {self._keys}"
            return FailedTry(reason, retry=False, status=status)
        message = self.clean(_message(body))
        return FailedTry(
            f"HTTP {status}" + (f": {message}" if message else ""),
            retry=status in _RETRIED,
            wait_s=retry_after_s(response.headers.get("retry-after", "")),
            status=status,
        )

    def persist(self, attempt: Callable[[], T], stop: threading.Event) -> T:
        """Return what `attempt` returns, tried again with growing waits when it raises FailedTry.

        Raises GaveUp when no further try is left or makes sense, and once `stop` is set.
        """
        number, last, unreachable = 0, FailedTry("not asked"), True
        for number in range(self.patience.tries):
            if number:
                ceiling = min(_LONGEST_BACKOFF_S, self.patience.first_backoff_s * 2 ** (number - 1))
                # full jitter: many waiting clients must not come back at the same moment
                wait_s = max(last.wait_s, random.uniform(0, ceiling))
                if stop.wait(min(wait_s, _LONGEST_WAIT_S)):
                    raise GaveUp(last, number, unreachable, stopped=True)
            try:
                return attempt()
            except FailedTry as found:
                last, unreachable = found, unreachable and found.unreachable
                if not found.retry:
                    break
        raise GaveUp(last, number + 1, unreachable)

    def clean(self, text: str) -> str:
        """Return a server's message on one line, without the key and not too long."""
        text = re.sub(r"(?i)\bbearer\s+\S+", "Bearer [key]", self.without_key(text))
        return " ".join(text.split())[:_MAX_ERROR]

    def without_key(self, text: str) -> str:
        """Return a server's text without the key, as it can be written."""
        text = text.replace(self._key, "[key]") if self._key else text
        # half of a surrogate pair is legal in JSON, but no text
        return text.encode("utf-8", "replace").decode("utf-8")

    def refusal(self, message: Mapping[str, Any], finish_reason: Any) -> str:
        """Return why a message holds no answer on purpose; "" where it is none."""
        refusal = message.get("refusal")
        if refusal or finish_reason == "content_filter":
            return f"refused: {self.clean(str(refusal or 'content filter'))}"
        return ""


def concurrently(
    items: Sequence[T],
    ask: Callable[[T], R],
    concurrency: int,
    stop: threading.Event,
    *,
    keep_finished: bool,
) -> Iterator[tuple[T, R]]:
    """Yield (item, what `ask` returns) as they come, in any order; `stop` is set at the end.

    An exception of `ask` is raised; with `keep_finished` what is on its way is yielded before.
    """
    todo: queue.SimpleQueue[T] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[T, R] | BaseException] = queue.SimpleQueue()
    for item in items:
        todo.put(item)

    # daemons: Ctrl-C must not wait for a server that hangs
    workers = [
        threading.Thread(target=_work, args=(todo, done, ask, stop), daemon=True)
        for _ in range(min(concurrency, len(items)))
    ]
    for worker in workers:
        worker.start()
    try:
        for _ in items:
            found = done.get()
            if isinstance(found, BaseException):
                stop.set()
                if keep_finished:
                    for worker in workers:
                        worker.join()
                    yield from _finished(done)
                raise found
            yield found
    finally:
        stop.set()


def _work(
    todo: "queue.SimpleQueue[T]",
    done: "queue.SimpleQueue[tuple[T, R] | BaseException]",
    ask: Callable[[T], R],
    stop: threading.Event,
) -> None:
    while not stop.is_set():
        try:
            item = todo.get_nowait()
        except queue.Empty:
            return
        try:
            done.put((item, ask(item)))
        except BaseException as error:
            done.put(error)
            return


def _finished(done: "queue.SimpleQueue[tuple[T, R] | BaseException]") -> Iterator[tuple[T, R]]:
    while True:
        try:
            found = done.get_nowait()
        except queue.Empty:
            return
        if not isinstance(found, BaseException):
            yield found


def message_of(body: Any) -> tuple[Mapping[str, Any], Any]:
    """Return (first choice's message, its finish_reason); raises FailedTry where there is none."""
    try:
        choice = body["choices"][0]
        message, finish_reason = choice["message"], choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError):
        message, finish_reason = None, None
    if not isinstance(message, Mapping):
        raise FailedTry("the reply has no choices[0].message", charged=True)
    return message, finish_reason


def split_url(argument: str, where: str, key: str) -> tuple[str, str]:
    """Return (base URL, model) of "BASE_URL#MODEL".

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
            f"{where}: the URL holds a user, a password or a query; leave it out and set the key "
            f"in the environment: {key}"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or not model.strip():
        raise UserError(
            f"{where}: write openai:BASE_URL#MODEL, e.g. openai:http://localhost:8000/v1#my-model"
        )
    return url.rstrip("/"), model.strip()


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


def _body(response: "httpx.Response", deadline: float) -> bytes:
    """Return the body; a server that sends a byte now and then is not waited for for ever."""
    body = bytearray()
    for part in response.iter_bytes():
        body += part
        if time.monotonic() > deadline:
            raise FailedTry("the reply did not end in time", charged=True)
        if len(body) > _MAX_REPLY_BYTES:
            raise FailedTry(f"the reply is over {_MAX_REPLY_BYTES} bytes", charged=True)
    return bytes(body)


def _message(body: bytes) -> str:
    try:
        error = json.loads(body).get("error")
        return str(error.get("message") if isinstance(error, dict) else error or "")
    except (ValueError, AttributeError, RecursionError):
        return body.decode("utf-8", "replace")
