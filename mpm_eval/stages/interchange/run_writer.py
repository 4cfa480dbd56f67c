"""Run writer: imported logs become a run folder that is read like any other."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mpm_eval import __version__
from mpm_eval.errors import UserError
from mpm_eval.items import Item, Items, output_sha256
from mpm_eval.languages import PIVOT
from mpm_eval.schema import RESULT_SCHEMA_VERSION, Score
from mpm_eval.stages.interchange.imported import Log, version_number
from mpm_eval.stages.interchange.parts import SPEC, Part, data_of, merged, write_part
from mpm_eval.stages.provenance import package_version
from mpm_eval.stages.result_schema import (
    ModelIdentity,
    Result,
    Skipped,
    TaskIdentity,
    ZeroShot,
)
from mpm_eval.strict import canonical_sha256, read_json, to_jsonable, write_json
from mpm_eval.zero_shot import evidence, label

RUNS = Path("results/runs")
UNKNOWN_LANGUAGE = "und"  # BCP 47: undetermined
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_TAG = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*")
_UNNAMED = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Choice:
    """What the user says of the logs."""

    name: str  # the model's, in tables
    language: str = UNKNOWN_LANGUAGE
    task: str = ""  # "": as the log calls it
    metrics: tuple[str, ...] = ()  # of the program, the main one first; (): all
    lower_is_better: tuple[str, ...] = ()


def write_imported(
    logs: Sequence[Log], choice: Choice, out: Path | None = None
) -> tuple[Path, list[str], list[str]]:
    """Write logs as tasks of a run folder; return it, the tasks, and sentences worth knowing.

    The default folder is results/runs/<name>. A language is added to a task that is there; the
    same content twice changes nothing. Raises UserError when a metric's mean is asked for and is
    not what the program itself reports, when no metric is left, for other content of a language
    that is there, and for a folder of something else.
    """
    _check(choice)
    if choice.task and len(logs) > 1:
        raise UserError(
            f"--task: {len(logs)} logs cannot be one task in one language; import them one by one"
        )
    run = out or RUNS / choice.name
    model = {
        "name": choice.name,
        "spec": SPEC,
        "sha256": canonical_sha256([SPEC, choice.name]),
        "identity": {},
    }
    notes: list[str] = []
    parts: dict[str, Part] = {}
    for log in logs:
        kept, said = _usable(log, choice)
        part = _part(kept, choice, model)
        name = part.result.task.name
        if name in parts:
            raise UserError(f"{log.path}: a second task called '{name}'; import it with --task")
        parts[name] = part
        notes += [f"{name}: {sentence}" for sentence in said]
    names = _require_own(run, model)
    complete = {name: merged(run / name, part) for name, part in parts.items()}
    tasks = sorted({*names, *complete})
    run_file = {"schema_version": 1, "model": model, "seed": 0, "limit": None, "tasks": tasks}
    # first: it says whose folder this is, to the same command after a stop too
    write_json(run / "run.json", run_file)
    for name, part in complete.items():
        write_part(run / name, part)
    return run, list(complete), notes


def _check(choice: Choice) -> None:
    for option, value in (("--name", choice.name), ("--task", choice.task or "task")):
        if not _NAME.fullmatch(value):
            raise UserError(
                f"{option}: '{value}' cannot name a folder; use letters, digits, '.', '_' and '-'"
            )
    if not _TAG.fullmatch(choice.language):
        raise UserError(f"--language: '{choice.language}' is no language tag; write e.g. de")


def _usable(log: Log, choice: Choice) -> tuple[Log, list[str]]:
    """Return the log with the metrics that are means of its samples, and what is left out."""
    wanted = [name.removeprefix("mean:") for name in choice.metrics]
    left_out = dict(log.left_out)
    for name in (*wanted, *choice.lower_is_better):
        if name in left_out:
            raise UserError(f"{log.path}: {name}: {left_out[name]}; choose other metrics")
        if name not in log.metrics:
            known = ", ".join(log.metrics) or "none"
            raise UserError(f"{log.path}: no metric '{name}'; known: {known}")
    kept = []
    for name in wanted or log.metrics:
        check = log.checks.get(name)
        if check is None or check.agrees:
            kept.append(name)
            continue
        difference = (
            f"{log.program} reports {check.theirs:.6g}, the mean of its samples is "
            f"{check.ours:.6g}: it is no mean of them, or {log.checked_with} is of another run"
        )
        if wanted:
            raise UserError(f"{log.path}: {name}: {difference}; choose other metrics")
        left_out[name] = difference
    notes = [f"left out {name}: {reason}" for name, reason in left_out.items()]
    if not kept:
        reason = f" ({'; '.join(notes)})" if notes else ""
        raise UserError(f"{log.path}: no metric with one number per sample{reason}")
    checked = [name for name in kept if name in log.checks]
    if len(checked) < len(kept):
        which = ", ".join(name for name in kept if name not in log.checks)
        notes.append(f"not compared with a value of {log.program} itself: {which}")
    return replace(log, metrics=tuple(kept), left_out=left_out), notes


def _part(log: Log, choice: Choice, model: Mapping[str, Any]) -> Part:
    from mpm_eval.stages.interchange.measured import prediction_of, scores_of, statistics_of

    task, language = choice.task or safe_name(log.task), choice.language
    if not task:
        raise UserError(f"{log.path}: does not say which task it is of; name it with --task")
    predictions = tuple(prediction_of(record, language) for record in log.records)
    items = Items(
        tuple(
            Item(
                id=record.id,
                language=language,
                cluster=record.cluster,
                category=record.category,
                cell=record.cell,
                error=record.error,
                input_sha256=record.input_sha256[:16],
                output_sha256=output_sha256(record.output),
            )
            for record in log.records
        ),
        {f"mean:{name}": statistics_of(log.records, name) for name in log.metrics},
        "",
    )
    lower = log.lower_is_better | frozenset(choice.lower_is_better)
    scores = scores_of(log, language, lower)
    data = canonical_sha256(sorted((r.id, r.input_sha256 or r.prompt) for r in log.records))
    source = {"task": log.task, "sha256": data}
    return Part(_result(log, task, language, model, scores, source), items, predictions)


def _result(
    log: Log,
    task: str,
    language: str,
    model: Mapping[str, Any],
    scores: Sequence[Score],
    source: Mapping[str, str],
) -> Result:
    # what must be equal in every language of a task, whatever the languages call it
    identity = [log.program, task, log.task_version, to_jsonable(log.settings)]
    version = {log.program: log.program_version} if log.program_version else {}
    return Result(
        schema_version=RESULT_SCHEMA_VERSION,
        task=TaskIdentity(
            name=task,
            version=version_number(log.task_version),
            sha256=_sha256(identity, log.path),
            kind=log.kind,
            main_metric=f"mean:{log.metrics[0]}",
            main_subset="",
            pivot=PIVOT,
            description=f"Imported from {log.program}, on its own scale",
        ),
        model=ModelIdentity(
            str(model["name"]), str(model["sha256"]), SPEC, {"source_model": log.model}
        ),
        data=data_of(log.program, {language: source}),
        decoding=log.decoding,
        seed=0,
        limit=log.limit,
        languages=(language,),
        num_samples=len(log.records),
        num_failed=sum(bool(record.error) for record in log.records),
        predictions_sha256="",
        versions={
            "mpm-eval": __version__,
            **version,
            **{f"scoring:{name}": package_version(name) for name in ("numpy", "scipy")},
        },
        zero_shot={language: ZeroShot(label(None, language), evidence(None, language))},
        scores=tuple(scores),
        skipped=tuple(
            Skipped(f"mean:{name}", language, reason) for name, reason in log.left_out.items()
        ),
    )


def safe_name(text: str) -> str:
    """Return a task's name as a folder's; "" where nothing is left of it."""
    return _UNNAMED.sub("_", text).strip("._-")


def _sha256(identity: Any, where: Path) -> str:
    try:
        return canonical_sha256(identity)
    except ValueError:
        raise UserError(f"{where}: a setting of the task is NaN or infinite") from None


def _require_own(run: Path, model: Mapping[str, Any]) -> list[str]:
    """Return the tasks of a run folder that is new or of this model."""
    path = run / "run.json"
    if not path.exists():
        if run.is_dir() and any(run.iterdir()):
            raise UserError(f"{run}: holds files of something else; choose another --out")
        return []
    content = read_json(path)
    if not isinstance(content, dict) or content.get("model") != model:
        raise UserError(f"{run}: holds a run of another model; choose another --name or --out")
    return [str(name) for name in content.get("tasks", [])]
