"""Sample logs of lm-eval and lmms-eval: a JSONL file per task beside one file of results.

Formats as written by EleutherAI/lm-evaluation-harness 0.4.13.dev0 (commit 4e7e0d47,
loggers/evaluation_tracker.py) and EvolvingLMMs-Lab/lmms-eval 0.7.2 (commit 75571cfe, same path);
lines of lm-eval since 0.4.0 are read, which lack `filter` and `metrics` at first.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpm_eval.errors import UserError
from mpm_eval.stages.interchange.imported import (
    Check,
    Log,
    Record,
    as_text,
    digest,
    mean_of,
    named,
    number,
    read_lines,
    read_object,
    required,
)

# fields of a line that are no metrics
_FIELDS = {
    "doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics",
    "doc_hash", "prompt_hash", "target_hash", "input", "input_media", "token_counts",
}  # fmt: skip
# what names the picture of a document, so that its questions are resampled together
_IMAGE_FIELDS = ("image_path", "image_id")


@dataclass(frozen=True, slots=True)
class _Program:
    """What the two programs do differently."""

    name: str
    samples: str  # pattern of its sample logs
    stem: str  # (?P<task>…) and (?P<date>…) of such a name
    results: str  # name of the results of a date
    version: str  # key of its version


_PROGRAMS = {
    "lm-eval": _Program(
        "lm-eval",
        "samples_*.jsonl",
        r"samples_(?P<task>.+)_(?P<date>\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(\.\d+)?)",
        "results_{date}.json",
        "lm_eval_version",
    ),
    "lmms-eval": _Program(
        "lmms-eval",
        "*_samples_*.jsonl",
        r"(?P<date>.+?)_samples_(?P<task>.+)",
        "{date}_results.json",
        "lmms_eval_version",
    ),
}


def read_lm_eval(paths: Sequence[Path], program: str) -> list[Log]:
    """Return a log per sample file of `program`: files, folders of them, and files of results.

    The results of the same date in the same folder are read too. Raises UserError for a line that
    is no sample, a sample given twice, two logs of one task, and fewer samples than the results
    count.
    """
    known = _PROGRAMS[program]
    results = [path for path in paths if path.suffix == ".json"]
    samples = [path for path in paths if path.suffix != ".json"]
    if not samples:
        raise UserError(f"{paths[0]}: no sample log; give the .jsonl file that lies beside it")
    logs: dict[str, Log] = {}
    for path in named(samples, known.samples, program):
        log = _read(path, known, results)
        if log.task and log.task in logs:
            raise UserError(
                f"{path}: a second log of task '{log.task}', the first is "
                f"{logs[log.task].path}; give one of the two"
            )
        logs[log.task or str(path)] = log
    return list(logs.values())


def _read(path: Path, program: _Program, results: Sequence[Path]) -> Log:
    name = re.fullmatch(program.stem, path.stem)
    task = name["task"] if name else ""
    found, where = _results_of(path, program, task, name["date"] if name else "", results)
    samples = _Samples(program.name)
    for at, line in read_lines(path):
        samples.add(line, at)
    if not samples.records:
        raise UserError(f"{path}: no samples; log them with --log_samples")
    records = tuple(samples.records.values())
    metrics = tuple(name for name in samples.metrics if name not in samples.left_out)
    better = _of_task(found, "higher_is_better", task)
    return Log(
        program=program.name,
        path=path,
        task=task,
        kind=samples.kind,
        metrics=metrics,
        records=records,
        left_out=samples.left_out,
        program_version=str(found.get(program.version) or ""),
        task_version=_plain(found, "versions", task),
        model=str(found.get("model_name") or ""),
        settings={"num_fewshot": _plain(found, "n-shot", task)} if found else {},
        decoding=_decoding(found, task),
        limit=_limit(found, task, len(records), where, path),
        lower_is_better=frozenset(n for n in metrics if better.get(n.partition(",")[0]) is False),
        checks=_checks(_of_task(found, "results", task), metrics, records),
        checked_with=str(where or ""),
    )


class _Samples:
    """The lines of one file, gathered: the filters of one document are one sample."""

    def __init__(self, program: str) -> None:
        self.program = program
        self.records: dict[str, Record] = {}
        self.metrics: dict[str, None] = {}
        self.left_out: dict[str, str] = {}
        self.kind = "generate"
        self._seen: dict[tuple[str, str], str] = {}
        self._hashes: dict[str, str] = {}

    def add(self, line: Mapping[str, Any], where: str) -> None:
        id_ = as_text(required(line, "doc_id", where, self.program))
        required(line, "filtered_resps", where, self.program)
        filter_name = str(line.get("filter", "none"))
        if (id_, filter_name) in self._seen:
            raise UserError(
                f"{where}: second sample with doc_id {id_}, the first is in "
                f"{self._seen[id_, filter_name]}; give one file per task"
                + (" and filter" if self.program == "lmms-eval" else "")
            )
        self._seen[id_, filter_name] = where
        doc_hash = str(line.get("doc_hash", ""))
        if self._hashes.setdefault(id_, doc_hash) != doc_hash:
            raise UserError(f"{where}: another document with doc_id {id_}; the file mixes tasks")
        values = dict(self._values(line, filter_name, where))
        if id_ in self.records:
            values = {**self.records[id_].values, **values}
        prompt, output = self._texts(line)
        self.records[id_] = Record(
            id=id_,
            prompt=prompt,
            output=output,
            references=(as_text(line.get("target")),),
            values=values,
            cluster=_cluster(line, id_),
            input_sha256=digest(str(line.get("prompt_hash") or prompt), doc_hash),
        )

    def _values(
        self, line: Mapping[str, Any], filter_name: str, where: str
    ) -> Iterator[tuple[str, float | None]]:
        names = line.get("metrics")
        if not isinstance(names, list):
            names = [key for key in line if key not in _FIELDS]
        for name in map(str, names):
            full = name if filter_name == "none" else f"{name},{filter_name}"
            self.metrics[full] = None
            try:
                yield full, number(_numpy(required(line, name, where, self.program)), where, name)
            except TypeError as error:
                self.left_out[full] = f"a value is a {error}, not one number per sample"

    def _texts(self, line: Mapping[str, Any]) -> tuple[str, str]:
        """Return the prompt and what the model wrote, or the option with the best log-probability.

        lmms-eval leaves the raw responses out where they equal the filtered ones.
        """
        requests = _requests(line)
        prompt = as_text(line.get("input", requests[0][0] if requests else ""))
        raw = line.get("resps", line["filtered_resps"])
        logprobs = _logprobs(raw)
        if logprobs is None:
            return prompt, as_text(raw)
        self.kind = "choose"
        best = max(range(len(logprobs)), key=logprobs.__getitem__)
        if len(requests) != len(logprobs):
            return prompt, f"option {best}"
        options = [as_text(option) for _, option in requests]
        if len(set(options)) < len(options):  # contexts to choose from, before one continuation
            options = [as_text(context) + as_text(option) for context, option in requests]
        return prompt, options[best]


def _numpy(value: Any) -> Any:
    """Return the number or boolean that numpy's own types become in these files: a string."""
    if not isinstance(value, str):
        return value
    if value in ("True", "False"):
        return value == "True"
    try:
        return float(value)
    except ValueError:
        return value


