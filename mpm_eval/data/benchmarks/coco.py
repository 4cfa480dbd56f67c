"""MSCOCO captions to paint from, with the photographs that painted ones are measured against."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from mpm_eval.data._emoji_data import stable_hash
from mpm_eval.data._samples import SampleSet, where
from mpm_eval.data.benchmarks._files import (
    Options,
    open_source,
    pick,
    picture_loader,
    picture_name,
)
from mpm_eval.errors import UserError
from mpm_eval.schema import Sample, Task
from mpm_eval.strict import read_json

_RULE = "pictures in hash order of their ids; of each the caption that is first in hash order"


@dataclass(frozen=True, slots=True)
class CocoOptions(Options):
    """The table [data] of a task with source "coco"."""

    count: int = 30_000  # pictures, one caption each; 0: all


@dataclass(frozen=True, slots=True)
class _Picture:
    """One record of `images`."""

    id: int
    file_name: str


@dataclass(frozen=True, slots=True)
class _Caption:
    """One record of `annotations`."""

    id: int
    image_id: int
    caption: str


@dataclass(frozen=True, slots=True)
class _File:
    """A file in the layout of captions_val2014.json."""

    pictures: dict[int, str]  # id -> file name
    captions: dict[int, _Caption]  # by id


def open_coco(task: Task) -> SampleSet:
    """Return one caption of each of `data.count` pictures, the same captions in every language.

    `data.file` is in the layout of captions_val2014.json; `data.codes` tells the files of the
    languages apart. A translation has the ids of captions and pictures of the pivot's file. Which
    pictures and captions depends on their ids alone. Raises UserError for a file that is missing or
    wrong, and for a translation that lacks a caption.
    """
    source = open_source(CocoOptions, task)
    files = {tag: source.file(tag) for tag in task.languages}
    pivot = task.pivot if task.pivot in files else task.languages[0]
    known = _read(files[pivot])
    chosen = _chosen(known, source.options.count, files[pivot], task)
    captions = {pivot: known.captions}
    for tag, file in files.items():
        if tag != pivot:
            captions[tag] = _read(file).captions
            _require_all(chosen, captions[tag], file, files[pivot])
    names = [picture_name(known.pictures[c.image_id], str(files[pivot])) for c in chosen]

    def make(language: str) -> list[Sample]:
        return [
            Sample(
                id=str(caption.image_id),
                language=language,
                image=name,
                references=(captions[language][caption.id].caption.strip(),),
                cluster=str(caption.image_id),
                question=captions[language][caption.id].caption.strip(),
            )
            for caption, name in zip(chosen, names, strict=True)
        ]

    description = {"sampling": _RULE, "count": str(len(chosen))}
    load = picture_loader(source, names)
    return source.sample_set(make, load, files.values(), description)


def _chosen(known: _File, count: int, file: Path, task: Task) -> list[_Caption]:
    by_picture: dict[int, list[_Caption]] = defaultdict(list)
    for caption in known.captions.values():
        by_picture[caption.image_id].append(caption)
    if count < 0:
        raise UserError(f"{where(task)}.count: must be 0 or more, got {count}")
    if count > len(by_picture):
        raise UserError(
            f"{file}: has {len(by_picture)} pictures with a caption, {where(task)}.count asks for "
            f"{count}; get the whole file, or lower the count"
        )
    ordered = sorted(by_picture, key=lambda key: stable_hash("picture", str(key)))
    return [
        min(by_picture[key], key=lambda c: stable_hash("caption", str(c.id)))
        for key in ordered[: count or None]
    ]


def _require_all(
    chosen: list[_Caption], captions: dict[int, _Caption], file: Path, pivot: Path
) -> None:
    missing = [c.id for c in chosen if c.id not in captions]
    if missing:
        raise UserError(
            f"{file}: no caption with id {missing[0]}, which {pivot} has ({len(missing)} of "
            f"{len(chosen)} are missing); a translation keeps the ids"
        )
    for caption in chosen:
        if captions[caption.id].image_id != caption.image_id:
            raise UserError(
                f"{file}: caption {caption.id} is of picture {captions[caption.id].image_id}, in "
                f"{pivot} of {caption.image_id}; a translation keeps the ids"
            )


def _read(file: Path) -> _File:
    content = read_json(file)
    if not isinstance(content, dict):
        raise UserError(f"{file}: expected an object with 'images' and 'annotations'")
    for key in ("images", "annotations"):
        if not isinstance(content.get(key), list) or not content[key]:
            raise UserError(f"{file}: {key}: expected a list of records, as in COCO's captions")
    pictures: dict[int, str] = {}
    for number, record in enumerate(content["images"]):
        picture = pick(_Picture, record, f"{file}: images[{number}]")
        pictures[picture.id] = picture.file_name
    captions: dict[int, _Caption] = {}
    for number, record in enumerate(content["annotations"]):
        place = f"{file}: annotations[{number}]"
        caption = pick(_Caption, record, place)
        if caption.id in captions:
            raise UserError(f"{place}: id {caption.id} is given twice")
        if caption.image_id not in pictures:
            raise UserError(f"{place}: image_id {caption.image_id} is of no picture in 'images'")
        if not caption.caption.strip():
            raise UserError(f"{place}: caption {caption.id} is empty")
        captions[caption.id] = caption
    return _File(pictures, captions)
