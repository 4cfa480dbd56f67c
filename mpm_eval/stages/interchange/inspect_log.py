"""Logs of inspect: a .eval file (a zip of JSON) or one .json file, log version 2.

Format as written by UKGovernmentBEIS/inspect_ai at commit 499e6152 (log/_log.py,
log/_recorders/eval.py); values of scores as its scorer/_metric.py turns them into numbers.
"""

import math
import re
from collections.abc import Mapping, Sequence
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
    named,
    number,
    read_object,
    required,
)
from mpm_eval.stages.interchange.zipped import open_zip

PROGRAM = "inspect"
_LETTERS = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}
_WORDS = {"yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
# one file, or the first of several where a sample is large; an id may hold "/"
_SAMPLE = re.compile(r"samples/.+_epoch_\d+(\.json|/sample\.json)", re.DOTALL)
_ATTACHMENT = re.compile(r"attachment://([0-9a-f]+)")
# what inspect calls the plain mean of a score's values
_MEANS = ("accuracy", "mean")


def read_inspect(paths: Sequence[Path]) -> list[Log]:
    """Return a log per file, those of folders too.

    Raises UserError for an evaluation that did not end with success, another version of the
    format, a log without samples, a sample given twice, and a damaged or dangerous file.
    """
    logs: dict[str, Log] = {}
    for path in named(paths, "*.eval", PROGRAM):
        log = _read(path)
        if log.task in logs:
            raise UserError(
                f"{path}: a second log of task '{log.task}', the first is {logs[log.task].path}; "
                "give one of the two"
            )
        logs[log.task] = log
    return list(logs.values())


def _read(path: Path) -> Log:
    if path.suffix == ".json":
        header = read_object(path)
        _require_finished(header, path)
        samples = header.get("samples") or []
        if not isinstance(samples, list):
            raise UserError(f"{path}: samples: expected a list")
        return _log(path, header, samples)
    with open_zip(path) as members:
        if "header.json" not in members.names:
            raise UserError(f"{path}: no header.json; the evaluation did not end, or it is no log")
        header = as_object(members.read("header.json"), f"{path}: header.json")
        _require_finished(header, path)
        names = [name for name in members.names if _SAMPLE.fullmatch(name)]
        return _log(path, header, [members.read(name) for name in names])


def _require_finished(header: Mapping[str, Any], path: Path) -> None:
    version = required(header, "version", str(path), PROGRAM)
    if version != 2:
        raise UserError(
            f"{path}: version {version} of the log format, 2 is read; convert it with: "
            "inspect log convert"
        )
    status = header.get("status")
    if status != "success":
        raise UserError(
            f"{path}: the evaluation ended with status '{status}', its scores are not final; "
            "finish it with: inspect eval-retry"
        )


def _log(path: Path, header: Mapping[str, Any], samples: Sequence[Any]) -> Log:
    if not samples:
        raise UserError(f"{path}: no samples; log them without --no-log-samples")
    spec = as_object(required(header, "eval", str(path), PROGRAM), f"{path}: eval")
    results = header.get("results")
    results = results if isinstance(results, dict) else {}
    total = results.get("total_samples")
    if isinstance(total, int) and total > len(samples):
        raise UserError(
            f"{path}: {len(samples)} samples, its results count {total}; the file is cut off"
        )
    reader = _Samples()
    epochs = [reader.add(sample, f"{path}: sample {i}") for i, sample in enumerate(samples, 1)]
    metrics = tuple(name for name in reader.metrics if name not in reader.left_out)
    config = _object(spec, "config")
    packages = _object(spec, "packages")
    plan = _object(_object(header, "plan"), "config")
    generate = {**plan, **_object(spec, "model_generate_config")}
    return Log(
        program=PROGRAM,
        path=path,
        task=as_text(required(spec, "task", f"{path}: eval", PROGRAM)),
        kind="choose" if reader.has_choices else "generate",
        metrics=metrics,
        records=tuple(reader.records.values()),
        left_out=reader.left_out,
        program_version=as_text(packages.get("inspect_ai")),
        task_version=as_text(spec.get("task_version")),
        model=as_text(spec.get("model")),
        settings={"task_args": _object(spec, "task_args"), "epochs": max(e for _, e in epochs)},
        decoding={k: v for k, v in generate.items() if isinstance(v, str | int | float)},
        limit=len({id_ for id_, _ in epochs}) if config.get("limit") is not None else None,
        checks=_checks(results, metrics, epochs, list(reader.records.values())),
        checked_with=str(path) if results.get("scores") else "",
    )


class _Samples:
    """The samples of one log, gathered: an epoch is a member of the cluster of its sample."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.metrics: dict[str, None] = {}
        self.left_out: dict[str, str] = {}
        self.has_choices = False

    def add(self, content: Any, where: str) -> tuple[str, int]:
        """Keep a sample and return its own id and epoch."""
        sample = as_object(content, where)
        own = as_text(required(sample, "id", where, PROGRAM))
        epoch = required(sample, "epoch", where, PROGRAM)
        if not isinstance(epoch, int) or epoch < 1:
            raise UserError(f"{where}: epoch: expected a number from 1, got {epoch!r}")
        id_ = own if epoch == 1 else f"{own}#{epoch}"
        if id_ in self.records:
            raise UserError(f"{where}: second sample with id '{own}' and epoch {epoch}; remove one")
        metadata = _object(sample, "metadata")
        choices = sample.get("choices") or []
        self.has_choices = self.has_choices or bool(choices)
        prompt = self._resolved(_input_text(required(sample, "input", where, PROGRAM)), sample)
        target = sample.get("target")
        # a run that was exported keeps the hash it had, "" where it had none
        own_hash = metadata.get("input_sha256")
        self.records[id_] = Record(
            id=id_,
            prompt=prompt,
            output=self._resolved(_completion(sample), sample),
            references=tuple(map(as_text, target if isinstance(target, list) else [target])),
            values=self._values(sample, where),
            cluster=as_text(metadata.get("cluster")) or own,
            input_sha256=own_hash
            if isinstance(own_hash, str)
            else digest(prompt, *map(as_text, choices)),
            error=_error(sample),
            category=as_text(metadata.get("category")),
            cell=as_text(metadata.get("cell")),
        )
        return own, epoch

    def _values(self, sample: Mapping[str, Any], where: str) -> dict[str, float | None]:
        values: dict[str, float | None] = {}
        for scorer, content in _object(sample, "scores").items():
            score = as_object(content, f"{where}: scores: {scorer}")
            value = required(score, "value", f"{where}: scores: {scorer}", PROGRAM)
            # a scorer of several values: each has a name of its own
            parts = {f"{scorer},{k}": v for k, v in value.items()} if isinstance(
                value, dict) else {scorer: value}  # fmt: skip
            for name, part in parts.items():
                self.metrics[name] = None
                try:
                    values[name] = _score(part, where, name)
                except TypeError as error:
                    self.left_out[name] = f"a value is {error}, not one number per sample"
        return values

    def _resolved(self, text: str, sample: Mapping[str, Any]) -> str:
        """Return a text with long parts put back that inspect keeps apart."""
        attachments = _object(sample, "attachments")
        return _ATTACHMENT.sub(lambda m: as_text(attachments.get(m[1], m[0])), text)


def _object(content: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = content.get(key)
    return value if isinstance(value, dict) else {}


def _score(value: Any, where: str, name: str) -> float | None:
    """Return a score as inspect reads it; None for NaN, its mark of a sample it did not score."""
    if isinstance(value, str):
        if value in _LETTERS:
            return _LETTERS[value]
        if value.lower() in _WORDS:
            return _WORDS[value.lower()]
        try:
            value = float(value)
        except ValueError:
            raise TypeError(repr(value[:40])) from None
    if isinstance(value, float) and math.isnan(value):
        return None
    return number(value, where, name)


def _input_text(value: Any) -> str:
    if not isinstance(value, list):
        return as_text(value)
    return "\n\n".join(filter(None, (_message_text(message) for message in value)))


def _message_text(message: Any) -> str:
    content = message.get("content") if isinstance(message, dict) else message
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(p["text"] for p in parts if isinstance(p, dict) and
                     isinstance(p.get("text"), str))  # fmt: skip


def _completion(sample: Mapping[str, Any]) -> str:
    output = _object(sample, "output")
    if output.get("completion"):
        return as_text(output["completion"])
    choices = output.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return _message_text(choices[0].get("message"))
    return ""


def _error(sample: Mapping[str, Any]) -> str:
    error = sample.get("error")
    if not error:
        return ""
    message = error.get("message") if isinstance(error, dict) else error
    return as_text(message) or "failed"


def _checks(
    results: Mapping[str, Any],
    metrics: Sequence[str],
    epochs: Sequence[tuple[str, int]],
    records: Sequence[Record],
) -> dict[str, Check]:
    """Return inspect's means with the same of the samples: over epochs first, then over ids."""
    checks = {}
    for score in results.get("scores") or []:
        if not isinstance(score, dict) or score.get("reducer") not in (None, "mean"):
            continue
        name, scorer = as_text(score.get("name")), as_text(score.get("scorer"))
        metric = name if name in metrics else f"{scorer},{name}"
        if metric not in metrics:
            continue
        by_id: dict[str, list[float]] = {}
        for (id_, _), record in zip(epochs, records, strict=True):
            value = record.values.get(metric)
            if value is not None:
                by_id.setdefault(id_, []).append(value)
        means = [math.fsum(values) / len(values) for values in by_id.values()]
        for kind in _MEANS:
            theirs = _object(_object(score, "metrics"), kind).get("value")
            if means and isinstance(theirs, int | float) and not math.isnan(theirs):
                checks[metric] = Check(float(theirs), math.fsum(means) / len(means))
    return checks
