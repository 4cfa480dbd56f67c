"""Answer: one batch of samples to predictions: requests made, a model called, answers checked."""

import hashlib
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from mpm_eval.backends import Backend, Failure
from mpm_eval.data import Dataset
from mpm_eval.errors import CorruptImage
from mpm_eval.schema import OptionScore, Prediction, Request, Sample, Task

if TYPE_CHECKING:
    from PIL.Image import Image

Answer = tuple[str, tuple[OptionScore, ...], str]  # output, option scores, error


class Pictures:
    """The pictures of the batch at hand; one that the next batch shares is not decoded again."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._found: dict[str, Image | CorruptImage] = {}

    def load(self, samples: Iterable[Sample]) -> None:
        """Decode the pictures of `samples` and forget all others."""
        keys = dict.fromkeys(sample.image for sample in samples if sample.image is not None)
        self._found = {
            key: self._found[key] if key in self._found else self._decode(key) for key in keys
        }

    def of(self, sample: Sample) -> "Image | CorruptImage | None":
        """Return the sample's picture, or why it has none; None for a sample of text."""
        return None if sample.image is None else self._found[sample.image]

    def _decode(self, key: str) -> "Image | CorruptImage":
        try:
            return self._dataset.load_image(key)
        except CorruptImage as error:
            return error


def answer_batch(
    task: Task, backend: Backend, samples: Sequence[Sample], pictures: Pictures
) -> list[Prediction]:
    """Return one prediction per sample, failed ones (a corrupt picture) with their reason."""
    pictures.load(samples)
    oracle = "oracle" in backend.capabilities
    failed: dict[tuple[str, str], str] = {}
    requests: dict[tuple[str, str], Request] = {}
    for sample in samples:
        picture = pictures.of(sample)
        if isinstance(picture, CorruptImage):
            failed[sample.key] = str(picture) or "corrupt picture"
            continue
        requests[sample.key] = Request(
            prompt=prompt_of(task, sample),
            language=sample.language,
            image=picture,
            image_key=sample.image,
            options=sample.options,
            max_new_tokens=task.max_new_tokens,
            references=sample.references if oracle else (),
        )
    answers = dict(zip(requests, _call(backend, task, list(requests.values())), strict=True))
    predictions = []
    for sample in samples:
        output, scores, error = answers.get(sample.key) or ("", (), failed[sample.key])
        request = requests.get(sample.key)
        digest = input_sha256(request) if request else ""
        prompt = prompt_of(task, sample)
        predictions.append(
            Prediction(sample.id, sample.language, prompt, output, scores, error, digest)
        )
    return predictions


def prompt_of(task: Task, sample: Sample) -> str:
    """Return the text a model is given: the sample's or the task's template, filled in."""
    # not str.format: questions and prompts may hold braces
    template = sample.prompt or task.prompts[sample.language]
    return template.replace("{question}", sample.question)


def _call(backend: Backend, task: Task, requests: Sequence[Request]) -> list[Answer]:
    """Return one answer per request; ValueError when the backend breaks its contract."""
    if not requests:
        return []
    choosing = task.kind == "choose"
    found = backend.choose(requests) if choosing else backend.generate(requests)
    require_equal(backend, len(found), len(requests), "answers", "requests")
    answers: list[Answer] = []
    for request, one in zip(requests, found, strict=True):
        if isinstance(one, Failure):
            answers.append(("", (), one.reason or "no reason given"))
        elif isinstance(one, str) == choosing:
            wanted = "scores" if choosing else "text"
            raise ValueError(f"{backend.name}: an answer is {type(one).__name__}, not {wanted}")
        else:
            answers.append((one, (), "") if isinstance(one, str) else _pick(backend, request, one))
    return answers


def _pick(backend: Backend, request: Request, row: Sequence[OptionScore]) -> Answer:
    """Return the option with the best mean log-probability per token, the first of equal ones."""
    require_equal(backend, len(row), len(request.options), "scores", "options")
    # plain numbers: a float32 of numpy is no JSON
    scores = tuple(OptionScore(float(score.logprob), int(score.num_tokens)) for score in row)
    if not all(math.isfinite(score.logprob) and score.num_tokens > 0 for score in scores):
        return "", (), "an option's score is not finite or has no tokens"
    best = max(range(len(scores)), key=lambda i: scores[i].logprob / scores[i].num_tokens)
    return request.options[best], scores, ""


def require_equal(backend: Backend, got: int, wanted: int, what: str, to: str) -> None:
    """Raise ValueError when a backend returns too few or too many of something."""
    if got != wanted:
        raise ValueError(f"{backend.name}: {got} {what} to {wanted} {to}")


def input_sha256(request: Request) -> str:
    """Return the hash over prompt, options and the decoded picture."""
    digest = hashlib.sha256(repr((request.prompt, request.options)).encode())
    if request.image is not None:
        digest.update(repr((request.image.mode, request.image.size)).encode())
        digest.update(request.image.tobytes())
    return digest.hexdigest()
