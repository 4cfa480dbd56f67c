"""Vectors of painted and of real pictures: computed once, kept in the task folder.

Shapes: N painted pictures, M real ones, C feature dimensions, D dimensions of a scorer's space.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpm_eval.data._local import DATA, places
from mpm_eval.errors import CorruptImage, UserError
from mpm_eval.metrics import distances_of
from mpm_eval.schema import Painting, Task
from mpm_eval.stages.rows import Joined
from mpm_eval.stages.run_folder import Opened
from mpm_eval.strict import canonical_sha256, write_bytes

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    from mpm_eval.images.extractors import Extractor
    from mpm_eval.images.scorers import ImageTextScorer

FOLDER = "vectors"
_BATCH = 32  # pictures decoded at a time
_WEIGHTS = (".pth", ".pt", ".safetensors")
_METADATA, _TENSOR = "mpm_eval", "x_ND"


@dataclass(frozen=True, slots=True)
class PaintedIn:
    """The pictures of one language, in the order of the samples."""

    language: str
    label: str
    members: tuple[Joined, ...]  # failed ones too
    scored: tuple[Joined, ...]


@dataclass(frozen=True, slots=True)
class Real:
    """The real pictures of a task that could be read."""

    rows: Mapping[str | None, int]  # key of a picture -> its row
    sha256s: tuple[str, ...]  # of the pixels, by row
    vectors_MC: "np.ndarray"


@dataclass(frozen=True, slots=True)
class _Seen:
    """Vectors of pictures, as a file keeps them."""

    names: tuple[str, ...]
    sha256s: tuple[str, ...]  # of the pixels
    vectors_ND: "np.ndarray"


class Vectors:
    """What a task's pictures look like to its extractor and its scorer, opened when needed."""

    def __init__(self, opened: Opened, joined: Mapping[str, Sequence[Joined]]) -> None:
        self._opened = opened
        self._joined = joined

    @cached_property
    def extractor(self) -> "Extractor":
        """The task's extractor; UserError where its weights cannot be had."""
        from mpm_eval.images.extractors import open_extractor

        return open_extractor(located(self._painting.extractor, self._opened.task))

    @cached_property
    def scorer(self) -> "ImageTextScorer":
        """The task's scorer; UserError where its weights cannot be had."""
        from mpm_eval.images.scorers import open_scorer

        spec = located(self._painting.scorer, self._opened.task)
        return open_scorer(spec, self._painting.scorer_languages or None)

    def features(self, language: str) -> "np.ndarray":
        """Return features_NC of the pictures of a language that did not fail, in their order."""
        return self._painted("extractor", language, self.extractor.signature, self.extractor)

    def embeddings(self, language: str) -> "np.ndarray":
        """Return unit vectors_ND of the pictures that did not fail, in the scorer's space."""
        scorer = self.scorer
        return self._painted("scorer", language, scorer.signature, scorer.embed_images)

    @cached_property
    def real(self) -> "Real":
        """The real pictures that can be read; UserError when none can."""
        dataset = self._opened.dataset
        members = [j for joined in self._joined.values() for j in joined]
        keys = [key for key in dict.fromkeys(j.sample.image for j in members) if key is not None]
        digest = canonical_sha256([self.extractor.signature, dataset.sha256, keys])
        path = self._opened.folder / FOLDER / "extractor-real.safetensors"
        found = _read(path, digest)
        if found is None:
            found = _computed(keys, dataset.load_image, self.extractor)
            _write(path, digest, found)
        if not found.names:
            raise UserError(
                f"{self._opened.task.name}: no real picture can be read, nothing to compare with"
            )
        rows: dict[str | None, int] = {name: row for row, name in enumerate(found.names)}
        return Real(rows, found.sha256s, found.vectors_ND)

    @property
    def _painting(self) -> Painting:
        assert self._opened.task.painting is not None
        return self._opened.task.painting

    def _painted(
        self,
        what: str,
        language: str,
        signature: str,
        look: "Callable[[Sequence[Image]], np.ndarray]",
    ) -> "np.ndarray":
        members = [j.prediction for j in self._joined[language] if not j.failed]
        digest = canonical_sha256([signature, [p.image_sha256 for p in members]])
        path = self._opened.folder / FOLDER / f"{what}-{language}.safetensors"
        found = _read(path, digest)
        if found is None:
            found = _computed([p.output for p in members], self._load, look)
            _write(path, digest, found)
        if len(found.names) < len(members):
            raise UserError(
                f"{self._opened.folder}: {len(members) - len(found.names)} pictures cannot be "
                "read; run the same command to paint them again"
            )
        return found.vectors_ND

    def _load(self, path: str) -> "Image":
        from PIL import Image

        try:
            with Image.open(self._opened.folder / path) as picture:
                return picture.convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise CorruptImage(f"{path}: {error}") from None


