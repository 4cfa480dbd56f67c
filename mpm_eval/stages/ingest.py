"""Turn somebody else's predictions file into a normal run folder, strictly."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mpm_eval import __version__
from mpm_eval.data import open_dataset
from mpm_eval.errors import UserError, unknown
from mpm_eval.schema import OptionScore, Prediction, Sample, Task
from mpm_eval.stages.result_schema import PredictionLine
from mpm_eval.store import TaskStore, to_line
from mpm_eval.strict import build, canonical_sha256, read_json, read_jsonl, to_jsonable, write_json

RUNS = Path("results/runs")
MIN_RANKING = 10  # recall at 10 must be known: a shorter ranking would count as a miss

Samples = Mapping[tuple[str, str], Sample]


def write_run(
    task: Task, file: Path, name: str, out: Path | None, languages: Sequence[str] | None
) -> Path:
    """Write the predictions in `file` as a run folder called `name`; return the folder.

    The default folder is results/runs/<name>. Samples of every language of the task are expected,
    or of `languages` only; lines in other languages of the task are then left out. Raises
    UserError with file and line for a bad line, and for missing samples; never overwrites other
    predictions.
    """
    _check(task, name, languages or ())
    asked = tuple(dict.fromkeys(languages or task.languages))
    dataset = open_dataset(task)
    # every language is known to the reader, so that a line of a language left out is no unknown id
    samples = {s.key: s for tag in task.languages for s in dataset.samples(tag)}
    predictions = read_predictions_file(file, task, samples)
    expected = [key for key in samples if key[1] in asked]
    _require_all(file, expected, predictions)
    kept = [predictions[key] for key in expected]
    digest = canonical_sha256([to_line(prediction) for prediction in kept])
    run = out or RUNS / name
    model = {
        "name": name,
        "spec": "predictions",
        "sha256": canonical_sha256(["predictions", name]),
        "identity": {},
    }
    manifest = {
        "schema_version": 1,
        "task": {"name": task.name, "version": task.version, "sha256": task.sha256},
        "data": {"sha256": dataset.sha256, "description": dict(dataset.description)},
        # the weights are unknown: the predictions themselves say which model this is
        "model": {**model, "identity": {"predictions_sha256": digest}},
        "seed": 0,
        "limit": None,
        "decoding": {},
        "languages": list(asked),
        "training_record": None,
        "versions": {"mpm-eval": __version__},
    }
    _write(run, task, model, manifest, kept)
    return run


def _check(task: Task, name: str, languages: Sequence[str]) -> None:
    if task.kind == "probe":
        raise UserError(
            f"{task.name}: a probe task reads hidden states, not predictions; "
            "run it with: mpm-eval run"
        )
    if task.kind == "paint":
        raise UserError(
            f"{task.name}: a paint task measures pictures, not lines of predictions; "
            "run it with: mpm-eval run"
        )
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise UserError(
            f"--name: '{name}' cannot name a run; use letters, digits, '.', '_' and '-'"
        )
    for language in languages:
        if language not in task.languages:
            raise unknown("language", language, task.languages, task.name)


def read_predictions_file(
    file: Path, task: Task, samples: Samples
) -> dict[tuple[str, str], Prediction]:
    """Return the predictions in `file` by sample key; see docs/predictions.md for the format.

    Raises UserError with file and line for bad JSON, an unknown key, id or language, a duplicate,
    or a line that does not answer a task of this kind.
    """
    if not file.is_file():
        raise UserError(f"{file}: no such file; give a JSONL file of predictions")
    found: dict[tuple[str, str], Prediction] = {}
    first_line: dict[tuple[str, str], int] = {}
    for number, content in read_jsonl(file):
        where = f"{file}:{number}"
        line: PredictionLine = build(PredictionLine, content, where)
        key = (line.id, line.language)
        if line.language not in task.languages:
            raise unknown("language", line.language, task.languages, where)
        if key not in samples:
            raise UserError(unknown_sample(where, key, samples))
        if key in found:
            raise UserError(
                f"{where}: second prediction for id '{line.id}' in language '{line.language}', "
                f"the first is in line {first_line[key]}; remove one"
            )
        found[key] = _prediction(line, samples[key], task.kind, where)
        first_line[key] = number
    return found


def unknown_sample(where: str, key: tuple[str, str], samples: Iterable[tuple[str, str]]) -> str:
    """Return the message for a sample id that the task does not have in that language."""
    ids = [id_ for id_, language in samples if language == key[1]]
    return str(unknown(f"sample id in language '{key[1]}'", key[0], ids, where))


def _prediction(line: PredictionLine, sample: Sample, kind: str, where: str) -> Prediction:
    prediction = Prediction(
        id=line.id,
        language=line.language,
        prompt=line.prompt,
        output=line.output or "",
        error=line.error,
        input_sha256=line.input_sha256,
    )
    if line.error:
        return prediction
    if kind == "retrieve":
        ranking = _ranking(line, sample, where)
        # the first candidate is the output, as the chosen option is one of kind "choose"
        return replace(prediction, output=ranking[0], ranking=ranking)
    if line.ranking:
        raise UserError(f"{where}: ranking: this task is of kind '{kind}'; remove it")
    if kind == "generate":
        if line.choice is not None or line.option_scores:
            raise UserError(f"{where}: this task has no options to choose from; give 'output'")
        if line.output is None:
            raise UserError(f"{where}: no answer; give 'output', or 'error' for a failed sample")
        return prediction
    scores = _option_scores(line, sample, where)
    # the option chosen is the output, as in the harness's own runs
    best = max(range(len(scores)), key=lambda i: scores[i].logprob / scores[i].num_tokens)
    return replace(prediction, output=sample.options[best], option_scores=scores)


def _ranking(line: PredictionLine, sample: Sample, where: str) -> tuple[str, ...]:
    """Return the ranking of a line: different candidates, enough of them for recall at 10."""
    if line.choice is not None or line.option_scores:
        raise UserError(f"{where}: this task has no options to choose from; give 'ranking'")
    known = set(sample.candidates)
    for candidate in line.ranking:
        if candidate not in known:
            raise unknown("candidate", candidate, sample.candidates, f"{where}: ranking")
    if len(set(line.ranking)) < len(line.ranking):
        twice = next(c for c in line.ranking if line.ranking.count(c) > 1)
        raise UserError(f"{where}: ranking: candidate '{twice}' is given twice; remove one")
    least = min(MIN_RANKING, len(sample.candidates))
    if len(line.ranking) < least:
        raise UserError(
            f"{where}: ranking: {len(line.ranking)} candidates, needs at least the best {least} of "
            f"{len(sample.candidates)}; or give 'error' for a failed sample"
        )
    return line.ranking


def _option_scores(line: PredictionLine, sample: Sample, where: str) -> tuple[OptionScore, ...]:
    num_options = len(sample.options)
    if (line.choice is None) == (not line.option_scores):
        raise UserError(
            f"{where}: give either 'choice', an index from 0 to {num_options - 1}, or "
            "'option_scores', one per option; or 'error' for a failed sample"
        )
    if line.choice is not None:
        if not 0 <= line.choice < num_options:
            raise UserError(
                f"{where}: choice: {line.choice} is not the index of an option; "
                f"sample '{sample.id}' has options 0 to {num_options - 1}"
            )
        return tuple(OptionScore(0.0 if i == line.choice else -1.0, 1) for i in range(num_options))
    if len(line.option_scores) != num_options:
        raise UserError(
            f"{where}: option_scores: got {len(line.option_scores)} scores, sample "
            f"'{sample.id}' has {num_options} options; give one score per option"
        )
    for index, score in enumerate(line.option_scores):
        if not math.isfinite(score.logprob) or score.num_tokens < 1:
            raise UserError(
                f"{where}: option_scores[{index}]: logprob must be finite and num_tokens at least "
                f"1, got {score.logprob} and {score.num_tokens}"
            )
    return line.option_scores


def _require_all(
    file: Path, expected: Sequence[tuple[str, str]], found: Mapping[tuple[str, str], Any]
) -> None:
    missing = [key for key in expected if key not in found]
    if missing:
        first = ", ".join(f"{id_} ({language})" for id_, language in missing[:5])
        raise UserError(
            f"{file}: {len(missing)} of {len(expected)} samples have no prediction: {first}"
            f"{', …' if len(missing) > 5 else ''}; add them, a failed one with 'error', or score "
            "fewer languages with --languages"
        )


def _write(
    run: Path,
    task: Task,
    model: Mapping[str, Any],
    manifest: Mapping[str, Any],
    predictions: Sequence[Prediction],
) -> None:
    folder = run / task.name
    run_file = run / "run.json"
    names = [task.name]
    if run_file.exists():
        other = read_json(run_file)
        if other.get("model") != model:
            raise UserError(f"{run}: holds another run; choose another --name or --out")
        names = sorted({*other.get("tasks", []), task.name})
    if (folder / "manifest.json").exists():
        old = read_json(folder / "manifest.json")
        # a newer program may score the same predictions again
        if {**old, "versions": None} != {**to_jsonable(manifest), "versions": None}:
            raise UserError(
                f"{folder}: holds other predictions; choose another --name or --out, or remove it"
            )
    elif folder.exists() and any(path.name != ".lock" for path in folder.iterdir()):
        raise UserError(f"{folder}: holds files of something else; choose another --name or --out")
    with TaskStore.open(folder, manifest) as store:
        write_json(folder / "task.json", task)
        done = store.predictions()
        store.append([p for p in predictions if p.key not in done])
    write_json(
        run_file,
        {"schema_version": 1, "model": model, "seed": 0, "limit": None, "tasks": names},
    )
