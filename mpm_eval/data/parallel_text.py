"""Parallel sentences in plain files: one file per language, one sentence per line, line by line."""

from dataclasses import dataclass

from mpm_eval.data._rows import folder_of, inside
from mpm_eval.data._samples import SampleSet, no_image, read_options, where
from mpm_eval.errors import UserError
from mpm_eval.schema import Sample, Task
from mpm_eval.strict import canonical_sha256, read_text

_PLACE = "{language}"


@dataclass(frozen=True, slots=True)
class ParallelOptions:
    """The table [data] of a task with source "parallel_text"."""

    source: str
    path: str  # folder, relative to the task file
    files: str = "{language}.txt"
    count: int = 0  # at most so many sentences, the first ones; 0: all


def open_parallel_text(task: Task) -> SampleSet:
    """Return one sample per line: the sentence is the question; the id is the line's number.

    Raises UserError for a task that is no probe, a missing file, files of unequal length and an
    empty line: no guess which line was lost could be trusted.
    """
    options = read_options(ParallelOptions, task)
    if task.kind != "probe":
        raise UserError(
            f"{where(task)}.source: sentences ask nothing, the task's kind is '{task.kind}'; "
            'set kind = "probe"'
        )
    if _PLACE not in options.files:
        raise UserError(
            f"{where(task)}.files: '{options.files}' has no {_PLACE}; write it where the file "
            "names have the language, e.g. test.{language}"
        )
    if options.count < 0:
        raise UserError(f"{where(task)}.count: must be at least 0, got {options.count}")
    lines = {tag: _lines(task, options, tag) for tag in task.languages}
    _require_equal_lengths(task, options, lines)

    def make(language: str) -> list[Sample]:
        found = lines[language][: options.count] if options.count else lines[language]
        return [
            Sample(
                id=str(number),
                language=language,
                image=None,
                references=(line,),
                cluster=str(number),
                question=line,
            )
            for number, line in enumerate(found, start=1)
        ]

    return SampleSet(
        task=task.name,
        languages=task.languages,
        make=make,
        load=no_image,
        sha256=canonical_sha256(lines),
        description={
            "source": "parallel_text",
            "path": options.path,
            "files": options.files,
            "lines": str(len(lines[task.languages[0]])),
        },
    )


def _lines(task: Task, options: ParallelOptions, language: str) -> list[str]:
    folder = folder_of(task, options.path, where(task))
    name = options.files.replace(_PLACE, language)
    path = inside(folder, name, f"{where(task)}.files")
    if not path.is_file():
        raise UserError(f"{where(task)}.files: no file {folder / name}")
    # Not splitlines(): it also breaks at U+2028 and friends, which may be inside a sentence.
    lines = [line.strip() for line in read_text(path).split("\n")]
    if lines and not lines[-1]:
        lines.pop()  # the end of the last line, not a line
    if not lines:
        raise UserError(f"{folder / name}: is empty; write one sentence per line")
    for number, line in enumerate(lines, start=1):
        if not line:
            raise UserError(
                f"{folder / name}:{number}: empty line; write the sentence, or remove this line "
                "from the file of every language"
            )
    return lines


def _require_equal_lengths(
    task: Task, options: ParallelOptions, lines: dict[str, list[str]]
) -> None:
    first = task.languages[0]
    for tag, found in lines.items():
        if len(found) != len(lines[first]):
            raise UserError(
                f"{where(task)}.files: {options.files.replace(_PLACE, tag)} has {len(found)} lines "
                f"and {options.files.replace(_PLACE, first)} has {len(lines[first])}; line i must "
                "mean the same in every language"
            )
