"""Export for inspect: a .eval log per task and language, which `inspect view` opens.

Log version 2 as inspect_ai at commit 499e6152 reads it: header.json, summaries.json and a file
per sample in a zip. The same run gives the same bytes.
"""

import base64
import io
import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mpm_eval import __version__
from mpm_eval.errors import CorruptImage, UserError
from mpm_eval.schema import Score
from mpm_eval.stages.interchange.export import Answered, ExportedTask, read_tasks
from mpm_eval.stages.interchange.run_writer import safe_name
from mpm_eval.strict import canonical_sha256, read_json, write_bytes

_NO_DATE = "1970-01-01T00:00:00+00:00"  # of a run that did not keep when it was made
_MAX_SUMMARY = 1000  # characters of a text in the list of samples


def export_inspect(
    run: Path, out: Path, tasks: Sequence[str] | None = None, images: bool = False
) -> tuple[list[Path], list[str]]:
    """Write TASK_LANGUAGE.eval for each task and language into a folder; return files and notes.

    Every metric is a scorer; a sample's value is that of the sample alone. Failed samples carry
    their error and no score. Pictures are left out unless `images`. Raises UserError as
    `read_tasks`, and for a sample id that cannot name a file of a log.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; give a folder for the logs")
    found, notes = read_tasks(run, tasks)
    written = []
    for task in found:
        for language in task.result.languages:
            members = [one for one in task.answered if one.item.language == language]
            pictures = _pictures(task, members, notes) if images else {}
            path = out / f"{safe_name(task.result.task.name)}_{language}.eval"
            write_bytes(path, _log(task, language, members, pictures))
            written.append(path)
    return written, notes


def _log(
    task: ExportedTask, language: str, members: Sequence[Answered], pictures: Mapping[str, str]
) -> bytes:
    samples = {_file_name(one): _sample(task, one, pictures) for one in members}
    files = {
        **samples,
        "summaries.json": [_summary(sample) for sample in samples.values()],
        "header.json": _header(task, language, members),
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            # NaN is how inspect marks a sample that a scorer could not score
            archive.writestr(info, json.dumps(content, ensure_ascii=False))
    return buffer.getvalue()


def _file_name(one: Answered) -> str:
    if ".." in one.item.id.replace("\\", "/").split("/"):
        raise UserError(f"sample id '{one.item.id}' cannot name a file of a log of inspect")
    return f"samples/{one.item.id}_epoch_1.json"


def _sample(task: ExportedTask, one: Answered, pictures: Mapping[str, str]) -> dict[str, Any]:
    item, prediction, sample = one.item, one.prediction, one.sample
    prompt: Any = prediction.prompt or (sample.question if sample else "")
    picture = pictures.get(sample.image) if sample and sample.image else None
    if picture is not None:
        parts = [{"type": "text", "text": prompt}, {"type": "image", "image": picture}]
        prompt = [{"role": "user", "content": parts}]
    user = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
    answer = {"role": "assistant", "content": prediction.output, "source": "generate"}
    content = {
        "id": item.id,
        "epoch": 1,
        "input": prompt,
        "target": list(sample.references) if sample else "",
        "messages": [*user, answer],
        "output": {
            "model": task.result.model.name,
            "choices": [{"message": answer, "stop_reason": "stop"}],
            "completion": prediction.output,
        },
        "scores": {
            scorer_name(name): {"value": math.nan if value is None else value}
            for name, value in one.values.items()
            if not item.error
        },
        "metadata": {
            "language": item.language,
            "cluster": item.cluster,
            "category": item.category,
            "cell": item.cell,
            "input_sha256": prediction.input_sha256,
        },
        "store": {},
        "events": [],
        "model_usage": {},
        "attachments": {},
    }
    if sample and sample.options:
        content["choices"] = list(sample.options)
    if item.error:
        content["error"] = {"message": item.error, "traceback": "", "traceback_ansi": ""}
    return content


def scorer_name(metric: str) -> str:
    """Return a metric's name in a log: without "mean:", which importing puts before it."""
    return metric.removeprefix("mean:")


