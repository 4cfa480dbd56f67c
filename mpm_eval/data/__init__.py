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
    "emoji_paint": "mpm_eval.data.emoji_paint:open_emoji_paint",
    "emoji_text": "mpm_eval.data.emoji_text:open_emoji_text",
    "parallel_text": "mpm_eval.data.parallel_text:open_parallel_text",
    "jsonl": "mpm_eval.data.jsonl:open_jsonl",
    "hub": "mpm_eval.data.hub:open_hub",
    "llava": "mpm_eval.data.llava:open_llava",
    "xm3600": "mpm_eval.data.benchmarks.captions:open_xm3600",
    "multi30k": "mpm_eval.data.benchmarks.captions:open_multi30k",
    "coco_cn": "mpm_eval.data.benchmarks.captions:open_coco_cn",
    "coco": "mpm_eval.data.benchmarks.coco:open_coco",
    "xflickrco": "mpm_eval.data.benchmarks.retrieval:open_xflickrco",
    "xgqa": "mpm_eval.data.benchmarks.vqa:open_xgqa",
    "maxm": "mpm_eval.data.benchmarks.vqa:open_maxm",
    "marvl": "mpm_eval.data.benchmarks.reasoning:open_marvl",
    "xvnli": "mpm_eval.data.benchmarks.reasoning:open_xvnli",
    "mmbench": "mpm_eval.data.benchmarks.choices:open_mmbench",
}


def open_dataset(task: Task, control: str = "") -> Dataset:
    """Return the data of `task`, changed as `control` says (see `variants.CONTROLS`).

    Raises UserError for an unknown source or control, or missing files.
    """
    from importlib import import_module

    source = str(task.data.get("source", ""))
    if source not in READERS:
        raise unknown("data source", source, READERS, f"{task.path or task.name}: data.source")
    module, _, function = READERS[source].partition(":")
    dataset: Any = getattr(import_module(module), function)(task)
    if task.paraphrases or control or task.painting is not None:
        from mpm_eval.data.variants import varied

        return varied(dataset, task, control)
    return dataset