def located(spec: str, task: Task) -> str:
    """Return a spec with the path of its weights where it names a file or folder of the user's.

    They are looked for where data are, see `data._local.places`; what is not there may be of the
    hub. Raises UserError for a file that is nowhere.
    """
    kind, colon, argument = spec.partition(":")
    name, mark, mode = argument.partition(":")
    if not colon:
        return spec
    found = next((place for place in places(task, name) if place.exists()), None)
    if found is not None:
        return f"{kind}:{found}{mark}{mode}"
    if name.endswith(_WEIGHTS):
        tried = " or ".join(map(str, places(task, name)))
        raise UserError(
            f"{task.path or task.name}: painting: no file {tried}; put the weights '{name}' into "
            f"the folder that {DATA} names"
        )
    return spec


def require_files(task: Task) -> None:
    """Raise UserError where weights are missing that scoring the pictures will need."""
    assert task.painting is not None
    distances = distances_of(task.painting.extractor)
    if any(name in distances for name in task.metrics):
        located(task.painting.extractor, task)
    if any(name not in distances for name in task.metrics):
        located(task.painting.scorer, task)


def _computed(
    names: Sequence[str],
    load: "Callable[[str], Image]",
    look: "Callable[[Sequence[Image]], np.ndarray]",
) -> _Seen:
    """Return the vectors of the pictures that can be read; few are in memory at a time."""
    import numpy as np

    from mpm_eval.images.features import pictures_sha256

    kept: list[str] = []
    digests: list[str] = []
    parts: list[Any] = []
    for start in range(0, len(names), _BATCH):
        pictures = []
        for name in names[start : start + _BATCH]:
            try:
                pictures.append(load(name))
            except CorruptImage:
                continue
            kept.append(name)
            digests.append(pictures_sha256(pictures[-1:]))
        if pictures:
            parts.append(np.asarray(look(pictures), dtype=np.float32))
            if not np.isfinite(parts[-1]).all():
                raise UserError(
                    f"'{kept[-len(pictures)]}' or one of the next {len(pictures)} pictures has a "
                    "feature that is not finite; the weights that look at them are broken"
                )
    vectors_ND = np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)
    return _Seen(tuple(kept), tuple(digests), vectors_ND)


def _read(path: Path, digest: str) -> _Seen | None:
    """Return what a file keeps; None where it is missing, damaged or of other pictures."""
    if not path.is_file():
        return None
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            said = json.loads((file.metadata() or {})[_METADATA])
            vectors_ND = file.get_tensor(_TENSOR)
        found = _Seen(tuple(said["names"]), tuple(said["sha256s"]), vectors_ND)
    except (SafetensorError, KeyError, ValueError):
        return None
    whole = len(found.names) == len(found.sha256s) == len(vectors_ND)
    return found if whole and said["digest"] == digest else None


def _write(path: Path, digest: str, seen: _Seen) -> None:
    import numpy as np
    from safetensors.numpy import save

    content = {"digest": digest, "names": list(seen.names), "sha256s": list(seen.sha256s)}
    said = json.dumps(content, ensure_ascii=False)
    vectors = {_TENSOR: np.ascontiguousarray(seen.vectors_ND)}
    write_bytes(path, save(vectors, metadata={_METADATA: said}))
