"""Judged files of VLMEvalKit: a table with a row per sample and a column of scores.

Format as written by open-compass/VLMEvalKit at commit e8e78f05 (vlmeval/smp/file.py: xlsx, tsv,
csv, json, jsonl; vlmeval/dataset/image_mcq.py and image_vqa.py: the columns).
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mpm_eval.errors import UserError
from mpm_eval.stages.interchange.imported import (
    Check,
    Log,
    Record,
    as_object,
    as_text,
    digest,
    mean_of,
    number,
    parse_json,
    read_lines,
)
from mpm_eval.strict import read_text

PROGRAM = "vlmevalkit"
# part of every message that VLMEvalKit writes in place of an answer it did not get
FAILED = "Failed to obtain answer"
# columns that its benchmarks score in; others are named with --metric
SCORES = ("hit", "score", "eval_score", "correct", "acc", "verifier_match")
_OPTIONS = tuple("ABCDEFGHIJ")
_REJECTED = -1.0  # the score of a judgement that VLMEvalKit could not use

_Row = tuple[str, dict[str, Any]]  # where, column -> cell


def read_vlmevalkit(paths: Sequence[Path], columns: Sequence[str] = ()) -> list[Log]:
    """Return the log of one judged file; a file with a column Overall beside it is compared.

    `columns` are the scores to read, by default those of `SCORES` that are there. Raises UserError
    for a table without answers or scores, a damaged one, and an index given twice.
    """
    tables = {path: _read_table(path) for path in paths}
    judged = {p: t for p, t in tables.items() if "overall" not in t[0][1]}
    if len(judged) != 1:
        raise UserError(
            f"{paths[0]}: {len(judged)} files of samples; give one judged file, and its _acc file "
            "if there is one"
        )
    ((path, rows),) = judged.items()
    log = _log(path, rows, columns)
    totals = [(p, t) for p, t in tables.items() if p not in judged]
    return [_checked(log, totals)] if totals else [log]


def _log(path: Path, rows: Sequence[_Row], columns: Sequence[str]) -> Log:
    header = rows[0][1]
    for name in ("index", "prediction", *columns):
        if name not in header:
            raise UserError(
                f"{path}: no column '{name}'; it has {', '.join(map(str, header))}; give a file of "
                "samples that VLMEvalKit has judged"
            )
    metrics = list(columns) or [name for name in SCORES if name in header]
    if not metrics:
        raise UserError(
            f"{path}: no column of scores ({', '.join(SCORES)}); give the file that VLMEvalKit "
            "wrote when it judged (…_result.xlsx), or name the column with --metric"
        )
    left_out: dict[str, str] = {}
    records: dict[str, Record] = {}
    for where, row in rows:
        record = _record(row, metrics, where, left_out)
        if record.id in records:
            raise UserError(f"{where}: second row with index {record.id}; remove one")
        records[record.id] = record
    return Log(
        program=PROGRAM,
        path=path,
        task="",  # a file name holds model, data set and judge, and any of them may hold "_"
        kind="choose" if {"A", "B"} <= header.keys() else "generate",
        metrics=tuple(name for name in metrics if name not in left_out),
        records=tuple(records.values()),
        left_out=left_out,
    )


def _record(
    row: Mapping[str, Any], metrics: Sequence[str], where: str, left_out: dict[str, str]
) -> Record:
    id_ = _cell(row["index"])
    if not id_:
        raise UserError(f"{where}: index is empty")
    output = _cell(row["prediction"])
    question = _cell(row.get("question"))
    options = [f"{o}. {text}" for o in _OPTIONS if (text := _cell(row.get(o)))]
    prompt = "\n".join(part for part in (_cell(row.get("hint")), question, *options) if part)
    values: dict[str, float | None] = {}
    for name in metrics:
        try:
            values[name] = _score(row.get(name), where, name)
        except TypeError as error:
            left_out[name] = f"a value is {error}, not one number per sample"
    return Record(
        id=id_,
        prompt=prompt,
        output=output,
        references=(_cell(row.get("answer")),),
        values=values,
        cluster=_cell(row.get("image_path")) or id_,
        input_sha256=digest(prompt, _cell(row.get("image_path"))),
        error=output if FAILED in output else "",
        category=_cell(row.get("category")),
    )


def _score(cell: Any, where: str, name: str) -> float | None:
    """Return a cell as a number, None for an empty cell and a rejected judgement."""
    if isinstance(cell, str):
        text = cell.strip()
        if text in ("True", "False"):
            cell = text == "True"
        elif text in ("", "nan"):  # pandas writes both for a missing value
            return None
        else:
            try:
                cell = float(text)
            except ValueError:
                raise TypeError(repr(text[:40])) from None
    if isinstance(cell, float) and math.isnan(cell):
        return None
    value = number(cell, where, name)
    return None if name == "score" and value == _REJECTED else value


def _cell(value: Any) -> str:
    """Return a cell as text; whole numbers without the .0 that pandas gives them."""
    if isinstance(value, float):
        if math.isnan(value):
            return ""
        if value.is_integer():
            value = int(value)
    return "" if value == "nan" else as_text(value)


def _checked(log: Log, totals: Sequence[tuple[Path, Sequence[_Row]]]) -> Log:
    (path, rows), *more = totals
    if more:
        raise UserError(f"{more[0][0]}: a second file with a column Overall; give one")
    metric = log.metrics[0] if log.metrics else ""
    ours = mean_of(log.records, metric)
    if len(rows) != 1 or ours is None:
        return log  # a value per split is a value of other samples
    theirs = _score(rows[0][1]["overall"], rows[0][0], "Overall")
    if theirs is None:
        return log
    per_cent = Check(theirs, ours * 100)
    check = per_cent if per_cent.agrees else Check(theirs, ours)
    return replace(log, checks={metric: check}, checked_with=str(path))


def _read_table(path: Path) -> list[_Row]:
    """Return the rows of a table; column names in lower case, but options, as VLMEvalKit does."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    readers = {
        ".tsv": _read_csv,
        ".csv": _read_csv,
        ".json": _read_json,
        ".jsonl": lambda p: list(read_lines(p)),
        ".xlsx": _read_xlsx,
    }
    if path.suffix not in readers:
        raise UserError(f"{path}: not a table of VLMEvalKit; give {', '.join(readers)}")
    rows = readers[path.suffix](path)
    if not rows:
        raise UserError(f"{path}: no samples")
    found = []
    for where, row in rows:
        names = [name if name in _OPTIONS else str(name).lower() for name in row]
        if len(set(names)) < len(names):
            raise UserError(f"{where}: a column is there twice: {', '.join(names)}")
        found.append((where, dict(zip(names, row.values(), strict=True))))
    return found