def _requests(line: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    """Return (context, continuation or settings) of each request; [] where they are not there."""
    arguments = line.get("arguments")
    if not isinstance(arguments, dict):
        return []
    rows = [arguments.get(f"gen_args_{i}") for i in range(len(arguments))]
    return [(row.get("arg_0"), row.get("arg_1")) for row in rows if isinstance(row, dict)]


def _logprobs(responses: Any) -> list[float] | None:
    """Return one log-probability per option; None for responses that are texts."""
    if not isinstance(responses, list) or len(responses) < 2:
        return None
    found = []
    for response in responses:
        while isinstance(response, list) and len(response) == 1:
            response = response[0]
        if not isinstance(response, list) or len(response) != 2:
            return None
        try:
            found.append(float(response[0]))
        except (TypeError, ValueError):
            return None
        if str(response[1]) not in ("True", "False"):
            return None
    return found


def _cluster(line: Mapping[str, Any], id_: str) -> str:
    doc = line.get("doc")
    for name in _IMAGE_FIELDS:
        value = doc.get(name) if isinstance(doc, dict) else None
        if isinstance(value, str | int) and str(value):
            return f"{name} {value}"
    media = line.get("input_media")
    if isinstance(media, list) and media and all(isinstance(item, str) for item in media):
        return " ".join(media) if sum(map(len, media)) <= 500 else digest(*media)
    return id_


def _results_of(
    path: Path, program: _Program, task: str, date: str, given: Sequence[Path]
) -> tuple[dict[str, Any], Path | None]:
    beside = path.parent / program.results.format(date=date)
    for file in given or ([beside] if date and beside.is_file() else []):
        content = read_object(file)
        if not isinstance(content.get("results"), dict):
            raise UserError(f"{file}: no field 'results'; is this a file of {program.name}?")
        if task in content["results"]:
            return content, file
    if given:
        raise UserError(f"{path}: no results of task '{task}' in {', '.join(map(str, given))}")
    return {}, None


def _of_task(results: Mapping[str, Any], key: str, task: str) -> dict[str, Any]:
    table = results.get(key)
    found = table.get(task) if isinstance(table, dict) else None
    return found if isinstance(found, dict) else {}


def _plain(results: Mapping[str, Any], key: str, task: str) -> str:
    table = results.get(key)
    value = table.get(task) if isinstance(table, dict) else None
    return "" if value is None else str(value)


def _decoding(results: Mapping[str, Any], task: str) -> dict[str, Any]:
    settings = _of_task(results, "configs", task).get("generation_kwargs")
    return settings if isinstance(settings, dict) else {}


def _limit(
    results: Mapping[str, Any], task: str, num_records: int, where: Path | None, path: Path
) -> int | None:
    counts = _of_task(results, "n-samples", task)
    original, effective = counts.get("original"), counts.get("effective")
    if not isinstance(original, int) or not isinstance(effective, int):
        return None
    if effective != num_records:
        raise UserError(
            f"{path}: {num_records} samples, {where} counts {effective}; the file is cut off or of "
            "another run"
        )
    return effective if effective < original else None


def _checks(
    results: Mapping[str, Any], metrics: Sequence[str], records: Sequence[Record]
) -> dict[str, Check]:
    checks = {}
    for name in metrics:
        theirs = results.get(name if "," in name else f"{name},none")
        ours = mean_of(records, name)
        if isinstance(theirs, int | float) and ours is not None:
            checks[name] = Check(float(theirs), ours)
    return checks
