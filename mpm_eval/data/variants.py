"""Data changed on purpose: controls of what a model uses, and paraphrases of the prompts."""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mpm_eval.data import Dataset
from mpm_eval.errors import UserError, unknown
from mpm_eval.schema import Sample, Task

if TYPE_CHECKING:
    from PIL.Image import Image

# control -> what it does; the value of a model that uses its input falls to the floor
CONTROLS: dict[str, str] = {
    "blank": "every picture is plain grey",
    "shuffled": "every sample gets the picture of another one, or is painted from its prompt",
    "blind": "no sample has a picture",
    "translate-test": "questions are asked in the pivot language, as their translation given in "
    "the data; answers are compared with the pivot's references",
}
_GREY = (128, 128, 128)
_BLANK = "blank "


class Variant:
    """A dataset seen through a change of its samples, of its pictures, or of both.

    The hash is that of the data beneath: what was changed is recorded as the run's control.
    """

    def __init__(
        self,
        dataset: Dataset,
        change: Callable[[str], Sequence[Sample]] | None = None,
        load: Callable[[str], "Image"] | None = None,
    ) -> None:
        self.sha256, self.description = dataset.sha256, dataset.description
        self._change, self._made = change or dataset.samples, dict[str, tuple[Sample, ...]]()
        self.load_image = load or dataset.load_image

    def samples(self, language: str) -> Sequence[Sample]:
        """Return the changed samples of one language."""
        if language not in self._made:
            self._made[language] = tuple(self._change(language))
        return self._made[language]


def varied(dataset: Dataset, task: Task, control: str) -> Dataset:
    """Return the dataset with the task's paraphrases and pictures per prompt, changed by `control`.

    Raises UserError for an unknown control, one that the data cannot have, and paraphrases of
    data that has categories of its own.
    """
    if control and control not in CONTROLS:
        raise unknown("control", control, CONTROLS, "--control")
    if control == "translate-test":
        dataset = _translated(dataset, task)
    elif control and task.painting is not None:
        dataset = _shuffled_prompts(dataset, task, control)
    elif control:
        _require_pictures(dataset, task, control)
        dataset = {"blank": _blank, "shuffled": _shuffled, "blind": _blind}[control](dataset, task)
    if task.paraphrases:
        dataset = _paraphrased(dataset, task)
    several = task.painting is not None and task.painting.images_per_prompt > 1
    return _repeated(dataset, task) if several else dataset


def _require_pictures(dataset: Dataset, task: Task, control: str) -> None:
    if all(sample.image is None for tag in task.languages for sample in dataset.samples(tag)):
        raise UserError(f"--control {control}: task '{task.name}' has no pictures")


def _blank(dataset: Dataset, task: Task) -> Dataset:
    from PIL import Image

    def change(tag: str) -> list[Sample]:
        return [
            replace(sample, image=f"{_BLANK}{sample.image}") if sample.image else sample
            for sample in dataset.samples(tag)
        ]

    def load(key: str) -> "Image.Image":
        return Image.new("RGB", dataset.load_image(key.removeprefix(_BLANK)).size, _GREY)

    # a key of its own: equal keys are equal pictures to a backend
    return Variant(dataset, change, load)


def _blind(dataset: Dataset, task: Task) -> Dataset:
    return Variant(dataset, lambda tag: [replace(s, image=None) for s in dataset.samples(tag)])


def _shuffled(dataset: Dataset, task: Task) -> Dataset:
    clusters = {
        sample.image: sample.cluster
        for tag in task.languages
        for sample in dataset.samples(tag)
        if sample.image is not None
    }
    other = derangement(clusters, task.name)
    return Variant(
        dataset,
        lambda tag: [
            replace(sample, image=other[sample.image]) if sample.image else sample
            for sample in dataset.samples(tag)
        ],
    )


