"""Features of many pictures, batch by batch: corrupt ones are counted, no picture is kept.

Shapes: N pictures that could be read, C feature dimensions.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from mpm_eval.errors import CorruptImage, UserError
from mpm_eval.images.extractors import Extractor
from mpm_eval.images.pictures import as_rgb, load_picture
from mpm_eval.images.statistics import FeatureStatistics

if TYPE_CHECKING:
    from PIL.Image import Image

BATCH_SIZE = 32


@dataclass(frozen=True, slots=True)
class Extraction:
    """What an extractor made of a set of pictures."""

    keys: tuple[str, ...]  # of the pictures that were read, in order
    statistics: FeatureStatistics
    features_NC: np.ndarray | None  # in single precision; None: not kept
    failures: Mapping[str, str]  # key -> why the picture could not be read
    sizes: Mapping[str, int]  # width x height -> pictures, before resizing
    sha256: str  # of the pixels of all pictures, in any order: the identity of a reference set
    signature: str  # of the extractor


def extract(
    keys: Iterable[str],
    extractor: Extractor,
    *,
    load: "Callable[[str], Image]" = load_picture,
    keep: bool = True,
    batch_size: int = BATCH_SIZE,
    report: Callable[[int], None] = lambda _: None,
) -> Extraction:
    """Return features and statistics of the pictures that `load` returns for `keys`.

    `load` raises CorruptImage for a picture that cannot be read: it is counted, the rest goes on.
    `keep` False needs the same memory for any number of pictures. `report(done)` is called batch by
    batch. Raises UserError when no picture could be read, or the extractor gives no finite number.
    """
    statistics = FeatureStatistics(extractor.dim)
    failures: dict[str, str] = {}
    sizes: Counter[str] = Counter()
    read: list[str] = []
    digests: list[bytes] = []
    kept: list[np.ndarray] = []
    pictures = _readable(keys, load, failures)
    while batch := list(islice(pictures, batch_size)):
        images = [image for _, image in batch]
        features_NC = extractor(images)
        if not np.isfinite(features_NC).all():
            raise UserError(
                f"extractor '{extractor.name}': a feature of '{batch[0][0]}' or one of the "
                f"{len(batch)} pictures from it on is not finite; its weights are broken"
            )
        statistics.update(features_NC)
        read += [key for key, _ in batch]
        digests += [_digest(image) for image in images]
        sizes.update(f"{image.width}x{image.height}" for image in images)
        if keep:
            kept.append(features_NC)
        report(len(read) + len(failures))
    if not read:
        raise UserError(_nothing(failures))
    return Extraction(
        keys=tuple(read),
        statistics=statistics,
        features_NC=np.concatenate(kept) if keep else None,
        failures=failures,
        sizes=dict(sorted(sizes.items())),
        sha256=hashlib.sha256(b"".join(sorted(digests))).hexdigest(),
        signature=extractor.signature,
    )


def _readable(
    keys: Iterable[str], load: "Callable[[str], Image]", failures: dict[str, str]
) -> "Iterator[tuple[str, Image]]":
    """Yield what can be read, and fill in why the rest cannot."""
    for key in keys:
        try:
            yield key, as_rgb(load(key))
        except CorruptImage as error:
            failures[key] = str(error)


def pictures_sha256(images: "Sequence[Image]") -> str:
    """Return the hash that `extract` gives of a set of pictures."""
    return hashlib.sha256(b"".join(sorted(_digest(as_rgb(i)) for i in images))).hexdigest()


def _digest(image: "Image") -> bytes:
    return hashlib.sha256(f"{image.width}x{image.height}:".encode() + image.tobytes()).digest()


def _nothing(failures: Mapping[str, str]) -> str:
    if not failures:
        return "images: no pictures to look at"
    key, reason = next(iter(failures.items()))
    return f"images: none of {len(failures)} pictures could be read; first '{key}': {reason}"
