"""Captions in many languages: Crossmodal-3600, Multi30K and COCO-CN."""

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

from mpm_eval.data._rows import Collected, Row
from mpm_eval.data._samples import SampleSet, where
from mpm_eval.data.benchmarks._files import (
    Options,
    Source,
    open_source,
    pick,
    picture_loader,
    picture_name,
    read_lines,
)
from mpm_eval.errors import UserError
from mpm_eval.schema import Task
from mpm_eval.strict import read_jsonl


@dataclass(frozen=True, slots=True)
class _Captions:
    caption: tuple[str, ...]


def open_xm3600(task: Task) -> SampleSet:
    """Return a sample per picture and language of Crossmodal-3600's captions.jsonl.

    A line holds "image/key" and, per language, {"caption": [...]}; all captions are references.
    Pictures without a caption in a language are left out of it and counted in the description.
    Raises UserError with file and line for a bad line or a key given twice.
    """
    source = open_source(Options, task)
    file = source.file()
    collected = Collected(task)
    empty: Counter[str] = Counter()
    names = []
    for number, content in read_jsonl(file):
        place = f"{file}:{number}"
        key = content.get("image/key")
        if not isinstance(key, str) or not key:
            raise UserError(f"{place}: key 'image/key': expected a text, the picture's id")
        names.append(picture_name(f"{key}.jpg", place))
        for tag in task.languages:
            code = source.code(tag)
            if code not in content:
                raise UserError(f"{place}: key '{code}' is missing, the captions in that language")
            found = pick(_Captions, content[code], f"{place}: {code}").caption
            captions = tuple(caption for caption in found if caption.strip())
            if captions:
                collected.add(_row(key, tag, captions, names[-1]), place)
            else:
                empty[tag] += 1
    collected.require(str(file))
    left_out = ", ".join(f"{tag} {count}" for tag, count in empty.items())
    return source.sample_set(
        collected.samples,
        picture_loader(source, names),
        [file],
        {"parallel": collected.parallel(), "pictures_without_captions": left_out or "none"},
    )


def open_multi30k(task: Task) -> SampleSet:
    """Return a sample per picture and language of Multi30K's task 1: one description in each.

    `data.ids` lists the pictures, one a line; line i of a language's file (plain or gzip)
    describes picture i. Raises UserError for files of unequal length and empty lines.
    """
    source = open_source(Options, task)
    ids = [line.strip() for line in read_lines(source.ids())]
    # "picture.jpg#id" in the test set from COCO
    names = [picture_name(key.partition("#")[0], str(source.ids())) for key in ids]
    collected = Collected(task)
    files = {tag: source.file(tag) for tag in task.languages}
    for tag, file in files.items():
        lines = read_lines(file)
        if len(lines) != len(ids):
            raise UserError(
                f"{file}: has {len(lines)} lines, {source.ids()} has {len(ids)}; they must be of "
                "the same split, one description for each picture"
            )
        for number, (key, name, line) in enumerate(zip(ids, names, lines, strict=True), start=1):
            collected.add(_row(key, tag, (line.strip(),), name), f"{file}:{number}")
    collected.require(where(task))
    return source.sample_set(
        collected.samples,
        picture_loader(source, names),
        [source.ids(), *files.values()],
        {"parallel": collected.parallel()},
    )


def open_coco_cn(task: Task) -> SampleSet:
    """Return a sample per picture of a split of COCO-CN, with all its Chinese captions.

    `data.ids` lists the pictures of the split; the captions are lines "PICTURE#NUMBER", a tab or
    a space, and the caption. Raises UserError with file and line for a bad line, and for pictures
    without a caption.
    """
    source = open_source(Options, task)
    if len(task.languages) != 1:
        raise UserError(f"{where(task)}: COCO-CN is in one language; list one in languages")
    ids = [line.strip() for line in read_lines(source.ids()) if line.strip()]
    captions = _coco_cn_captions(source)
    missing = [key for key in ids if key not in captions]
    if missing:
        raise UserError(
            f"{source.file()}: no caption of '{missing[0]}' of {source.ids()} "
            f"({len(missing)} are missing)"
        )
    collected = Collected(task)
    names = [picture_name(f"{key}.jpg", str(source.ids())) for key in ids]
    for number, (key, name) in enumerate(zip(ids, names, strict=True), start=1):
        row = _row(key, task.languages[0], tuple(captions[key]), name)
        collected.add(row, f"{source.ids()}:{number}")
    collected.require(str(source.ids()))
    return source.sample_set(
        collected.samples, picture_loader(source, names), [source.ids(), source.file()], {}
    )


def _coco_cn_captions(source: Source[Any]) -> dict[str, list[str]]:
    file = source.file()
    found: dict[str, list[str]] = defaultdict(list)
    for number, line in enumerate(read_lines(file), start=1):
        if not line.strip():
            continue
        key, *rest = line.split(maxsplit=1)
        picture, mark, _ = key.partition("#")
        if not (mark and picture and rest):
            raise UserError(f"{file}:{number}: expected PICTURE#NUMBER, a tab and a caption")
        found[picture].append(rest[0].strip())
    return found


def _row(key: str, language: str, captions: tuple[str, ...], name: str) -> Row:
    return Row(id=key, language=language, references=captions, image=name, closed=False)
