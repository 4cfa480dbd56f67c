"""Statements about pictures, true or not: MaRVL (two pictures) and XVNLI (one)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mpm_eval.data._rows import Collected, Row
from mpm_eval.data._samples import SampleSet, where
from mpm_eval.data.benchmarks._files import (
    Options,
    open_source,
    pick,
    picture_loader,
    picture_name,
)
from mpm_eval.errors import UserError, unknown
from mpm_eval.schema import Task
from mpm_eval.strict import read_jsonl

if TYPE_CHECKING:
    from PIL.Image import Image

TRUTH = ("true", "false")  # MaRVL's labels, in the order of the options
ENTAILMENT = ("entailment", "neutral", "contradiction")  # XVNLI's


@dataclass(frozen=True, slots=True)
class StatementOptions(Options):
    """The table [data] of a task with true and false statements."""

    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # language -> its words


@dataclass(frozen=True, slots=True)
class _MarvlLine:
    id: str
    concept: str
    caption: str
    left_img: str
    right_img: str
    label: bool
    chapter: str = ""


def open_marvl(task: Task) -> SampleSet:
    """Return MaRVL's statements about two pictures, one JSONL file for each language.

    The two pictures are shown as one, left beside right; the key of a pair is "left|right". A
    concept's statements share its pictures and are one cluster. Options are in the order true,
    false. Raises UserError with file and line for a bad line.
    """
    source = open_source(StatementOptions, task)
    words = _words(source.options.options, TRUTH, task)
    collected = Collected(task)
    files = {tag: source.file(tag) for tag in task.languages}
    pairs: dict[str, tuple[str, str]] = {}
    for tag, file in files.items():
        for number, content in read_jsonl(file):
            place = f"{file}:{number}"
            line = pick(_MarvlLine, content, place)
            folder = f"{source.code(tag)}/images/{line.concept}"
            left, right = (
                picture_name(f"{folder}/{name}", place) for name in (line.left_img, line.right_img)
            )
            key = f"{left}|{right}"
            pairs[key] = (left, right)
            row = Row(
                id=line.id,
                language=tag,
                question=line.caption,
                image=key,
                options=words[tag],
                answer=0 if line.label else 1,
                category=line.chapter,
                cluster=f"{tag} {line.concept}",
            )
            collected.add(row, place)
    collected.require(where(task))
    load = picture_loader(source, (name for pair in pairs.values() for name in pair))
    return source.sample_set(
        collected.samples,
        _side_by_side(load, pairs),
        files.values(),
        {"parallel": "no", "pictures": "two in one, left beside right"},
    )


@dataclass(frozen=True, slots=True)
class _XvnliLine:
    pairID: str
    gold_label: str
    sentence2: str
    Flikr30kID: str  # as the files spell it


def open_xvnli(task: Task) -> SampleSet:
    """Return XVNLI's hypotheses about a picture, one JSONL file for each language.

    The picture is the premise; the caption that it replaces is not shown. Options are in the
    order entailment, neutral, contradiction. Lines on which the annotators did not agree (gold
    label "-") are left out and counted. Raises UserError with file and line for a bad line.
    """
    source = open_source(StatementOptions, task)
    words = _words(source.options.options, ENTAILMENT, task)
    collected = Collected(task)
    files = {tag: source.file(tag) for tag in task.languages}
    names = []
    undecided = 0
    for tag, file in files.items():
        for number, content in read_jsonl(file):
            place = f"{file}:{number}"
            line = pick(_XvnliLine, content, place)
            if line.gold_label == "-":
                undecided += 1
                continue
            if line.gold_label not in ENTAILMENT:
                raise unknown("label", line.gold_label, (*ENTAILMENT, "-"), f"{place}: gold_label")
            names.append(picture_name(f"{line.Flikr30kID}.jpg", place))
            row = Row(
                id=line.pairID,
                language=tag,
                question=line.sentence2,
                image=names[-1],
                options=words[tag],
                answer=ENTAILMENT.index(line.gold_label),
            )
            collected.add(row, place)
    collected.require(where(task))
    return source.sample_set(
        collected.samples,
        picture_loader(source, names),
        files.values(),
        {
            "parallel": collected.parallel(),
            "left_out": f"{undecided} lines without an agreed label, all languages together",
        },
    )


def _words(
    given: Mapping[str, tuple[str, ...]], labels: tuple[str, ...], task: Task
) -> Mapping[str, tuple[str, ...]]:
    for tag in task.languages:
        if len(given.get(tag, ())) != len(labels):
            raise UserError(
                f"{where(task)}.options.{tag}: expected {len(labels)} words, for "
                f"{', '.join(labels)}; got {len(given.get(tag, ()))}"
            )
    return given


def _side_by_side(
    load: "Callable[[str], Image]", pairs: Mapping[str, tuple[str, str]]
) -> "Callable[[str], Image]":
    """Return the loader of pairs as one picture: equal heights, a white bar between them."""

    def load_pair(key: str) -> "Image":
        from PIL import Image

        found = [load(name) for name in pairs[key]]
        height = min(picture.height for picture in found)
        left, right = (
            picture.resize((max(1, round(picture.width * height / picture.height)), height))
            for picture in found
        )
        bar = max(1, height // 32)
        both = Image.new("RGB", (left.width + bar + right.width, height), "white")
        both.paste(left, (0, 0))
        both.paste(right, (left.width + bar, 0))
        return both

    return load_pair
