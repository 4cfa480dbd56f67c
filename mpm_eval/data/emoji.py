"""Samples of the emoji pictures: name what you see, or choose its name among four."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mpm_eval.data._choices import NUM_OPTIONS, place_right, shared_choices
from mpm_eval.data._emoji_data import (
    IMAGE_SIZE,
    SPLITS,
    VENDORS,
    Concept,
    EmojiData,
    codepoints,
    distinct,
    emoji_data,
    stable_hash,
)
from mpm_eval.data._samples import SampleSet, one_of, read_options, where
from mpm_eval.errors import UserError
from mpm_eval.schema import Sample, Task

__all__ = [
    "CELLS",
    "IMAGE_SIZE",
    "NUM_OPTIONS",
    "SPLITS",
    "VENDORS",
    "Concept",
    "EmojiData",
    "Picture",
    "codepoints",
    "distinct",
    "emoji_data",
    "open_emoji",
    "pictures_of",
    "stable_hash",
]

LICENCE = (
    "names and keywords Unicode-3.0; pictures Apache-2.0 (Noto), CC-BY-4.0 (Twemoji), "
    "CC-BY-SA-4.0 (OpenMoji), MIT (Fluent)"
)

SEEN_UNSEEN = "seen_concept/unseen_style"
UNSEEN_UNSEEN = "unseen_concept/unseen_style"
UNSEEN_SEEN = "unseen_concept/seen_style"
SEEN_SEEN = "seen_concept/seen_style"  # the training pictures themselves
CELLS = (SEEN_UNSEEN, UNSEEN_UNSEEN, UNSEEN_SEEN)


@dataclass(frozen=True, slots=True)
class EmojiOptions:
    """The table [data] of a task with source "emoji"."""

    source: str
    split: str
    mode: str = "caption"  # or "choice"
    cells: tuple[str, ...] = ()  # empty: all cells of the split
    per_cell: int = 0  # at most so many pictures per cell; 0: all
    allow_train: bool = False  # split "train" is what the models were trained on


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture to ask about."""

    key: str  # for EmojiData.load_image
    vendor: str
    concept: Concept
    cell: str


def open_emoji(task: Task) -> SampleSet:
    """Return pictures with names in the task's languages, the same pictures in all of them.

    The cluster is the concept and not the picture: two drawings of one concept share its name,
    its keywords and its difficulty, so their scores are not independent. Raises UserError for a
    wrong table [data].
    """
    options = read_options(EmojiOptions, task)
    one_of(task, "mode", options.mode, ("caption", "choice"))
    data = emoji_data()
    found = pictures_of(task, data, options.split, options.cells, allow_train=options.allow_train)
    kept = in_all_languages(data, found, task.languages)
    chosen = first_per_cell(kept, options.per_cell)
    # by rank and not by hash: every option comes equally often, in every cell
    positions = {key: rank % NUM_OPTIONS for key, rank in rank_in_cell(found).items()}

    def make(language: str) -> list[Sample]:
        if options.mode == "caption":
            return [_caption(data, picture, language) for picture in chosen]
        return [_choice(data, picture, language, positions[picture.key]) for picture in chosen]

    return SampleSet(
        task=task.name,
        languages=task.languages,
        make=make,
        load=data.load_image,
        sha256=data.sha256,
        description=describe(options.split, len(found) - len(kept)),
    )


def pictures_of(
    task: Task, data: EmojiData, split: str, cells: Sequence[str], *, allow_train: bool = False
) -> list[Picture]:
    """Return the pictures of a split in hash order, so that the first n are a fair sample.

    Validation and test have three cells: their style with the training concepts, their style
    with their own unseen concepts, and the training styles with those. Raises UserError for an
    unknown split or cell, and for "train" without `allow_train`.
    """
    one_of(task, "split", split, SPLITS)
    known = (SEEN_SEEN,) if split == "train" else CELLS
    for cell in cells:
        one_of(task, "cells", cell, known)
    if split == "train" and not allow_train:
        raise UserError(
            f"{where(task)}.split: 'train' is what the models are trained on; use 'validation' "
            "or 'test', or set allow_train = true"
        )
    if split == "train":
        table = [("train", "train", SEEN_SEEN)]
    else:
        table = [
            (split, "train", SEEN_UNSEEN),
            (split, split, UNSEEN_UNSEEN),
            ("train", split, UNSEEN_SEEN),
        ]
    found = [
        Picture(key, key.partition("/")[0], concept, cell)
        for style, concepts, cell in table
        if not cells or cell in cells
        for key, concept in data.pictures(style)
        if concept.split == concepts
    ]
    return sorted(found, key=lambda p: stable_hash("order", p.vendor, p.concept.id))


def in_all_languages(
    data: EmojiData, pictures: Iterable[Picture], languages: Sequence[str]
) -> list[Picture]:
    """Return the pictures whose concepts have a name in every language: parallel items."""
    return [p for p in pictures if all(data.name(p.concept, tag) for tag in languages)]


def first_per_cell(pictures: Sequence[Picture], count: int) -> list[Picture]:
    """Return the first `count` pictures of each cell, in order; all of them when `count` is 0."""
    if not count:
        return list(pictures)
    ranks = rank_in_cell(pictures)
    return [p for p in pictures if ranks[p.key] < count]


def rank_in_cell(pictures: Iterable[Picture]) -> dict[str, int]:
    """Return, by picture key, how many pictures of its cell come before each picture."""
    ranks: dict[str, int] = {}
    seen: dict[str, int] = {}
    for picture in pictures:
        ranks[picture.key] = seen.get(picture.cell, 0)
        seen[picture.cell] = ranks[picture.key] + 1
    return ranks


def describe(split: str, left_out: int) -> Mapping[str, str]:
    """Return the description of samples of a split, for results."""
    return {
        "source": "emoji (Unicode CLDR names; Noto, Twemoji, OpenMoji, Fluent pictures)",
        "licence": LICENCE,
        "split": split,
        "left_out": f"{left_out} pictures whose concept has no name in one of the languages",
    }


def _caption(data: EmojiData, picture: Picture, language: str) -> Sample:
    return Sample(
        id=sample_id(picture),
        language=language,
        image=picture.key,
        references=data.references(picture.concept, language),
        cluster=picture.concept.id,
        cell=picture.cell,
    )


def _choice(data: EmojiData, picture: Picture, language: str, position: int) -> Sample:
    wrong = shared_choices(data).wrong(picture.concept)
    right = data.name(picture.concept, language)
    options = place_right([data.name(c, language) for c in wrong], right, position)
    return Sample(
        id=sample_id(picture),
        language=language,
        image=picture.key,
        references=(right,),
        cluster=picture.concept.id,
        options=options,
        answer=position,
        cell=picture.cell,
    )


def sample_id(picture: Picture) -> str:
    """Return "<vendor>/<concept id>", the same in every language."""
    return f"{picture.vendor}/{picture.concept.id}"
