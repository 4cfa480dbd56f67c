"""LLaVA's test sets and their translations, read from the official files as they are.

Four files, each in a folder of the user's: questions, reference answers, what the pictures show in
words, and the judge's rules. Files are joined by question_id and picture, never by line.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mpm_eval.data._local import DATA, require_folder
from mpm_eval.data._rows import decode, inside
from mpm_eval.data._samples import SampleSet, read_options, where
from mpm_eval.errors import CorruptImage, UserError, unknown
from mpm_eval.languages import PIVOT
from mpm_eval.schema import Brief, Sample, Task
from mpm_eval.strict import build, canonical_sha256, read_json, read_jsonl, to_jsonable

if TYPE_CHECKING:
    from PIL.Image import Image

_COCO = Path("coco/val2014")  # in the folder of the user's data
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LlavaOptions:
    """The table [data] of a task with source "llava"; file names are those of the English files."""

    source: str
    path: str = ""  # folder, relative to the task file or in $MPM_EVAL_DATA
    id: str = ""  # instead: a data set of the hub
    revision: str = ""  # its commit
    questions: str = "qa90_questions.jsonl"
    answers: str = "qa90_gpt4_answer.jsonl"
    contexts: str = "caps_boxes_coco2014_val_80.jsonl"
    rules: str = "rule.json"
    rule_prefix: str = ""  # what the rules put before a category
    images: str = "images"  # folder in the folder; COCO pictures also in $MPM_EVAL_DATA
    origin: str = ""  # where to get the files, for the message when they are missing


@dataclass(frozen=True, slots=True)
class _Question:
    question_id: str
    image: str
    text: str
    category: str


@dataclass(frozen=True, slots=True)
class _Answer:
    question_id: str
    text: str


@dataclass(frozen=True, slots=True)
class _Box:
    category: str
    bbox: tuple[Any, ...]  # as written: LLaVA's prompt repeats the digits of the file


@dataclass(frozen=True, slots=True)
class _Context:
    image: str
    captions: tuple[str, ...] | None = None
    caption: Any = None  # a text or several, in the files of llava-bench-in-the-wild
    instances: tuple[_Box, ...] | None = None  # None: a set without boxes


@dataclass(frozen=True, slots=True)
class _Rule:
    role: str
    prompt: str


def open_llava(task: Task) -> SampleSet:
    """Return the samples of LLaVA's official files; see docs/judging.md.

    A language's file is <language>/NAME or NAME in the folder, NAME with _<language> before its
    ending; without it for English and inside <language>/. The pictures may be missing: they are
    asked for when a model is to see them, and their bytes are no part of `sha256`, so that answers
    can be judged on a machine without them.

    Raises UserError with file and line for a missing file or line, ids that do not match, a
    picture without words, a category without a rule, and languages that are not parallel.
    """
    options = read_options(LlavaOptions, task)
    folder = _folder(options, task)
    found = {tag: _read_language(folder, options, tag, task) for tag in task.languages}
    _require_parallel(found, task)
    names = {sample.image or "" for samples in found.values() for sample in samples}
    return SampleSet(
        task=task.name,
        languages=task.languages,
        make=lambda tag: found[tag],
        load=_loader(folder, options, names),
        sha256=canonical_sha256(to_jsonable(found)),
        description={"source": "llava", "path": options.path or options.id,
                     "revision": options.revision},
    )  # fmt: skip


def _folder(options: LlavaOptions, task: Task) -> Path:
    if bool(options.path) == bool(options.id):
        raise UserError(f"{where(task)}: give either path (a folder) or id (a hub data set)")
    if options.id:
        return _snapshot(options, task)
    needs = f"{options.questions} and the three files beside it"
    return require_folder(task, options.path, needs, options.origin)


def _snapshot(options: LlavaOptions, task: Task) -> Path:
    if len(options.revision) != 40:
        raise UserError(f"{where(task)}.revision: give the commit of the data set, 40 digits")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise UserError(f"{where(task)}.id: needs pip install 'mpm-eval[hub]'") from None
    try:
        return Path(snapshot_download(options.id, repo_type="dataset", revision=options.revision))
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{where(task)}.id: cannot load '{options.id}' at {options.revision[:8]}: {reason}"
        ) from None


def _file(folder: Path, name: str, language: str, task: Task) -> Path:
    """Return the file of a language; raises UserError when there is none, or more than one."""
    stem, dot, ending = name.rpartition(".")
    suffixed = f"{stem}_{language}{dot}{ending}"
    names = [f"{language}/{suffixed}", f"{language}/{name}", suffixed]
    names += [name] if language == PIVOT else []
    found = [n for n in names if inside(folder, n, where(task)).is_file()]
    if len(found) == 1:
        return folder / found[0]
    if found:
        raise UserError(f"{folder}: both {' and '.join(found)} are there; remove one")
    raise UserError(f"{folder}: none of {', '.join(names)} is there; every language needs one")


def _read_language(
    folder: Path, options: LlavaOptions, language: str, task: Task
) -> tuple[Sample, ...]:
    files = {
        name: _file(folder, getattr(options, name), language, task)
        for name in ("questions", "answers", "contexts", "rules")
    }
    questions = _by(_Question, files["questions"], lambda row: row.question_id)
    answers = _by(_Answer, files["answers"], lambda row: row.question_id)
    contexts = _by(_Context, files["contexts"], lambda row: row.image)
    rules = _rules(files["rules"])
    _require_same(questions, answers, files)
    samples = []
    for key, (place, question) in questions.items():
        if question.image not in contexts:
            raise UserError(f"{place}: image '{question.image}' is not in {files['contexts']}")
        name = options.rule_prefix + question.category
        if name not in rules:
            raise unknown("category", name, rules, f"{place}: category: {files['rules']}")
        answer_place, answer = answers[key]
        if not (question.text.strip() and answer.text.strip()):
            raise UserError(f"{place} or {answer_place}: text: is empty")
        context_place, context = contexts[question.image]
        rule = rules[name]
        samples.append(
            Sample(
                id=key,
                language=language,
                image=question.image,
                references=(answer.text,),
                cluster=question.image,
                question=question.text,
                category=question.category,
                closed=False,
                brief=Brief(_context_text(context, context_place), rule.role, rule.prompt),
            )
        )
    return tuple(samples)


def _by(cls: type[T], path: Path, key: Callable[[T], str]) -> dict[str, tuple[str, T]]:
    """Return key -> (place, row) of a JSONL file; further fields of its lines are left out."""
    found: dict[str, tuple[str, T]] = {}
    for number, line in read_jsonl(path):
        place = f"{path}:{number}"
        row = _pick(cls, line, place)
        if key(row) in found:
            raise UserError(f"{place}: '{key(row)}' is already in {found[key(row)][0]}")
        found[key(row)] = (place, row)
    if not found:
        raise UserError(f"{path}: is empty")
    return found


def _pick(cls: type[T], line: Mapping[str, Any], place: str) -> T:
    known = {item.name for item in fields(cls)}  # type: ignore[arg-type]
    content = {name: value for name, value in line.items() if name in known}
    number = content.get("question_id")
    if isinstance(number, int) and not isinstance(number, bool):
        content["question_id"] = str(number)  # a number in LLaVA's files, a text in others
    return build(cls, content, place)


def _rules(path: Path) -> dict[str, _Rule]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected an object of rules by category")
    return {name: _pick(_Rule, rule, f"{path}: {name}") for name, rule in content.items()}


def _require_same(
    questions: Mapping[str, Any], answers: Mapping[str, Any], files: Mapping[str, Path]
) -> None:
    for found, others, file, other in (
        (questions, answers, files["questions"], files["answers"]),
        (answers, questions, files["answers"], files["questions"]),
    ):
        missing = [key for key in found if key not in others]
        if missing:
            raise UserError(
                f"{other}: no line for question_id {missing[0]} of {file} "
                f"({len(missing)} are missing)"
            )


def _require_parallel(found: Mapping[str, tuple[Sample, ...]], task: Task) -> None:
    first, *others = found.items()
    wanted = {s.id: (s.image, s.category) for s in first[1]}
    for tag, samples in others:
        for sample in samples:
            if wanted.get(sample.id) != (sample.image, sample.category):
                raise UserError(
                    f"{where(task)}: question_id {sample.id} has picture '{sample.image}' and "
                    f"category '{sample.category}' in '{tag}', another or none in '{first[0]}'"
                )


def _context_text(context: _Context, place: str) -> str:
    """Return captions, one a line, and in a set with boxes an empty line and these, one a line."""
    captions = context.captions if context.captions is not None else context.caption
    lines = [captions] if isinstance(captions, str) else captions
    if not isinstance(lines, list | tuple) or not all(isinstance(line, str) for line in lines):
        raise UserError(f"{place}: captions (or caption): expected a text or a list of texts")
    text = "\n".join(lines)
    if context.instances is None:
        return text
    for box in context.instances:
        numbers = [v for v in box.bbox if isinstance(v, int | float) and not isinstance(v, bool)]
        if len(box.bbox) != 4 or len(numbers) != 4:
            raise UserError(f"{place}: bbox: expected 4 numbers, got {list(box.bbox)}")
    boxes = "\n".join(f"{box.category}: {list(box.bbox)}" for box in context.instances)
    return f"{text}\n\n{boxes}"


def _loader(folder: Path, options: LlavaOptions, names: set[str]) -> "Callable[[str], Image]":
    folders = [folder / options.images]
    if os.environ.get(DATA):
        folders.append(Path(os.environ[DATA]) / _COCO)

    def find(name: str) -> Path | None:
        # COCO's own file names carry the split in front of the number
        tried = [(f, n) for f in folders for n in (name, f"COCO_val2014_{name}")]
        paths = (inside(f, n, "picture") for f, n in tried if f.is_dir())
        return next((path for path in paths if path.is_file()), None)

    def load(name: str) -> "Image":
        path = find(name)
        if path is not None:
            try:
                return decode(path.read_bytes(), name)
            except OSError as error:
                raise CorruptImage(f"{name}: cannot be read: {error.strerror}") from error
        if not any(find(other) for other in names):
            raise UserError(
                f"no picture of the set is in {' or '.join(map(str, folders))}; COCO val2014 is at "
                f"http://images.cocodataset.org/zips/val2014.zip, unpack it into ${DATA}/{_COCO}, "
                f"or put the pictures into {folders[0]}"
            )
        raise CorruptImage(f"{name}: no such picture in {' or '.join(map(str, folders))}")

    return load
