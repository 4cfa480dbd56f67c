"""The store of one task's predictions: append-only JSONL that survives kill -9."""

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mpm_eval.append_only import append, cut_torn_line, held
from mpm_eval.errors import UserError
from mpm_eval.schema import Prediction
from mpm_eval.strict import build, read_json, read_jsonl, to_jsonable, write_bytes, write_json

# What must be equal for old predictions to count; languages may grow.
_FINGERPRINT = (
    ("task", "name"), ("task", "version"), ("task", "sha256"), ("data", "sha256"),
    ("model", "name"), ("model", "sha256"), ("seed",), ("limit",), ("decoding",), ("control",),
)  # fmt: skip


class TaskStore:
    """Predictions of one task in one run folder; get one from `TaskStore.open`."""

    def __init__(self, folder: Path, languages: Sequence[str]) -> None:
        self.folder = folder
        self.languages = tuple(languages)  # of all runs so far, in the order they were asked for
        self.path = folder / "predictions.jsonl"
        self._done = {p.key: p for p in read_predictions(self.path)} if self.path.exists() else {}

    @classmethod
    @contextlib.contextmanager
    def open(cls, folder: Path, manifest: Mapping[str, Any]) -> "Iterator[TaskStore]":
        """Yield the store, held by this process alone.

        Half a last line, as kill -9 leaves it, is cut off. Raises UserError when another process
        holds the folder, when it holds predictions made with something else (each difference is
        named), for any other bad line, and when it cannot be written.
        """
        with held(folder, " or give another --out"):
            languages = _check_manifest(folder, manifest)
            cut_torn_line(folder / "predictions.jsonl")
            yield cls(folder, languages)

    def predictions(self) -> dict[tuple[str, str], Prediction]:
        """Return what is done, by (id, language)."""
        return dict(self._done)

    def append(self, predictions: Sequence[Prediction]) -> None:
        """Write a batch in one go and wait until it is on the disk.

        Raises UserError when it cannot be written, ValueError for a sample that is done already.
        """
        if not predictions:
            return
        keys = [prediction.key for prediction in predictions]
        if len(set(keys)) < len(keys) or not self._done.keys().isdisjoint(keys):
            raise ValueError(f"{self.folder}: a sample is answered twice in {keys}")
        append(self.path, _lines(predictions))
        self._done.update({p.key: p for p in predictions})

    def forget(self, keys: Iterable[tuple[str, str]]) -> None:
        """Remove what is done of `keys`, in one step: what belongs to it is lost."""
        gone = set(keys)
        if gone:
            self._done = {key: p for key, p in self._done.items() if key not in gone}
            write_bytes(self.path, _lines(list(self._done.values())))


def _lines(predictions: Sequence[Prediction]) -> bytes:
    lines = "".join(
        json.dumps(to_line(p), ensure_ascii=False, sort_keys=True, allow_nan=False) + "\n"
        for p in predictions
    )
    return lines.encode("utf-8", "surrogatepass").decode("utf-8", "replace").encode("utf-8")


def read_predictions(path: Path) -> list[Prediction]:
    """Return the predictions in a file, in its order.

    Raises UserError with file and line for a bad line, an unknown key or a duplicate.
    """
    found: dict[tuple[str, str], Prediction] = {}
    for number, content in read_jsonl(path):
        where = f"{path}:{number}"
        prediction = build(Prediction, content, where)
        if prediction.key in found:
            raise UserError(
                f"{where}: second prediction for id '{prediction.id}' in language "
                f"'{prediction.language}'; remove one of them"
            )
        found[prediction.key] = prediction
    return list(found.values())


def _check_manifest(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    """Write the manifest, or compare it with the one that is there; return all languages."""
    path = folder / "manifest.json"
    content = to_jsonable(manifest)
    if path.exists():
        old = read_json(path)
        languages = old.get("languages") if isinstance(old, dict) else None
        if not isinstance(languages, list):
            raise UserError(f"{path}: languages: expected a list; delete the folder and run again")
        different = [
            f"{'.'.join(keys)} was {_short(_at(old, keys))}, is {_short(_at(content, keys))}"
            for keys in _FINGERPRINT
            if _at(old, keys) != _at(content, keys)
        ]
        if different:
            raise UserError(
                f"{folder}: holds predictions made with something else: {'; '.join(different)}; "
                "give another --out or delete the folder"
            )
        content["languages"] = list(dict.fromkeys([*languages, *content["languages"]]))
        if content == old:
            return content["languages"]
    elif (folder / "predictions.jsonl").exists():
        raise UserError(
            f"{folder}: holds predictions without a manifest.json, so nothing says what made them; "
            "give another --out or delete the folder"
        )
    write_json(path, content)
    return content["languages"]


def _at(content: Any, keys: Iterable[str]) -> Any:
    for key in keys:
        content = content.get(key) if isinstance(content, Mapping) else None
    return content


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return f"{text[:13]}…" if len(text) > 60 else text


def to_line(prediction: Prediction) -> dict[str, Any]:
    """Return a prediction as it is written and hashed, without what only other kinds have."""
    content = to_jsonable(prediction)
    for key in ("ranking", "image_sha256"):
        if not content[key]:  # the hash of predictions of other kinds must stay what it was
            del content[key]
    return content
