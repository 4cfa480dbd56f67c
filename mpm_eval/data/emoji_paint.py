"""Names of emoji to paint, with the real drawings that painted ones are measured against."""

from collections.abc import Sequence
from dataclasses import dataclass

from mpm_eval.data._emoji_data import Concept, EmojiData, codepoints, emoji_data, stable_hash
from mpm_eval.data._samples import SampleSet, one_of, read_options
from mpm_eval.data.emoji import LICENCE
from mpm_eval.schema import Sample, Task

SEEN, UNSEEN = "seen_concept", "unseen_concept"  # cells
_SPLITS = ("validation", "test")


@dataclass(frozen=True, slots=True)
class EmojiPaintOptions:
    """The table [data] of a task with source "emoji_paint"."""

    source: str
    split: str  # its drawing style is that of the real drawings
    per_cell: int = 0  # at most so many concepts per cell; 0: all


def open_emoji_paint(task: Task) -> SampleSet:
    """Return a sample per concept, its name the question, the same concepts in every language.

    The real drawing is one of the split's style, which no painter was trained on; a second one, of
    the first training style that has the concept, says what a perfect painter of that style would
    reach. Seen are the training concepts, unseen those of the split. Raises UserError for a wrong
    table [data].
    """
    options = read_options(EmojiPaintOptions, task)
    one_of(task, "split", options.split, _SPLITS)
    data = emoji_data()
    vendor = data.styles[options.split][0]
    drawn = [
        concept
        for concept in data.concepts
        if concept.split in ("train", options.split) and vendor in concept.pictures
    ]
    named = [c for c in drawn if all(data.name(c, tag) for tag in task.languages)]
    chosen = _first_per_cell(named, options.per_cell)
    return SampleSet(
        task=task.name,
        languages=task.languages,
        make=lambda language: [_sample(data, concept, vendor, language) for concept in chosen],
        load=data.load_image,
        sha256=data.sha256,
        description={
            "source": "emoji (Unicode CLDR names; real drawings of one vendor)",
            "licence": LICENCE,
            "split": options.split,
            "reference": vendor,
            "left_out": f"{len(drawn) - len(named)} concepts that lack a name in one language",
        },
    )


def _first_per_cell(concepts: Sequence[Concept], count: int) -> list[Concept]:
    """Return the first concepts of each cell in hash order, all cells mixed."""
    ordered = sorted(concepts, key=lambda c: stable_hash("order", c.id))
    if not count:
        return ordered
    kept = {
        concept.id
        for cell in (SEEN, UNSEEN)
        for concept in [c for c in ordered if _cell(c) == cell][:count]
    }
    return [concept for concept in ordered if concept.id in kept]


def _cell(concept: Concept) -> str:
    return SEEN if concept.split == "train" else UNSEEN


def _sample(data: EmojiData, concept: Concept, vendor: str, language: str) -> Sample:
    others = [name for name in data.styles["train"] if name in concept.pictures]
    names = data.names(concept, language)
    return Sample(
        id=concept.id,
        language=language,
        image=_key(concept, vendor),
        references=names,
        cluster=concept.id,
        question=names[0],
        cell=_cell(concept),
        other_image=_key(concept, others[0]) if others else None,
    )


def _key(concept: Concept, vendor: str) -> str:
    return f"{vendor}/{codepoints(concept.pictures[vendor][0])}"