def _read_csv(path: Path) -> list[_Row]:
    text = read_text(path)
    delimiter = "\t" if path.suffix == ".tsv" else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        lines = [(reader.line_num, line) for line in reader if line]
    except csv.Error as error:
        raise UserError(
            f"{path}:{reader.line_num}: not a table: {error}; the file may be cut off"
        ) from None
    if not lines:
        return []
    header = lines[0][1]
    return [(f"{path}:{at}", _paired(header, line, f"{path}:{at}")) for at, line in lines[1:]]


def _paired(header: Sequence[Any], line: Sequence[Any], where: str) -> dict[str, Any]:
    if len(header) != len(line):
        raise UserError(
            f"{where}: {len(line)} cells, the header has {len(header)}; the file may be cut off"
        )
    if len(set(header)) < len(header):
        raise UserError(f"{where}: a column is there twice: {', '.join(map(str, header))}")
    return dict(zip(map(str, header), line, strict=True))


def _read_json(path: Path) -> list[_Row]:
    content = parse_json(read_text(path), str(path))
    if not isinstance(content, list):
        raise UserError(f"{path}: expected a list of rows [{{…}}, …]")
    return [
        (f"{path}: row {index}", as_object(row, f"{path}: row {index}"))
        for index, row in enumerate(content, start=1)
    ]


def _read_xlsx(path: Path) -> list[_Row]:
    try:
        import openpyxl  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError:
        raise UserError(
            f"{path}: reading xlsx needs openpyxl; install it with: pip install openpyxl, or save "
            "the sheet as tsv"
        ) from None
    try:
        book = openpyxl.load_workbook(io.BytesIO(path.read_bytes()), read_only=True, data_only=True)
        lines = [list(line) for line in book.worksheets[0].iter_rows(values_only=True)]
    except Exception as error:  # whatever a damaged workbook makes openpyxl raise
        reason = " ".join(str(error).split())[:100]
        raise UserError(f"{path}: not a workbook ({reason}); the file may be cut off") from None
    return [
        (f"{path}: row {at}", _paired(lines[0], line, f"{path}: row {at}"))
        for at, line in enumerate(lines[1:], start=2)
        if any(cell is not None for cell in line)
    ]
