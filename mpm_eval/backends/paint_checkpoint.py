"""Checkpoints of painters, called through training.interface; re-ranking, if asked for."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from mpm_eval.backends import Failure
from mpm_eval.errors import UserError
from mpm_eval.schema import Request, TrainingRecord
from mpm_eval.strict import build, canonical_sha256, read_json

if TYPE_CHECKING:
    from PIL.Image import Image

    from mpm_eval.images.scorers import ImageTextScorer
    from training.interface import MPMPaint

PREFIX = "paint"
_NOT_FINITE = "painted values that are not finite (NaN or infinite)"


@dataclass(frozen=True, slots=True)
class PaintOptions:
    """How to paint where it is not to be as the checkpoint says."""

    sampler: str = ""  # dpm, ddim or ddpm
    steps: int = 0
    guidance: float = -1.0  # 1: none
    rerank: int = 1  # pictures per prompt, of which the one nearest to the prompt is kept
    scorer: str = "emoji"  # which of mpm_eval.images.scorers says what is near
    without: str = ""  # bridge or sketch: unlearned, for a floor


class PaintBackend:
    """A painter's checkpoint folder."""

    capabilities = frozenset({"paint"})
    batch_size = 8

    def __init__(self, folder: Path, options: PaintOptions) -> None:
        from training.interface import checkpoint_sha256, load_paint, pick_device

        self.name = folder.resolve().name
        if options.without:
            self.name += f"-without-{options.without}"
        self.device = pick_device()
        self._model: MPMPaint
        self.training_record: TrainingRecord | None
        self._model, self.training_record = load_paint(folder, self.device)
        if options.without:
            self._model.unlearn(options.without)
        self._options = options
        self._scorer = _open_scorer(options)
        self.identity: Mapping[str, str] = self._identity()
        settings = {key: value for key, value in self.identity.items() if key != "device"}
        self.sha256 = canonical_sha256([checkpoint_sha256(folder), settings])

    def _identity(self) -> dict[str, str]:
        options = self._options
        told = self._model.settings(options.steps, options.guidance, options.sampler)
        rerank = "no"
        if self._scorer is not None:
            scorer = f"{self._scorer.name}@{self._scorer.sha256[:12]}"
            rerank = f"best of {options.rerank} by {scorer}"
        return {
            "recipe": self.training_record.recipe if self.training_record else "unknown",
            "device": self.device,
            "dtype": "float32",
            "size": str(self._model.size),
            "sampler": told.sampler,
            "steps": str(told.steps),
            "guidance": f"{told.guidance:g}",
            "rerank": rerank,
            **({"without": options.without} if options.without else {}),
        }

    def paint(self, requests: Sequence[Request], seeds: Sequence[int]) -> "list[Image | Failure]":
        """Return one picture per request, or why there is none.

        Raises UserError for a size that the model does not paint, or a language that the scorer
        of re-ranking does not know.
        """
        return [self._one(one, seed) for one, seed in zip(requests, seeds, strict=True)]

    def _one(self, request: Request, seed: int) -> "Image | Failure":
        if request.size not in (0, self._model.size):
            raise UserError(
                f"{self.name}: paints {self._model.size} pixels, the task asks for {request.size}; "
                "set the task's painting.size to 0"
            )
        options, count = self._options, self._options.rerank
        found = self._model.paint(
            [request.prompt] * count,
            [request.language] * count,
            [seed, *(_derived(seed, number) for number in range(1, count))],
            options.steps,
            options.guidance,
            options.sampler,
        )
        finite = [picture for picture in found if picture is not None]
        if len(finite) < count:
            return Failure(_NOT_FINITE)
        return finite[0] if self._scorer is None else self._best(finite, request)

    def _best(self, pictures: "Sequence[Image]", request: Request) -> "Image":
        assert self._scorer is not None
        text_1D = self._scorer.embed_texts([request.prompt], request.language)
        near_N = self._scorer.embed_images(pictures) @ text_1D[0]
        return pictures[int(near_N.argmax())]


def _derived(seed: int, number: int) -> int:
    digest = hashlib.sha256(f"{seed}\x1f{number}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _open_scorer(options: PaintOptions) -> "ImageTextScorer | None":
    if options.rerank == 1:
        return None
    from mpm_eval.images.scorers import open_scorer

    return open_scorer(options.scorer)


def is_painter(folder: Path) -> bool:
    """Return whether a checkpoint folder is that of a painter."""
    content = read_json(folder / "config.json")
    return isinstance(content, dict) and content.get("format") == "mpm-paint"


def open_paint(argument: str, seed: int) -> PaintBackend:
    """Return the backend of "FOLDER" or "FOLDER?steps=50&guidance=2&rerank=4".

    The seed is not used: every request brings its own. Raises UserError for a folder that is no
    painter's checkpoint, and for an unknown option or value.
    """
    path, _, text = argument.partition("?")
    where = f"model '{PREFIX}:{argument}'"
    if not path or not (Path(path) / "config.json").is_file():
        raise UserError(f"{where}: give the folder of a painter's checkpoint, e.g. {PREFIX}:mine")
    options = build(PaintOptions, _options(text, where), where)
    if options.rerank < 1:
        raise UserError(f"{where}: rerank: must be at least 1 (none), got {options.rerank}")
    return PaintBackend(Path(path), options)


def _options(text: str, where: str) -> dict[str, Any]:
    """Return the options after the question mark, in the types that they need."""
    try:
        pairs = dict(parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text)))
    except ValueError:
        raise UserError(f"{where}: write options as KEY=VALUE&KEY=VALUE") from None
    kinds = {field.name: field.type for field in fields(PaintOptions)}
    values: dict[str, Any] = dict(pairs)
    for key, value in pairs.items():
        kind = kinds.get(key)
        if kind not in (int, float):
            continue
        try:
            values[key] = int(value) if kind is int else float(value)
        except ValueError:
            raise UserError(f"{where}: {key}: expected a number, got '{value}'") from None
    return values
