"""Readers that turn a data source into samples; `open_dataset` is the only door."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from mpm_eval.errors import unknown
from mpm_eval.schema import Sample, Task

if TYPE_CHECKING:
    from PIL.Image import Image


class Dataset(Protocol):
    """A data source opened for one task."""

    sha256: str  # of everything that can change a sample: rows, splits, pictures
    description: Mapping[str, str]  # revision, licence, path: shown in results

    def samples(self, language: str) -> Sequence[Sample]:
        """Return all samples of one language, in a fixed order.

        Raises UserError when the language is missing or the set is empty.
        """
        ...

    def load_image(self, key: str) -> "Image":
        """Return the RGB picture of `Sample.image`; raises CorruptImage when it cannot be read."""
        ...


# source name -> "module:function"; the function takes the task and returns a Dataset
READERS: dict[str, str] = {
    "emoji": "mpm_eval.data.emoji:open_emoji",
    "emoji_qa": "mpm_eval.data.emoji_qa:open_emoji_qa",
    "emoji_text": "mpm_eval.data.emoji_text:open_emoji_text",
    "jsonl": "mpm_eval.data.jsonl:open_jsonl",
    "hub": "mpm_eval.data.hub:open_hub",
}


def open_dataset(task: Task) -> Dataset:
    """Return the data of `task`; raises UserError for an unknown source or missing files."""
    from importlib import import_module

    source = str(task.data.get("source", ""))
    if source not in READERS:
        raise unknown("data source", source, READERS, f"{task.path or task.name}: data.source")
    module, _, function = READERS[source].partition(":")
    dataset: Any = getattr(import_module(module), function)(task)
    return dataset
