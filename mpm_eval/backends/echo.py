"""A backend without weights, for tests and docs: it is told the answer and repeats it, or not."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from mpm_eval.backends import Failure
from mpm_eval.errors import unknown
from mpm_eval.languages import PIVOT
from mpm_eval.schema import OptionScore, Request, TrainingRecord

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

_VERSION = "1"
_LAYERS, _DIMENSION = 3, 16
_SLOW_S = 0.02  # per request
_SIDE = 64  # pixels of a painted picture where none are asked for


def _even(request: Request) -> bool:
    return hashlib.sha256(f"{request.image_key}{request.prompt}".encode()).digest()[0] % 2 == 0


def _nonsense(request: Request) -> str:
    """Return the prompt backwards; a palindrome could be right, so it is doubled."""
    backwards = request.prompt[::-1]
    known = {reference.casefold() for reference in request.references}
    return f"{backwards} {backwards}x" if backwards.casefold() in known else backwards


# argument -> is this request answered right?
_RULES: dict[str, Callable[[Request], bool]] = {
    "": lambda request: True,
    "slow": lambda request: True,
    "wrong": lambda request: False,
    "half": _even,
    "pivot": lambda request: request.language == PIVOT,
}


class EchoBackend:
    """Answers with the first reference where its rule says so, with nonsense elsewhere."""

    capabilities = frozenset({"generate", "choose", "embed", "embed_images", "oracle"})
    training_record: TrainingRecord | None = None
    identity: Mapping[str, str]
    batch_size = 8

    def __init__(self, argument: str) -> None:
        self.name = f"echo-{argument}" if argument else "echo"
        self.sha256 = hashlib.sha256(f"echo|{_VERSION}|{argument}".encode()).hexdigest()
        self.identity = {"rule": argument or "right"}
        self._is_right = _RULES[argument]
        self._pause_s = _SLOW_S if argument == "slow" else 0.0

    def generate(self, requests: Sequence[Request]) -> list[str]:
        """Return the first reference, or the prompt backwards."""
        time.sleep(self._pause_s * len(requests))
        return [r.references[0] if self._is_right(r) else _nonsense(r) for r in requests]

    def choose(self, requests: Sequence[Request]) -> list[tuple[OptionScore, ...]]:
        """Return -1 nat for the option it picks, of one option that one, and -2 for the others."""
        time.sleep(self._pause_s * len(requests))
        scores = []
        for request in requests:
            right = request.options.index(request.references[0])
            pick = right if self._is_right(request) else (right + 1) % len(request.options)
            logprobs = [-1.0 if i == pick else -2.0 for i in range(len(request.options))]
            scores.append(tuple(OptionScore(logprob, 1) for logprob in logprobs))
        return scores

    def embed(self, texts: Sequence[str], language: str) -> "np.ndarray":
        """Return vectors that depend on the text alone: equal texts agree, translations do not."""
        return _vectors([text.encode() for text in texts])

    def embed_images(self, images: Sequence["Image"]) -> "np.ndarray":
        """Return vectors that depend on the picture alone: no text is near it."""
        return _vectors([image.tobytes() for image in images])


class EchoPainter:
    """Paints noise, or what it is told: the floor and the ceiling of painting."""

    training_record: TrainingRecord | None = None
    identity: Mapping[str, str]
    batch_size = 8

    def __init__(self, argument: str) -> None:
        self.name = f"echo-{argument}"
        self.sha256 = hashlib.sha256(f"echo|{_VERSION}|{argument}".encode()).hexdigest()
        told = {"oracle"} if argument == "real" else set()
        self.capabilities = frozenset({"paint", *told})
        self.identity = {"rule": argument}
        self._paint = _real if argument == "real" else _noise

    def paint(self, requests: Sequence[Request], seeds: Sequence[int]) -> "list[Image | Failure]":
        """Return Gaussian noise from each seed, or another real picture of what is asked for."""
        return [self._paint(one, seed) for one, seed in zip(requests, seeds, strict=True)]


def _noise(request: Request, seed: int) -> "Image | Failure":
    import numpy as np
    from PIL import Image

    side = request.size or _SIDE
    values = np.random.default_rng(seed).normal(128, 64, (side, side, 3))
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def _real(request: Request, seed: int) -> "Image | Failure":
    if request.image is None:
        return Failure("the data have no second picture of it")
    size = (request.size, request.size)
    return request.image.resize(size) if request.size else request.image


_PAINTERS = ("noise", "real")


def _vectors(contents: Sequence[bytes]) -> "np.ndarray":
    import numpy as np

    rows = []
    for content in contents:
        seed = int.from_bytes(hashlib.sha256(content).digest()[:8], "big")
        rows.append(np.random.default_rng(seed).standard_normal((_LAYERS, _DIMENSION)))
    return np.stack(rows, axis=1).astype(np.float32)


def open_echo(argument: str, seed: int) -> "EchoBackend | EchoPainter":
    """Return the echo backend with a rule: "", wrong, half, pivot or slow; the seed is not used.

    With the rules noise and real it paints. Raises UserError for another rule.
    """
    if argument in _PAINTERS:
        return EchoPainter(argument)
    if argument not in _RULES:
        known = [*(rule for rule in _RULES if rule), *_PAINTERS]
        raise unknown("rule", argument, known, "model 'echo'")
    return EchoBackend(argument)
