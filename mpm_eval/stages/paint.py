"""Paint: one batch of prompts to pictures, each stored whole before its prediction is.

A picture lies at images/<language>/<id>.png in the task folder. Its seed depends on the sample and
the run, never on the language, so that the same picture is asked for in every language.
"""

import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mpm_eval.append_only import unwritable
from mpm_eval.backends import Backend, Failure
from mpm_eval.data import Dataset
from mpm_eval.errors import CorruptImage, UserError
from mpm_eval.schema import Prediction, Request, Sample, Task
from mpm_eval.stages.answer import input_sha256, prompt_of, require_equal
from mpm_eval.strict import file_sha256

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGES = "images"
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")  # of 8 bits: what can be shown as it is
_LONGEST = 120  # characters of a file's name; most file systems end at 255 bytes


def seed_of(sample_id: str, run_seed: int) -> int:
    """Return the seed of a sample's picture, from 0 to 2**63 - 1, the same in every language."""
    digest = hashlib.sha256(f"{run_seed}\x1f{sample_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def picture_path(sample_id: str, language: str) -> str:
    """Return where a picture lies in its task folder; two ids never share a file."""
    name = quote(sample_id, safe="")
    if len(name) > _LONGEST:
        name = hashlib.sha256(sample_id.encode()).hexdigest()
    return f"{IMAGES}/{language}/{name}.png"


def require_prompts(task: Task, samples: Iterable[Sample]) -> None:
    """Raise UserError for a sample whose prompt is empty: nothing says what to paint."""
    for sample in samples:
        if not prompt_of(task, sample).strip():
            raise UserError(
                f"task '{task.name}': sample '{sample.id}' ({sample.language}) has an empty "
                "prompt; give it a question, or words in the task's prompt"
            )


def lost(folder: Path, predictions: Iterable[Prediction]) -> list[Prediction]:
    """Return the predictions whose picture is missing, cut off or another one."""
    return [p for p in predictions if not p.error and not _is_whole(folder / p.output, p)]


def _is_whole(path: Path, prediction: Prediction) -> bool:
    return path.is_file() and file_sha256(path) == prediction.image_sha256


class Painter:
    """Paints batches of one task into its folder."""

    def __init__(
        self, task: Task, backend: Backend, dataset: Dataset, folder: Path, run_seed: int
    ) -> None:
        assert task.painting is not None
        self._task, self._backend, self._dataset = task, backend, dataset
        self._folder, self._run_seed = folder, run_seed
        side = task.painting.size
        self._size: tuple[int, int] | None = (side, side) if side else None

    def keep_size(self, painted: Iterable[Prediction]) -> None:
        """Ask for the size of what is painted already, where the task names none."""
        from PIL import Image

        first = next((p for p in painted if not p.error), None)
        if first is not None and self._size is None:
            with Image.open(self._folder / first.output) as picture:
                self._size = picture.size

    def __call__(self, samples: Sequence[Sample]) -> list[Prediction]:
        """Return one prediction per sample, their pictures written; a failed one says why.

        Raises MemoryError or RuntimeError where a smaller batch may fit, UserError for what no
        prompt can get past, and ValueError when the backend breaks its contract.
        """
        requests = [self._request(sample) for sample in samples]
        seeds = [seed_of(sample.id, self._run_seed) for sample in samples]
        painted = self._paint(requests, seeds)
        return [
            self._prediction(*one) for one in zip(samples, requests, seeds, painted, strict=True)
        ]

    def _request(self, sample: Sample) -> Request:
        assert self._task.painting is not None
        request = Request(
            prompt=prompt_of(self._task, sample),
            language=sample.language,
            max_new_tokens=self._task.max_new_tokens,
            size=self._task.painting.size,
        )
        if "oracle" not in self._backend.capabilities:
            return request
        return replace(request, image=self._other(sample), references=sample.references)

    def _other(self, sample: Sample) -> "Image | None":
        try:
            return self._dataset.load_image(sample.other_image) if sample.other_image else None
        except CorruptImage:
            return None

    def _paint(self, requests: Sequence[Request], seeds: Sequence[int]) -> "list[Image | Failure]":
        """Return what the backend painted; where it raises, each prompt alone, to find the one."""
        try:
            found = list(self._backend.paint(requests, seeds))
        except (UserError, MemoryError):
            raise
        except Exception as error:  # whatever a sampler may do costs one picture, not the run
            if "out of memory" in str(error).lower():
                raise
            reason = " ".join(f"{type(error).__name__}: {error}".split())
        else:
            require_equal(self._backend, len(found), len(requests), "pictures", "requests")
            return found
        if len(requests) == 1:
            return [Failure(reason)]
        pairs = zip(requests, seeds, strict=True)
        return [one for request, seed in pairs for one in self._paint([request], [seed])]

    def _prediction(
        self, sample: Sample, request: Request, seed: int, found: "Image | Failure"
    ) -> Prediction:
        prediction = Prediction(
            id=sample.id,
            language=sample.language,
            prompt=request.prompt,
            # an oracle's picture is no input of the task
            input_sha256=input_sha256(replace(request, image=None, options=(f"seed {seed}",))),
        )
        if not isinstance(found, Failure):
            found = self._checked(found)
        if isinstance(found, Failure):
            return replace(prediction, error=found.reason or "no reason given")
        path = picture_path(sample.id, sample.language)
        told = {"prompt": request.prompt, "seed": str(seed), "language": sample.language,
                "id": sample.id, "model": self._backend.name}  # fmt: skip
        content = _png(found, told)
        _store(self._folder / path, content)
        digest = hashlib.sha256(content).hexdigest()
        return replace(prediction, output=path, image_sha256=digest)

    def _checked(self, picture: Any) -> "Image | Failure":
        """Return a picture in RGB on white, or why it cannot be one of this run."""
        from PIL import Image

        if not isinstance(picture, Image.Image):
            raise ValueError(f"{self._backend.name}: painted {type(picture).__name__}, no picture")
        if picture.mode not in _MODES:
            return Failure(_wrong_mode(picture))
        if self._size is None and min(picture.size) > 0:
            self._size = picture.size
        if picture.size != self._size:
            wanted = "x".join(map(str, self._size or (1, 1)))
            return Failure(f"painted {picture.width}x{picture.height}, asked for {wanted}")
        if picture.mode == "RGB":
            return picture
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")


def _wrong_mode(picture: "Image") -> str:
    import numpy as np

    values = np.asarray(picture)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        return "painted values that are not finite (NaN or infinite)"
    return f"painted a picture of mode '{picture.mode}', 8 bits in each channel expected"


def _store(path: Path, content: bytes) -> None:
    """Write a file in one step, without waiting for the disk as `write_bytes` does.

    Its hash stands in the prediction: after a power cut what is not whole is painted again.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        raise unwritable(path.parent, error) from None


def _png(picture: "Image", told: "dict[str, str]") -> bytes:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for key, text in told.items():
        info.add_itxt(key, text)
    stream = io.BytesIO()
    picture.save(stream, "PNG", pnginfo=info)
    return stream.getvalue()
