"""Lost in translation: samples a model gets right in the pivot language and wrong in another."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mpm_eval.errors import UserError, unknown
from mpm_eval.items import FILE as ITEMS_FILE
from mpm_eval.items import Items, read_items
from mpm_eval.metrics import Metric, load_metric
from mpm_eval.stages.result_schema import Result, load_result
from mpm_eval.stages.run_folder import join, open_task_folder

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Lost:
    """One sample that is right in the pivot language and wrong in `language`."""

    id: str
    language: str
    pivot_output: str
    output: str
    reference: str  # the best one, in `language`


@dataclass(frozen=True, slots=True)
class LostList:
    """The lost samples of a task in one language."""

    task: str
    language: str
    num_right_in_pivot: int  # of the samples scored in both languages
    lost: tuple[Lost, ...]


def lost_in_translation(folder: Path, languages: Sequence[str] | None = None) -> list[LostList]:
    """Return, per target language, what is lost of a scored task folder's main metric.

    Right is a sample whose own value is the best the metric can give. Raises UserError for a
    probe, a run without its pivot language, a language it lacks, and data that have changed.
    """
    result = load_result(folder / "result.json")
    task = result.task
    if task.kind == "probe" or task.pivot not in result.languages:
        raise UserError(f"{folder}: has no samples in the pivot language '{task.pivot}' to compare")
    targets = [tag for tag in result.languages if tag != task.pivot]
    for tag in languages or ():
        if tag not in targets and tag != task.pivot:
            raise unknown("language", tag, targets, str(folder))
    items = read_items(folder / ITEMS_FILE)
    joined = {
        j.sample.key: j for members in join(open_task_folder(folder)).values() for j in members
    }
    metric = load_metric(task.main_metric)
    pivot = _right(items, metric, result, task.pivot)
    found = []
    for tag in targets:
        if languages is not None and tag not in languages:
            continue
        right = _right(items, metric, result, tag)
        both = [sample_id for sample_id in right if sample_id in pivot]
        ids = [sample_id for sample_id in both if pivot[sample_id] and not right[sample_id]]
        lost = tuple(
            Lost(
                sample_id,
                tag,
                joined[sample_id, task.pivot].prediction.output,
                joined[sample_id, tag].prediction.output,
                joined[sample_id, tag].sample.references[0],
            )
            for sample_id in ids
        )
        found.append(LostList(task.name, tag, sum(pivot[i] for i in both), lost))
    return found


def _right(items: Items, metric: Metric, result: Result, language: str) -> dict[str, bool]:
    """Return sample id -> whether it is right, for the scored samples of a language."""
    cell = items.cell(metric.name, language, result.task.main_subset)
    if not cell.items:
        return {}
    best = metric.range[1] if metric.higher_is_better else metric.range[0]
    values_N: np.ndarray = metric.aggregate(cell.statistics)
    return {item.id: bool(value == best) for item, value in zip(cell.items, values_N, strict=True)}
