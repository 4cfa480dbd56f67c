"""Tiny tasks and hand-made run folders for the stages that read them."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from mpm_eval.data import open_dataset
from mpm_eval.schema import Prediction, Task
from mpm_eval.store import to_line
from mpm_eval.strict import write_json
from mpm_eval.tasks import load_task

MakeTask = Callable[..., Task]
MakeRun = Callable[..., Path]


@pytest.fixture
def make_task(tmp_path: Path) -> MakeTask:
    """Return a function that writes a task file with its samples and loads it.

    By default "animals": eight closed questions in en, de and zh, four per category, two per
    cluster; the right answer to question 3 in German is "de 3".
    """

    def make(
        name: str = "animals", rows: Iterable[dict[str, Any]] | None = None, **fields: Any
    ) -> Task:
        content: dict[str, Any] = {
            "name": name,
            "version": 1,
            "kind": "generate",
            "description": "Name the animal",
            "languages": ["en", "de", "zh"],
            "metrics": ["exact_match"],
            "main_metric": "exact_match",
            "data": {"source": "jsonl", "path": name},
            **fields,
        }
        if content["kind"] != "probe":
            content["prompts"] = {tag: "{question}" for tag in content["languages"]}
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        lines = animals(content["languages"]) if rows is None else rows
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in lines)
        (folder / "samples.jsonl").write_text(text, encoding="utf-8")
        path = tmp_path / f"{name}.toml"
        path.write_text(_toml(content), encoding="utf-8")
        return load_task(path)

    return make


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Return a function that writes a run folder of one task from outputs by (id, language).

    Samples without an output get the first reference; None leaves a sample out; a Prediction is
    written as it is.
    """

    def make(
        task: Task,
        outputs: Mapping[tuple[str, str], "str | Prediction | None"] | None = None,
        run: str = "run",
        **manifest: Any,
    ) -> Path:
        dataset = open_dataset(task)
        languages = manifest.get("languages", list(task.languages))
        lines = []
        for sample in (s for tag in languages for s in dataset.samples(tag)):
            answer = (outputs or {}).get(sample.key, sample.references[0])
            if isinstance(answer, str):
                answer = Prediction(sample.id, sample.language, sample.question, answer)
            if answer is not None:
                lines.append(json.dumps(to_line(answer), ensure_ascii=False) + "\n")
        model = {"name": "m", "spec": "m", "sha256": "a" * 64, "identity": {}}
        content = {
            "schema_version": 1,
            "task": {"name": task.name, "version": task.version, "sha256": task.sha256},
            "data": {"sha256": dataset.sha256, "description": dict(dataset.description)},
            "model": model,
            "seed": 0,
            "limit": None,
            "decoding": {"max_new_tokens": task.max_new_tokens},
            "languages": languages,
            "training_record": None,
            "versions": {"mpm-eval": "0"},
            **manifest,
        }
        folder = tmp_path / "runs" / run / task.name
        write_json(folder / "manifest.json", content)
        write_json(folder / "task.json", task)
        (folder / "predictions.jsonl").write_text("".join(lines), encoding="utf-8")
        return folder.parent

    return make


def animals(languages: Iterable[str]) -> list[dict[str, Any]]:
    return [
        {
            "id": f"{i}",
            "language": tag,
            "question": f"{tag} {i}?",
            "references": [f"{tag} {i}"],
            "category": "detail" if i % 2 else "conversation",
            "cluster": f"picture {i // 2}",
        }
        for tag in languages
        for i in range(8)
    ]


def _toml(content: Mapping[str, Any]) -> str:
    # JSON strings, numbers, booleans and lists are TOML
    plain = {k: v for k, v in content.items() if not isinstance(v, Mapping)}
    tables = {k: v for k, v in content.items() if isinstance(v, Mapping)}
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in plain.items()]
    for name, table in tables.items():
        lines += [f"[{name}]", *(f"{k} = {json.dumps(v)}" for k, v in table.items())]
    return "\n".join(lines) + "\n"
