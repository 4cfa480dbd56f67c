"""Hugging Face `datasets` as a source: a pinned hub revision, or a local copy of a data set."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpm_eval.data._rows import Collected, Row, decode, describe_rows, folder_of, inside
from mpm_eval.data._samples import SampleSet, read_options, where
from mpm_eval.errors import CorruptImage, UserError, unknown
from mpm_eval.schema import Task
from mpm_eval.strict import build, canonical_sha256

if TYPE_CHECKING:
    from PIL.Image import Image

LANGUAGE_WAYS = (
    'fields.language = "COLUMN", language = "TAG" for all rows, configs = {TAG = "CONFIG", …}, or '
    'columns per language such as fields.question = "question_{language}"'
)


@dataclass(frozen=True, slots=True)
class Fields:
    """Column names; "{language}" in a name stands for the language of the sample."""

    id: str = ""
    language: str = ""
    image: str = ""
    question: str = ""
    references: str = ""  # column of texts, or of lists of texts
    options: str = ""
    answer: str = ""  # column of indices, of option texts, or of letters
    category: str = ""
    cluster: str = ""


@dataclass(frozen=True, slots=True)
class HubOptions:
    """The table [data] of a task with source "hub"."""

    source: str
    fields: Fields
    id: str = ""  # hub id, with revision; or
    path: str = ""  # folder of `save_to_disk`, or of parquet files, relative to the task file
    revision: str = ""
    config: str = ""
    split: str = ""
    language: str = ""
    configs: Mapping[str, str] | None = None  # language -> config


def open_hub(task: Task) -> SampleSet:
    """Return the samples of a data set in the format of Hugging Face `datasets`.

    Raises UserError when the package is missing, the data cannot be reached, the revision is not
    pinned, or a row is bad.
    """
    options = read_options(HubOptions, task)
    way = _language_way(options, task)
    collected = Collected(task)
    tables: dict[str, Any] = {}  # config -> datasets.Dataset
    digest = sha256()
    for config, languages in _configs(options, task).items():
        table = tables[config] = _raw_images(_load(options, config, task))
        _check_columns(options.fields, table.column_names, languages, task)
        for number, content in enumerate(table):
            for row, place, picture in _rows(options, config, number, content, languages, task):
                if collected.add(row, place) is not None:
                    digest.update(canonical_sha256([repr(row), picture]).encode())
    collected.require(where(task))

    def load(key: str) -> "Image":
        config, number, column = key.split("|")
        base = Path(folder_of(task, options.path, where(task))) if options.path else None
        return decode(_bytes(tables[config][int(number)][column], key, base), f"{task.name}: {key}")

    return SampleSet(
        task=task.name,
        languages=task.languages,
        make=collected.samples,
        load=load,
        sha256=digest.hexdigest(),
        description=describe_rows(
            collected,
            {
                "source": "hub",
                "id": options.id or options.path,
                "revision": options.revision,
                "split": options.split,
                "languages_by": way,
            },
        ),
    )


def _language_way(options: HubOptions, task: Task) -> str:
    """Return how rows get their language; raises UserError unless there is exactly one way."""
    names = [getattr(options.fields, f.name) for f in fields(Fields)]
    ways = {
        "column": bool(options.fields.language),
        "one language": bool(options.language),
        "configs": bool(options.configs),
        "columns per language": any("{language}" in name for name in names),
    }
    used = [way for way, is_used in ways.items() if is_used]
    if len(used) != 1:
        raise UserError(
            f"{where(task)}: say in one way what language a row is in, got "
            f"{' and '.join(used) or 'none'}; give {LANGUAGE_WAYS}"
        )
    if used[0] in ("column", "configs") and not options.fields.id:
        raise UserError(
            f"{where(task)}.fields.id: missing; rows of different languages are paired by id"
        )
    if options.language and options.language not in task.languages:
        raise unknown("language", options.language, task.languages, f"{where(task)}.language")
    return used[0]


def _configs(options: HubOptions, task: Task) -> dict[str, tuple[str, ...]]:
    """Return config -> languages that its rows may be in."""
    if not options.configs:
        return {options.config: task.languages}
    missing = [tag for tag in task.languages if tag not in options.configs]
    if missing:
        raise UserError(f"{where(task)}.configs: no config for {', '.join(missing)}")
    found: dict[str, tuple[str, ...]] = {}
    for tag in task.languages:
        config = options.configs[tag]
        found[config] = (*found.get(config, ()), tag)
    return found


def _load(options: HubOptions, config: str, task: Task) -> Any:
    """Return a `datasets.Dataset`; every failure to get it is one line for the user."""
    if bool(options.id) == bool(options.path):
        raise UserError(f"{where(task)}: give either id (on the hub) or path (a local folder)")
    try:
        import datasets
    except ImportError as error:
        raise UserError(
            f"{where(task)}: source 'hub' needs the package datasets; pip install 'mpm-eval[hub]'"
        ) from error
    if options.path:
        return _load_local(options, config, task)
    if not re.fullmatch(r"[0-9a-f]{40}", options.revision):
        raise UserError(
            f"{where(task)}.revision: '{options.revision}' is not pinned; give the commit of the "
            f"data set, 40 hexadecimal digits: huggingface_hub.HfApi().dataset_info('{options.id}')"
            ".sha"
        )
    if not options.split:
        raise UserError(f'{where(task)}.split: missing; give the split to read, e.g. "test"')
    try:
        return datasets.load_dataset(
            options.id, config or None, revision=options.revision, split=options.split
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{where(task)}: cannot load '{options.id}' at {options.revision[:8]}: "
            f"{_one_line(error)}; check id, config and split, or go online once to fill the cache"
        ) from error


def _load_local(options: HubOptions, config: str, task: Task) -> Any:
    from datasets import Dataset, DatasetDict, load_from_disk

    folder = folder_of(task, options.path, where(task))
    if config:
        folder = inside(folder, config, f"{where(task)}.config")
    saved = ("dataset_dict.json", "state.json", "dataset_info.json")
    if not any((folder / name).is_file() for name in saved):
        return _load_parquet(folder, options.split, task)
    try:
        found = load_from_disk(str(folder))
    except (OSError, ValueError) as error:
        raise UserError(f"{where(task)}.path: {folder}: {_one_line(error)}") from error
    if isinstance(found, DatasetDict):
        if options.split not in found:
            raise unknown("split", options.split, found, f"{where(task)}.split")
        return found[options.split]
    assert isinstance(found, Dataset)
    if options.split and str(found.split) != options.split:
        raise UserError(
            f"{where(task)}.split: {folder} holds one data set (split {found.split}); "
            "remove data.split"
        )
    return found


def _load_parquet(folder: Path, split: str, task: Task) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Dataset
    from datasets.table import InMemoryTable

    patterns = (f"{split}*.parquet", f"{split}/*.parquet") if split else ("**/*.parquet",)
    files = [file for pattern in patterns for file in sorted(folder.glob(pattern))]
    if not files:
        raise UserError(
            f"{where(task)}.path: {folder} is no folder of save_to_disk and has no parquet files"
            + (f" of split '{split}' ({split}*.parquet or {split}/)" if split else "")
        )
    try:
        return Dataset(InMemoryTable(pa.concat_tables([pq.read_table(f) for f in files])))
    except (OSError, ValueError) as error:
        raise UserError(f"{where(task)}.path: {folder}: {_one_line(error)}") from error


def _raw_images(table: Any) -> Any:
    """Return the table with its pictures undecoded: hashed now, decoded when they are asked for."""
    from datasets import Image

    for name, feature in table.features.items():
        if isinstance(feature, Image):
            table = table.cast_column(name, Image(decode=False))
    return table


def _check_columns(
    names: Fields, columns: Sequence[str], languages: Sequence[str], task: Task
) -> None:
    for f in fields(Fields):
        name = getattr(names, f.name)
        for language in languages if name else ():
            column = name.replace("{language}", language)
            if column not in columns:
                raise unknown("column", column, columns, f"{where(task)}.fields.{f.name}")


def _rows(
    options: HubOptions,
    config: str,
    number: int,
    content: Mapping[str, Any],
    languages: Sequence[str],
    task: Task,
) -> Iterator[tuple[Row, str, str]]:
    """Yield the samples of one row with their place and the hash of their picture.

    One sample, or with columns per language (or a config that serves several) one in each.
    """
    place = f"{where(task)}: row {number}" + (f" of config '{config}'" if config else "")
    base = folder_of(task, options.path, where(task)) if options.path else None
    if options.fields.language:
        languages = (str(content[options.fields.language]),)
    elif options.language:
        languages = (options.language,)
    for language in languages:
        columns = {
            f.name: getattr(options.fields, f.name).replace("{language}", language)
            for f in fields(Fields)
            if getattr(options.fields, f.name) and f.name not in ("language", "image")
        }
        values = {name: content[column] for name, column in columns.items()}
        row = build(Row, _plain(values, number, language, place), place)
        column = options.fields.image.replace("{language}", language)
        if not column or content[column] is None:
            yield row, place, ""
            continue
        try:
            picture = sha256(_bytes(content[column], place, base)).hexdigest()
        except CorruptImage:
            picture = f"unreadable {config} {number}"
        row = replace(row, image=f"{config}|{number}|{column}", cluster=row.cluster or picture)
        yield row, place, picture


def _plain(values: dict[str, Any], number: int, language: str, place: str) -> dict[str, Any]:
    """Return column values as the fields of `Row`."""
    given = {name: value for name, value in values.items() if value is not None}
    for name in ("id", "cluster", "category"):
        if isinstance(given.get(name), int):
            given[name] = str(given[name])
    for name in ("references", "options"):
        if isinstance(given.get(name), str):
            given[name] = [given[name]]
    if isinstance(given.get("answer"), str):
        given["answer"] = _option_index(given["answer"], given.get("options", ()), place)
    return {"id": str(number), **given, "language": language}


def _option_index(text: str, options: Sequence[str], place: str) -> int:
    if text in options:
        return list(options).index(text)
    if len(text) == 1 and 0 <= ord(text.upper()) - ord("A") < len(options):
        return ord(text.upper()) - ord("A")
    raise UserError(f"{place}: field 'answer': '{text}' is no option and no letter of one")


def _bytes(value: Any, what: str, folder: Path | None) -> bytes:
    """Return the encoded picture in a column: bytes, or what `datasets` makes of an Image."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, Mapping):
        if value.get("bytes"):
            return bytes(value["bytes"])
        path = value.get("path")
        if path:
            try:
                # a local data set may only name files of its own folder
                file = inside(folder, path, what) if folder else Path(path)
                return file.read_bytes()
            except OSError as error:
                raise CorruptImage(f"{what}: cannot be read: {error}") from error
    raise CorruptImage(f"{what}: no picture, but {type(value).__name__}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
