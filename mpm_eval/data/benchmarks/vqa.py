"""Questions about pictures: xGQA and MaXM."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpm_eval.data._rows import Collected, Row
from mpm_eval.data._samples import SampleSet, where
from mpm_eval.data.benchmarks._files import (
    Options,
    open_source,
    pick,
    picture_loader,
    picture_name,
)
from mpm_eval.errors import UserError
from mpm_eval.schema import Task
from mpm_eval.strict import read_json


@dataclass(frozen=True, slots=True)
class _GqaQuestion:
    question: str
    imageId: str
    answer: str
    types: Mapping[str, Any] | None = None


def open_xgqa(task: Task) -> SampleSet:
    """Return xGQA's questions: a JSON object of question id -> GQA question, for each language.

    The answer is GQA's English label in every language. Categories are GQA's structural types
    (query, verify, logical, choose, compare). Raises UserError for a missing key, and for answers
    or pictures that differ between languages.
    """
    source = open_source(Options, task)
    collected = Collected(task)
    files = {tag: source.file(tag) for tag in task.languages}
    known: dict[str, tuple[str, str]] = {}  # id -> picture and answer
    names = []
    for tag, file in files.items():
        content = read_json(file)
        if not isinstance(content, Mapping):
            raise UserError(f"{file}: expected an object of question id -> question")
        for key, question in content.items():
            place = f"{file}: {key}"
            found = pick(_GqaQuestion, question, place)
            same = known.setdefault(key, (found.imageId, found.answer))
            if same != (found.imageId, found.answer):
                raise UserError(
                    f"{place}: imageId '{found.imageId}' and answer '{found.answer}', in another "
                    f"language '{same[0]}' and '{same[1]}'; take all files from one release"
                )
            names.append(picture_name(f"{found.imageId}.jpg", place))
            row = Row(
                id=key,
                language=tag,
                references=(found.answer,),
                question=found.question,
                image=names[-1],
                category=str((found.types or {}).get("structural", "")),
            )
            collected.add(row, place)
    collected.require(where(task))
    return source.sample_set(
        collected.samples,
        picture_loader(source, names),
        files.values(),
        {"parallel": collected.parallel()},
    )


@dataclass(frozen=True, slots=True)
class _MaxmPair:
    question_id: str
    question: str
    answers: tuple[str, ...]
    processed_answers: tuple[str, ...] = ()
    is_collection: bool = False


@dataclass(frozen=True, slots=True)
class _MaxmPicture:
    image_id: str
    qa_pairs: tuple[Mapping[str, Any], ...]


def open_maxm(task: Task) -> SampleSet:
    """Return MaXM's questions, one JSON file for each language; not parallel between languages.

    A sample's id is LANGUAGE/QUESTION_ID. References are the answers as given, then the processed
    ones. The category says whether a question asks for a collection of things. Raises UserError
    for a missing key and for a file whose `split` is another language.
    """
    source = open_source(Options, task)
    collected = Collected(task)
    files = {tag: source.file(tag) for tag in task.languages}
    names = []
    for tag, file in files.items():
        for place, picture in _maxm_pictures(file, source.code(tag)):
            names.append(picture_name(f"{picture.image_id}.jpg", place))
            for pair in picture.qa_pairs:
                collected.add(_maxm_row(pick(_MaxmPair, pair, place), tag, names[-1]), place)
    collected.require(where(task))
    return source.sample_set(
        collected.samples, picture_loader(source, names), files.values(), {"parallel": "no"}
    )


def _maxm_pictures(file: Path, code: str) -> Iterator[tuple[str, _MaxmPicture]]:
    content = read_json(file)
    if not isinstance(content, Mapping) or not isinstance(content.get("annotations"), list):
        raise UserError(f"{file}: key 'annotations': expected a list of pictures")
    if content.get("split", code) != code:
        raise UserError(
            f"{file}: split is '{content['split']}', expected '{code}'; is it the file of another "
            "language?"
        )
    for number, picture in enumerate(content["annotations"]):
        place = f"{file}: annotations[{number}]"
        yield place, pick(_MaxmPicture, picture, place)


def _maxm_row(pair: _MaxmPair, language: str, image: str) -> Row:
    return Row(
        id=f"{language}/{pair.question_id}",  # never paired with another language's question
        language=language,
        references=tuple(dict.fromkeys((*pair.answers, *pair.processed_answers))),
        question=pair.question,
        image=image,
        category="collection" if pair.is_collection else "single",
    )