def _summary(sample: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the list of samples shows: short texts, no picture."""
    text = sample["input"]
    text = text if isinstance(text, str) else text[0]["content"][0]["text"]
    target = sample["target"]
    error = sample.get("error")
    return {
        **{name: sample[name] for name in ("id", "epoch", "scores", "metadata")},
        **({"choices": sample["choices"]} if "choices" in sample else {}),
        "input": text[:_MAX_SUMMARY],
        "target": target[:_MAX_SUMMARY] if isinstance(target, str) else
        [reference[:_MAX_SUMMARY] for reference in target],
        **({"error": error["message"][:_MAX_SUMMARY]} if error else {}),
        "completed": True,
        "message_count": len(sample["messages"]),
    }  # fmt: skip


def _header(task: ExportedTask, language: str, members: Sequence[Answered]) -> dict[str, Any]:
    result, created = task.result, _created(task.folder)
    identity = [result.task.sha256, result.data.sha256, result.model.sha256, language]
    scores = {s.metric: s for s in result.scores if s.language == language and s.subset == ""}
    return {
        "version": 2,
        "status": "success",
        "eval": {
            "eval_id": canonical_sha256([*identity, result.predictions_sha256])[:22],
            "run_id": canonical_sha256([result.model.sha256, result.seed])[:22],
            "created": created,
            "task": result.task.name,
            "task_id": canonical_sha256(identity[:2])[:22],
            "task_version": result.task.version,
            "dataset": {
                "name": result.task.name,
                "samples": len(members),
                "sample_ids": [one.item.id for one in members],
                "shuffled": False,
            },
            "model": result.model.name,
            "model_args": {},
            "config": {"epochs": 1} | ({} if result.limit is None else {"limit": result.limit}),
            "packages": {"mpm-eval": __version__},
            "metadata": {
                "language": language,
                "zero_shot": result.zero_shot[language].label,
                "zero_shot_evidence": result.zero_shot[language].evidence,
                "task_sha256": result.task.sha256,
                "data_sha256": result.data.sha256,
                "model_sha256": result.model.sha256,
                "control": result.control,
            },
        },
        "plan": {"name": "mpm-eval", "steps": [], "config": {}},
        "results": {
            "total_samples": len(members),
            "completed_samples": sum(not one.item.error for one in members),
            "scores": [_scorer(name, members, scores.get(name)) for name in task.metrics],
        },
        "stats": {"started_at": created, "completed_at": created, "model_usage": {}},
    }


def _scorer(metric: str, members: Sequence[Answered], score: Score | None) -> dict[str, Any]:
    """Return a metric as a scorer: the mean of its samples, and the value with its interval."""
    known = [v for one in members if not one.item.error
             if (v := one.values.get(metric)) is not None]  # fmt: skip
    numbers: dict[str, float | None] = {"mean": math.fsum(known) / len(known) if known else None}
    if score is not None:
        numbers["value"] = score.value
        numbers["ci95_low"], numbers["ci95_high"] = score.ci95 or (None, None)
    name = scorer_name(metric)
    return {
        "name": name,
        "scorer": name,
        "scored_samples": len(known),
        "unscored_samples": len(members) - len(known),
        "params": {},
        "metrics": {
            key: {"name": key, "value": value, "params": {}}
            for key, value in numbers.items()
            if value is not None
        },
        "metadata": {} if score is None else {"signature": score.signature},
    }


def _created(folder: Path) -> str:
    """Return when the last session of a run ended."""
    path = folder / "environment.json"
    content = read_json(path) if path.is_file() else {}
    sessions = content.get("sessions") if isinstance(content, dict) else None
    if not isinstance(sessions, list) or not sessions or not isinstance(sessions[-1], dict):
        return _NO_DATE
    return str(sessions[-1].get("finished", _NO_DATE))


def _pictures(task: ExportedTask, members: Sequence[Answered], notes: list[str]) -> dict[str, str]:
    """Return the pictures of the samples as data URIs, by key; a damaged one is a note."""
    found: dict[str, str] = {}
    if task.dataset is None:
        return found
    keys = dict.fromkeys(one.sample.image for one in members if one.sample and one.sample.image)
    for key in keys:
        try:
            image = task.dataset.load_image(key)
        except CorruptImage as error:
            notes.append(f"{task.result.task.name}: picture {key} left out: {error}")
            continue
        buffer = io.BytesIO()
        image.save(buffer, format="PNG")
        found[key] = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return found
