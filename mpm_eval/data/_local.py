"""Data that cannot be shipped: where a task's folder is looked for, and what of it is missing."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from mpm_eval.errors import UserError
from mpm_eval.resources import shipped
from mpm_eval.schema import Task

DATA = "MPM_EVAL_DATA"  # environment variable: the folder that holds such folders


def places(task: Task, name: str) -> tuple[Path, ...]:
    """Return where the folder `name` of a task may lie, in the order of looking.

    Beside the task file, then in the folder that the environment variable names.
    """
    beside = Path(task.path).parent if task.path else shipped("tasks")
    given = os.environ.get(DATA)
    return (beside / name, Path(given) / name) if given else (beside / name,)


def find_folder(task: Task, name: str) -> Path | None:
    """Return the folder `name` of a task; None where it is in none of its places."""
    return next((place for place in places(task, name) if place.is_dir()), None)


def require_folder(task: Task, name: str, needs: str, origin: str) -> Path:
    """Return the folder `name` of a task.

    Raises UserError saying where it was looked for, what it must hold (`needs`) and where the
    files come from (`origin`).
    """
    folder = find_folder(task, name)
    if folder is not None:
        return folder
    tried = " or ".join(map(str, places(task, name)))
    unset = "" if os.environ.get(DATA) else f" ({DATA} is not set)"
    source = f"; get it from {origin}" if origin else ""
    raise UserError(
        f"{task.path or task.name}: data.path: no folder {tried}{unset}; put {needs} into the "
        f"folder '{name}' inside the one that {DATA} names{source}"
    )


def file_name(pattern: str, language: str, split: str, codes: Mapping[str, str] | None) -> str:
    """Return a pattern with {language} (as the data set calls it, see `codes`) and {split}."""
    code = (codes or {}).get(language, language)
    return pattern.replace("{language}", code).replace("{split}", split)


def picture_folders(task: Task, folder: Path, names: Iterable[str]) -> tuple[Path, ...]:
    """Return where the pictures of a task may lie: `names` in its folder.

    A name of several parts, such as coco/val2014, is of a set that tasks share, and also looked
    for where the task's own folder is.
    """
    found = [
        place
        for name in names
        for place in (folder / name, *(places(task, name) if "/" in name else ()))
    ]
    return tuple(dict.fromkeys(found))


def missing(task: Task) -> str:
    """Return the first folder or file of the user's that a task lacks, "" where all are there.

    Looks at names only: nothing is opened, and of pictures only a folder is asked for. Ranking
    needs no picture: no model is run.
    """
    data = task.data
    name = data.get("path")
    if not isinstance(name, str):
        return ""
    folder = find_folder(task, name)
    if folder is None:
        return name
    patterns = [data[key] for key in ("file", "ids") if isinstance(data.get(key), str)]
    for pattern in patterns:
        for language in task.languages:
            file = file_name(pattern, language, str(data.get("split", "")), data.get("codes"))
            if not (folder / file).is_file():
                return f"{name}/{file}"
    images = data.get("images")
    if task.kind == "retrieve" or not isinstance(images, list | tuple):
        return ""
    found = any(place.is_dir() for place in picture_folders(task, folder, map(str, images)))
    return "" if found else f"{name}/{images[0]}"