def _shuffled_prompts(dataset: Dataset, task: Task, control: str) -> Dataset:
    """Every sample is painted from the prompt of another one: what a deaf painter would reach."""
    if control != "shuffled":
        raise UserError(
            f"--control {control}: task '{task.name}' paints from words alone; only 'shuffled' "
            "(the prompts) and 'translate-test' change them"
        )
    clusters = {s.id: s.cluster for tag in task.languages for s in dataset.samples(tag)}
    other = derangement(clusters, task.name)

    def change(tag: str) -> list[Sample]:
        prompts = {
            sample.id: (sample.prompt or task.prompts[tag]).replace("{question}", sample.question)
            for sample in dataset.samples(tag)
        }
        # the languages of a task may have different samples
        return [
            replace(sample, prompt=prompts[other[sample.id]])
            for sample in dataset.samples(tag)
            if other[sample.id] in prompts
        ]

    return Variant(dataset, change)


def _repeated(dataset: Dataset, task: Task) -> Dataset:
    """Return every sample as often as it is painted, each time under an id of its own."""
    assert task.painting is not None
    numbers = range(1, task.painting.images_per_prompt + 1)
    return Variant(
        dataset,
        lambda tag: [
            replace(sample, id=f"{sample.id}#{number}")
            for sample in dataset.samples(tag)
            for number in numbers
        ],
    )


def derangement(clusters: Mapping[str, str], task: str) -> dict[str, str]:
    """Return picture -> picture, one to one, no picture to one of its own cluster.

    Clusters in hash order, shifted by the largest cluster's size: the same in every language, on
    every machine. Raises UserError where one cluster has more than half of the pictures.
    """
    keys = sorted(clusters, key=lambda key: (_hash(clusters[key]), _hash(key)))
    shift = max(Counter(clusters.values()).values())
    if 2 * shift > len(keys):
        raise UserError(
            f"--control shuffled: task '{task}': one cluster has {shift} of {len(keys)} pictures; "
            "no other picture is left for some of them"
        )
    return {key: keys[(place + shift) % len(keys)] for place, key in enumerate(keys)}


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _translated(dataset: Dataset, task: Task) -> Dataset:
    if task.pivot not in task.languages:
        raise UserError(f"--control translate-test: task '{task.name}' lacks its pivot language")
    pivot = {sample.id: sample for sample in dataset.samples(task.pivot)}

    def change(tag: str) -> list[Sample]:
        if tag == task.pivot:
            return list(pivot.values())
        return [_as_pivot(sample, pivot.get(sample.id), task) for sample in dataset.samples(tag)]

    return Variant(dataset, change)


def _as_pivot(sample: Sample, pivot: Sample | None, task: Task) -> Sample:
    where = f"--control translate-test: task '{task.name}', sample '{sample.id}'"
    if pivot is None:
        raise UserError(f"{where}: is not in the pivot language '{task.pivot}'")
    if sample.question and not sample.translation:
        raise UserError(
            f"{where} ({sample.language}): has no field 'translation'; give the question "
            f"translated into '{task.pivot}'"
        )
    return replace(
        pivot,
        language=sample.language,
        question=sample.translation,
        prompt=pivot.prompt or task.prompts[task.pivot],
    )


def _paraphrased(dataset: Dataset, task: Task) -> Dataset:
    def change(tag: str) -> list[Sample]:
        samples = dataset.samples(tag)
        if any(sample.category for sample in samples):
            raise UserError(
                f"{task.path or task.name}: paraphrases: the data has categories of its own; "
                "paraphrases make one per prompt: leave them out, or use data without categories"
            )
        # a template that a control has put in place stays as it is
        return [
            replace(
                sample,
                id=f"{sample.id}#{number}",
                prompt=sample.prompt or prompt,
                category=f"prompt {number}",
            )
            for sample in samples
            for number, prompt in enumerate([task.prompts[tag], *task.paraphrases[tag]], start=1)
        ]

    return Variant(dataset, change)
