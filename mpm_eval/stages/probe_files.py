"""Files of hidden states: one safetensors file per language, and one for pictures, with its rows.

Shapes: L layers (embeddings first), N rows, D dimension.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpm_eval.backends import Backend
from mpm_eval.errors import UserError
from mpm_eval.schema import Sample, Task
from mpm_eval.strict import build, canonical_sha256, to_jsonable, write_bytes

if TYPE_CHECKING:
    import numpy as np

TENSOR = "h_LND"
_METADATA = "mpm_eval"  # one key: safetensors writes several in an order that changes


@dataclass(frozen=True, slots=True)
class Rows:
    """What the rows of one file of hidden states are; stored in the file beside them."""

    language: str  # "" for pictures
    ids: tuple[str, ...]  # of samples; of pictures their keys
    clusters: tuple[str, ...]
    groups: tuple[int, ...]  # row of the first sample with the same text
    texts_sha256: str
    images: tuple[str, ...] = ()  # key of each sample's picture
    text_sha256s: tuple[str, ...] = ()  # 16 digits of each text


def path_of(folder: Path, name: str) -> Path:
    """Return the file of a language, or of "images", in a task folder."""
    return folder / "embeddings" / f"{name}.safetensors"


def text_rows(language: str, samples: Sequence[Sample], texts: Sequence[str]) -> Rows:
    """Return the rows of samples with the text that is embedded for each."""
    first: dict[str, int] = {}
    return Rows(
        language=language,
        ids=tuple(sample.id for sample in samples),
        clusters=tuple(sample.cluster for sample in samples),
        groups=tuple(first.setdefault(text, row) for row, text in enumerate(texts)),
        texts_sha256=canonical_sha256(list(texts)),
        images=tuple(sample.image for sample in samples if sample.image is not None),
        text_sha256s=tuple(canonical_sha256(text)[:16] for text in texts),
    )


def embed_texts(task: Task, backend: Backend, texts: Sequence[str], language: str) -> "np.ndarray":
    """Return h_LND of texts, in batches; UserError for states that are not finite."""
    return _in_batches(
        task, backend, texts, f"in '{language}'", lambda t: backend.embed(t, language)
    )


def embed_pictures(task: Task, backend: Backend, pictures: Sequence[Any]) -> "np.ndarray":
    """Return h_LND of pictures, in batches; UserError for states that are not finite."""
    return _in_batches(task, backend, pictures, "of pictures", backend.embed_images)


def _in_batches(
    task: Task,
    backend: Backend,
    inputs: Sequence[Any],
    what: str,
    embed: Callable[[Sequence[Any]], "np.ndarray"],
) -> "np.ndarray":
    """Return h_LND in float32: half precision overflows at the largest activations of some LLMs."""
    import numpy as np

    step = max(1, backend.batch_size)
    parts = [
        np.asarray(embed(inputs[i : i + step]), dtype=np.float32)
        for i in range(0, len(inputs), step)
    ]
    h_LND = np.concatenate(parts, axis=1)
    if h_LND.ndim != 3 or h_LND.shape[1] != len(inputs):
        raise ValueError(f"{backend.name}: embedding gave {h_LND.shape} for {len(inputs)} inputs")
    finite_L = np.isfinite(h_LND).all(axis=(1, 2))
    if not finite_L.all():
        raise UserError(
            f"{task.name}: model '{backend.name}' gives hidden states that are not finite {what}, "
            f"first in layer {int(finite_L.argmin())}; load it in float32 or leave the task out"
        )
    return h_LND


def is_done(path: Path, rows: Rows) -> bool:
    """Return whether a file holds these rows; a broken one does not and is written again."""
    if not path.is_file():
        return False
    try:
        return _read(path)[1] == rows
    except UserError:
        return False


def load(folder: Path, name: str) -> "tuple[np.ndarray, Rows]":
    """Return h_LND and its rows; UserError for a missing or broken file."""
    path = path_of(folder, name)
    if not path.is_file():
        raise UserError(f"{path}: no such file; run the same command to continue")
    return _read(path)


def save(path: Path, h_LND: "np.ndarray", rows: Rows) -> None:
    """Write one file in one step: a reader sees no file, the old one or the new one, whole."""
    import numpy as np
    from safetensors.numpy import save as to_bytes

    text = json.dumps(to_jsonable(rows), ensure_ascii=False, sort_keys=True, allow_nan=False)
    # safetensors writes the memory as it lies: a view in another order would be shuffled.
    content = to_bytes({TENSOR: np.ascontiguousarray(h_LND)}, metadata={_METADATA: text})
    write_bytes(path, content)


def _read(path: Path) -> "tuple[np.ndarray, Rows]":
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            h_LND = file.get_tensor(TENSOR)
        rows = build(Rows, json.loads(metadata[_METADATA]), str(path))
    except (SafetensorError, KeyError, ValueError):
        raise UserError(
            f"{path}: not hidden states of this program; remove it and run again"
        ) from None
    if h_LND.ndim != 3 or h_LND.shape[1] != len(rows.ids):
        raise UserError(f"{path}: {h_LND.shape} for {len(rows.ids)} ids; remove it and run again")
    return h_LND, rows
