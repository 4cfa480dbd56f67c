"""Finding the picture of a caption, and the caption of a picture: xFlickr&CO."""

from dataclasses import dataclass
from typing import Any

from mpm_eval.data._samples import SampleSet, one_of
from mpm_eval.data.benchmarks._files import (
    Options,
    open_source,
    pick,
    picture_loader,
    picture_name,
)
from mpm_eval.errors import UserError
from mpm_eval.schema import Sample, Task
from mpm_eval.strict import read_jsonl

QUERIES = ("text", "image")


@dataclass(frozen=True, slots=True)
class RetrievalOptions(Options):
    """The table [data] of a task with source "xflickrco"."""

    query: str = "text"  # one of QUERIES; the other is what is ranked


@dataclass(frozen=True, slots=True)
class _Line:
    id: str
    img_path: str
    sentences: tuple[str, ...]


def open_xflickrco(task: Task) -> SampleSet:
    """Return a query for each line of a language's JSONL file, and all its lines as candidates.

    As in IGLUE, a picture has one caption in a language, so that a picture's id is also that of
    its caption; queries and candidates go by it. Raises UserError with file and line for a bad
    line, several captions, and languages with different pictures.
    """
    source = open_source(RetrievalOptions, task)
    one_of(task, "query", source.options.query, QUERIES)
    files = {tag: source.file(tag) for tag in task.languages}
    lines = {tag: dict(_line(*found) for found in _numbered(file)) for tag, file in files.items()}
    names = {line.img_path for found in lines.values() for line in found.values()}
    first, *others = lines.items()
    if not first[1]:
        raise UserError(f"{files[first[0]]}: is empty")
    for tag, found in others:
        unpaired = found.keys() ^ first[1].keys()
        if unpaired:
            raise UserError(
                f"{files[tag]}: id '{min(unpaired)}' is only here or only in {files[first[0]]} "
                f"({len(unpaired)} such ids); all languages must caption the same pictures"
            )
    candidates = tuple(first[1])

    def make(language: str) -> list[Sample]:
        return [
            _sample(line, language, source.options.query, candidates)
            for line in lines[language].values()
        ]

    return source.sample_set(
        make,
        picture_loader(source, names),
        files.values(),
        {"parallel": "yes", "candidates": str(len(candidates))},
    )


def _numbered(file: Any) -> list[tuple[str, dict[str, Any]]]:
    found: list[tuple[str, dict[str, Any]]] = []
    seen: set[str] = set()
    for number, content in read_jsonl(file):
        place = f"{file}:{number}"
        # numbers for COCO's pictures, texts for Flickr's
        key = str(content.get("id", ""))
        if not key:
            raise UserError(f"{place}: key 'id' is missing")
        if key in seen:
            raise UserError(f"{place}: id '{key}' is given twice; ids must be unique in a language")
        seen.add(key)
        found.append((place, {**content, "id": key}))
    return found


def _line(place: str, content: dict[str, Any]) -> tuple[str, _Line]:
    line = pick(_Line, content, place)
    picture_name(line.img_path, place)
    if len(line.sentences) != 1:
        raise UserError(
            f"{place}: {len(line.sentences)} sentences, expected one: a picture has one caption in "
            "a language here"
        )
    return line.id, line


def _sample(line: _Line, language: str, query: str, candidates: tuple[str, ...]) -> Sample:
    by_text = query == "text"
    return Sample(
        id=line.id,
        language=language,
        image=None if by_text else line.img_path,
        references=(line.id,),
        cluster=line.id,
        question=line.sentences[0] if by_text else "",
        candidates=candidates,
    )
