"""Names of the emoji concepts as parallel texts without pictures, for the alignment probe."""

from collections import Counter
from dataclasses import dataclass

from mpm_eval.data._emoji_data import SPLITS, Concept, EmojiData, emoji_data, stable_hash
from mpm_eval.data._samples import SampleSet, no_image, one_of, read_options
from mpm_eval.schema import Sample, Task


@dataclass(frozen=True, slots=True)
class TextOptions:
    """The table [data] of a task with source "emoji_text"."""

    source: str
    splits: tuple[str, ...] = SPLITS
    count: int = 0  # at most so many concepts; 0: all


def open_emoji_text(task: Task) -> SampleSet:
    """Return one sample per concept: its name is the question and the only reference.

    Left out in all languages: a concept without a name in one of them, and one that shares its
    name with another concept in one of them, since no translation of it is the right one. Raises
    UserError for a wrong table [data].
    """
    options = read_options(TextOptions, task)
    for split in options.splits:
        one_of(task, "splits", split, SPLITS)
    data = emoji_data()
    found = [c for c in data.concepts if c.split in options.splits]
    kept = _distinct(data, found, task.languages)
    kept.sort(key=lambda c: stable_hash("order", c.id))
    chosen = kept[: options.count] if options.count else kept

    def make(language: str) -> list[Sample]:
        return [
            Sample(
                id=concept.id,
                language=language,
                image=None,
                references=(data.name(concept, language),),
                cluster=concept.id,
                question=data.name(concept, language),
            )
            for concept in chosen
        ]

    return SampleSet(
        task=task.name,
        languages=task.languages,
        make=make,
        load=no_image,
        sha256=data.sha256,
        description={
            "source": "emoji (Unicode CLDR names)",
            "licence": "Unicode-3.0",
            "splits": ", ".join(options.splits),
            "left_out": f"{len(found) - len(kept)} concepts without a name of their own in one "
            "of the languages",
        },
    )


def _distinct(
    data: EmojiData, concepts: list[Concept], languages: tuple[str, ...]
) -> list[Concept]:
    names = {tag: [data.name(c, tag) for c in concepts] for tag in languages}
    counts = {tag: Counter(name.casefold() for name in names[tag]) for tag in languages}
    return [
        concept
        for i, concept in enumerate(concepts)
        if all(names[tag][i] and counts[tag][names[tag][i].casefold()] == 1 for tag in languages)
    ]
