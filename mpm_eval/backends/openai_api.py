"""Any model behind an OpenAI-compatible chat endpoint (vLLM, SGLang, a provider); it generates."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mpm_eval.backends import Failure
from mpm_eval.backends.endpoint import Endpoint, Patience, Reply, split_url
from mpm_eval.errors import UserError
from mpm_eval.schema import Request, TrainingRecord
from mpm_eval.strict import canonical_sha256

if TYPE_CHECKING:
    from PIL.Image import Image

KEYS = ("MPM_EVAL_MODEL_KEY", "OPENAI_API_KEY")


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
        self._endpoint = Endpoint(base_url, KEYS, patience)
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
        for index, reply in self._endpoint.replies(chats):
            self._check_model(reply)
            answers[index] = Failure(reply.error) if reply.error else reply.text
        return answers

    def _say_hello(self) -> str:
        """Ask for one token and return the model that answers; UserError when none does."""
        ((_, reply),) = self._endpoint.replies([self._chat("Hello", 1)])
        if reply.error and not reply.answered_by:
            raise UserError(f"{self._endpoint.base_url}: a first question fails: {reply.error}")
        return reply.answered_by

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
