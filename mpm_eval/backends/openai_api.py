"""Any model behind an OpenAI-compatible chat endpoint (vLLM, SGLang, a provider); it generates."""

import base64
import io
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mpm_eval.backends import Failure
from mpm_eval.endpoint import (
    NOT_FOUND,
    REFUSED_KEY,
    Endpoint,
    GaveUp,
    Patience,
    concurrently,
    message_of,
    split_url,
)
from mpm_eval.errors import UserError
from mpm_eval.schema import Request, TrainingRecord
from mpm_eval.strict import canonical_sha256

if TYPE_CHECKING:
    import httpx
    from PIL.Image import Image

KEYS = ("MPM_EVAL_MODEL_KEY", "OPENAI_API_KEY")
_CONCURRENCY = 8
_BUSY = frozenset({429, 502, 503, 504, 520, 522, 524, 529})  # about the server, not the request


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server answered: a text, which may be empty, or why there is none."""

    text: str = ""
    error: str = ""
    answered_by: str = ""  # the model that the server says it used


class OpenAIBackend:
    """A model that answers chats; temperature 0, as many tokens as the task allows.

    A chat gives neither probabilities of given options nor hidden states, so it only generates.
    """

    capabilities = frozenset({"generate"})
    training_record: TrainingRecord | None = None
    identity: Mapping[str, str]
    batch_size = 16  # a batch is answered concurrently, and lost when the server dies

    def __init__(self, base_url: str, model: str, patience: Patience | None = None) -> None:
        self._model = model
        self._endpoint = Endpoint(base_url, KEYS, patience or Patience(concurrency=_CONCURRENCY))
        self._client: httpx.Client | None = None
        self._answered_by = self._say_hello()
        self.name = model
        # the name that a server reports tells versions of one alias apart
        self.sha256 = canonical_sha256([base_url, model, self._answered_by])
        self.identity = {"base_url": base_url, "model": model, "temperature": "0"}
        if self._answered_by not in ("", model):
            self.identity = {**self.identity, "answered_by": self._answered_by}

    def generate(self, requests: Sequence[Request]) -> list[str | Failure]:
        """Return an answer per request, in order, or why the server gave none.

        Raises UserError when the server is down or another model begins to answer.
        """
        pictures = {id(r.image): r.image for r in requests if r.image is not None}
        urls = {key: data_uri(picture) for key, picture in pictures.items()}
        chats = []
        for request in requests:
            content: Any = request.prompt
            if request.image is not None:
                content = [
                    {"type": "image_url", "image_url": {"url": urls[id(request.image)]}},
                    {"type": "text", "text": request.prompt},
                ]
            chats.append(self._chat(content, request.max_new_tokens))
        answers: list[str | Failure] = [""] * len(requests)
        for index, reply in self._replies(chats):
            self._check_model(reply)
            answers[index] = Failure(reply.error) if reply.error else reply.text
        return answers

    def _say_hello(self) -> str:
        """Ask for one token and return the model that answers; UserError when none does."""
        ((_, reply),) = self._replies([self._chat("Hello", 1)])
        if reply.error and not reply.answered_by:
            raise UserError(f"{self._endpoint.base_url}: a first question fails: {reply.error}")
        return reply.answered_by

    def _replies(self, chats: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, Reply]]:
        """Yield (index of the chat, reply) as they come; a chat that fails has an error.

        Raises UserError for a server that stays down, refuses the key or does not know the model.
        """
        if self._client is None:
            self._client = self._endpoint.connect()
        client, stop = self._client, threading.Event()

        def ask(index: int) -> Reply:
            try:
                return self._endpoint.persist(
                    lambda: self._read(self._endpoint.post(client, chats[index])), stop
                )
            except GaveUp as given_up:
                return self._failed(given_up)

        yield from concurrently(
            range(len(chats)), ask, self._endpoint.patience.concurrency, stop, keep_finished=False
        )

    def _failed(self, given_up: GaveUp) -> Reply:
        """Return the failed reply; raises UserError where no other request can do better."""
        url, last = self._endpoint.base_url, given_up.last
        if last.status in REFUSED_KEY:
            raise UserError(f"{url}: {last.reason}")
        if last.status == NOT_FOUND:
            raise UserError(f"{url}: {last.reason}; check the URL and the model's name")
        reason = f"cannot be reached: {last.reason}" if last.unreachable else last.reason
        if last.unreachable or last.status in _BUSY:
            raise UserError(
                f"{url}: {reason}{given_up.tries}; what is answered is kept: start the server and "
                "run the same command to continue"
            )
        return Reply(error=f"{reason}{given_up.tries}")

    def _read(self, body: Any) -> Reply:
        message, finish_reason = message_of(body)
        text, clean = message.get("content"), self._endpoint.clean
        answered_by = clean(str(body.get("model") or ""))
        error = self._endpoint.refusal(message, finish_reason)
        if not error and not isinstance(text, str):
            error = f"the reply has no text (finish_reason {clean(str(finish_reason))})"
        if error:
            return Reply("", error, answered_by)
        return Reply(self._endpoint.without_key(str(text)), "", answered_by)

    def _check_model(self, reply: Reply) -> None:
        if reply.answered_by and reply.answered_by != self._answered_by:
            raise UserError(
                f"{self._endpoint.base_url}: answered by '{reply.answered_by}', at the start by "
                f"'{self._answered_by}'; give the exact name of one model and another --out"
            )

    def _chat(self, content: Any, max_tokens: int) -> dict[str, Any]:
        return {
            "model": self._model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            "max_tokens": max_tokens,
        }


def data_uri(image: "Image") -> str:
    """Return a picture as a data URI that holds a PNG: nothing is lost on the way."""
    file = io.BytesIO()
    image.convert("RGB").save(file, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def open_openai(argument: str, seed: int) -> OpenAIBackend:
    """Return the backend of "BASE_URL#MODEL"; at temperature 0 the seed is not sent.

    Raises UserError for a URL that is none, or holds a secret, and a server that does not answer.
    """
    return OpenAIBackend(*split_url(argument, "--model openai", " or ".join(KEYS)))
