"""A client of any OpenAI-compatible chat endpoint: concurrent, patient, and careful with its key.

Nothing a server sends is trusted: replies have a deadline and a largest size, and the key is taken
out of every text that is kept or shown.
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

if TYPE_CHECKING:
    import httpx

_RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})
_BUSY = frozenset({429, 502, 503, 504, 520, 522, 524, 529})  # about the server, not the request
_MAX_REPLY_BYTES = 4_000_000
_MAX_ERROR = 200  # characters of a server's message that are kept
_LONGEST_BACKOFF_S, _LONGEST_WAIT_S = 30.0, 120.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a server is waited for."""

    timeout_s: float = 120.0  # for one whole reply
    tries: int = 6
    concurrency: int = 8
    first_backoff_s: float = 1.0  # doubles with every try; the wait is random below it


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server answered: a text, which may be empty, or why there is none."""

    text: str = ""
    error: str = ""
    answered_by: str = ""  # the model that the server says it used


@dataclass(eq=False)  # not frozen: context managers write an exception's traceback
class _Failed(Exception):
    """One try that failed: may another one help, and after how many seconds at the earliest?"""

    reason: str
    retry: bool = True
    wait_s: float = 0.0
    down: bool = False  # the server's trouble: no request would get through


class Endpoint:
    """Posts chats to BASE_URL/chat/completions; the key comes from the environment alone."""

    def __init__(self, base_url: str, keys: Sequence[str], patience: Patience | None = None):
        self.base_url = base_url
        self._keys = " or ".join(keys)
        self._key = next((key for name in keys if (key := os.environ.get(name, "").strip())), "")
        self._patience = patience or Patience()
        self._client: httpx.Client | None = None

    def replies(self, chats: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, Reply]]:
        """Yield (index of the chat, reply) as they come; a chat that fails has an error.

        Raises UserError for a server that stays down, refuses the key or does not know the model.
        """
        todo: queue.SimpleQueue[int] = queue.SimpleQueue()
        done: queue.SimpleQueue[tuple[int, Reply] | BaseException] = queue.SimpleQueue()
        for index in range(len(chats)):
            todo.put(index)
        stop = threading.Event()
        client = self._connect()

        def work() -> None:
            while not stop.is_set():
                try:
                    index = todo.get_nowait()
                except queue.Empty:
                    return
                try:
                    done.put((index, self._ask(client, chats[index], stop)))
                except BaseException as error:
                    done.put(error)
                    return

        # daemons: Ctrl-C must not wait for a server that hangs
        for _ in range(min(self._patience.concurrency, len(chats))):
            threading.Thread(target=work, daemon=True).start()
        try:
            for _ in chats:
                found = done.get()
                if isinstance(found, BaseException):
                    raise found
                yield found
        finally:
            stop.set()

    def _connect(self) -> "httpx.Client":
        import httpx

        if self._client is None:
            timeout_s = self._patience.timeout_s
            self._client = httpx.Client(
                timeout=httpx.Timeout(timeout_s, connect=min(10.0, timeout_s), pool=None),
                headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            )
        return self._client

    def _ask(self, client: "httpx.Client", chat: Mapping[str, Any], stop: threading.Event) -> Reply:
        """Return the reply, or a failed one when every try failed."""
        patience = self._patience
        number, failed = 0, _Failed("not asked")
        for number in range(patience.tries):
            if number:
                ceiling = min(_LONGEST_BACKOFF_S, patience.first_backoff_s * 2 ** (number - 1))
                # full jitter: many waiting clients must not come back at the same moment
                wait_s = max(failed.wait_s, random.uniform(0, ceiling))
                if stop.wait(min(wait_s, _LONGEST_WAIT_S)):
                    break
            try:
                return self._read(self._post(client, chat))
            except _Failed as found:
                failed = found
                if not failed.retry:
                    break
        tries = f" ({number + 1} tries)" if number else ""
        if failed.down:
            raise UserError(
                f"{self.base_url}: {failed.reason}{tries}; what is answered is kept: start the "
                "server and run the same command to continue"
            )
        return Reply(error=f"{failed.reason}{tries}")

    def _post(self, client: "httpx.Client", chat: Mapping[str, Any]) -> Any:
        """Return the JSON that the server answers; raises _Failed for everything else."""
        import httpx

        deadline = time.monotonic() + self._patience.timeout_s
        try:
            with client.stream("POST", f"{self.base_url}/chat/completions", json=chat) as response:
                body = _body(response, deadline)
                if response.status_code != 200:
                    raise self._refused(response, body)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise _Failed(self._clean(f"cannot be reached: {error}"), down=True) from None
        except httpx.TimeoutException:
            raise _Failed(f"no reply in {self._patience.timeout_s:g} s") from None
        except httpx.HTTPError as error:
            raise _Failed(self._clean(f"broken reply: {error}")) from None
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            raise _Failed("the reply is not JSON, or half of it") from None

    def _refused(self, response: "httpx.Response", body: bytes) -> Exception:
        status = response.status_code
        if status in (401, 403):
            # their bodies may hold a part of the key
            return UserError(f"{self.base_url}: HTTP {status}: refuses the key; set {self._keys}")
        message = self._clean(_message(body))
        reason = f"HTTP {status}" + (f": {message}" if message else "")
        if status == 404:
            return UserError(f"{self.base_url}: {reason}; check the URL and the model's name")
        return _Failed(
            reason,
            retry=status in _RETRIED,
            wait_s=retry_after_s(response.headers.get("retry-after", "")),
            down=status in _BUSY,
        )

    def _read(self, body: Any) -> Reply:
        try:
            choice = body["choices"][0]
            message = choice["message"]
            text, refusal = message.get("content"), message.get("refusal")
            finish = choice.get("finish_reason")
        except (KeyError, IndexError, TypeError, AttributeError):
            raise _Failed("the reply has no choices[0].message") from None
        answered_by = self._clean(str(body.get("model") or ""))
        if refusal or finish == "content_filter":
            error = f"refused: {self._clean(str(refusal or 'content filter'))}"
        elif not isinstance(text, str):
            error = f"the reply has no text (finish_reason {self._clean(str(finish))})"
        else:
            return Reply(self._without_key(text), "", answered_by)
        return Reply("", error, answered_by)

    def _clean(self, text: str) -> str:
        """Return a server's message on one line, without the key and not too long."""
        text = re.sub(r"(?i)\bbearer\s+\S+", "Bearer [key]", self._without_key(text))
        return " ".join(text.split())[:_MAX_ERROR]

    def _without_key(self, text: str) -> str:
        text = text.replace(self._key, "[key]") if self._key else text
        # half of a surrogate pair is legal in JSON, but no text
        return text.encode("utf-8", "replace").decode("utf-8")


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
            raise _Failed("the reply did not end in time")
        if len(body) > _MAX_REPLY_BYTES:
            raise _Failed(f"the reply is over {_MAX_REPLY_BYTES} bytes")
    return bytes(body)


def _message(body: bytes) -> str:
    try:
        error = json.loads(body).get("error")
        return str(error.get("message") if isinstance(error, dict) else error or "")
    except (ValueError, AttributeError, RecursionError):
        return body.decode("utf-8", "replace")
