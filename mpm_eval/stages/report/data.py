"""Data: the JSON that the sample browser reads, with texts cut so that the file stays small."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mpm_eval.stages.report.pictures import NONE, Pictures
from mpm_eval.stages.report.samples import Answer, Group, Member, TaskSamples, flips
from mpm_eval.stages.report.tables import language_name

# characters kept of one text: the first limit at which all texts fit is taken
TEXT_LIMITS = (20_000, 4_000, 1_000, 300, 100, 20)
# for 1,000 samples: with the page around them this stays below 5 MB
MAX_BYTES, PICTURE_BYTES = 4_000_000, 2_000_000

Places = Mapping[tuple[str, str | None], int]  # (task, key of a picture) -> place in `pictures`


def browser_data(
    tasks: Sequence[TaskSamples], runs: Sequence[str], languages: Sequence[str]
) -> tuple[str, int]:
    """Return (JSON of the samples, characters kept of each text).

    A text is a string, or [beginning, number of characters] where it was cut. The JSON can stand
    between script tags: it has no "<".
    """
    num_samples = sum(len(task.groups) for task in tasks)
    scale = max(1.0, num_samples / 1000)
    pictures = Pictures()
    places = {
        (task.name, key): pictures.add(task.dataset, key) if task.dataset else NONE
        for task in tasks
        for key in dict.fromkeys(m.sample.image for g in task.groups for m in g.members.values())
    }
    head = _json(
        {
            "runs": list(runs),
            "languages": {tag: list(language_name(tag)) for tag in languages},
            "pictures": pictures.addresses(round(PICTURE_BYTES * scale)),
        }
    )
    text, limit = "", TEXT_LIMITS[0]
    for limit in TEXT_LIMITS:
        text = _json([_task(task, places, limit) for task in tasks])
        if len(head) + len(text.encode()) <= MAX_BYTES * scale:
            break
    return f'{head[:-1]},"tasks":{text}}}', limit


def _json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # "<" alone can end a script element; the two separators end a line in old JavaScript
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _task(task: TaskSamples, places: Places, limit: int) -> dict[str, Any]:
    return {
        "name": task.name,
        "metrics": list(task.metrics),
        "samples": [_group(task.name, group, places, limit) for group in task.groups],
    }


def _group(task: str, group: Group, places: Places, limit: int) -> dict[str, Any]:
    sample = group.first
    by = {tag: _member(member, limit) for tag, member in group.members.items()}
    for tag, member in group.members.items():
        if member.sample.image != sample.image:  # a picture of this language's own
            by[tag]["p"] = places[task, member.sample.image]
    return {
        "id": group.id,
        "picture": places[task, sample.image],
        "category": sample.category,
        "cell": sample.cell,
        "by": by,
    }


def _member(member: Member, limit: int) -> dict[str, Any]:
    found: dict[str, Any] = {
        "q": _cut(member.question, limit),
        "r": [_cut(reference, limit) for reference in member.sample.references[:5]],
        "a": [answer and _answer(answer, limit) for answer in member.answers],
    }
    if member.sample.options:
        found["o"] = [_cut(option, limit) for option in member.sample.options]
    if flip := flips(member.answers):
        found["f"] = flip
    return found


def _answer(answer: Answer, limit: int) -> dict[str, Any]:
    found: dict[str, Any] = {"t": _cut(answer.text, limit), "v": answer.verdict}
    if answer.values:
        found["m"] = [None if value is None else round(value, 1) for value in answer.values]
    if answer.error:
        found["e"] = _cut(answer.error, limit)
    return found


def _cut(text: str, limit: int) -> str | list[str | int]:
    return text if len(text) <= limit else [text[:limit], len(text)]
