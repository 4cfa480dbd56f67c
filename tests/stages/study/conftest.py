"""A study small enough for tests, and outcomes made by hand."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from mpm_eval.schema import StageRecord, TrainingRecord
from mpm_eval.stages.result_schema import ZeroShot
from mpm_eval.stages.study.definition import Study, load_study
from mpm_eval.stages.study.folders import Outcome, Value

MakeStudy = Callable[..., Study]
MakeOutcome = Callable[..., Outcome]

CHOICE, CAPTION = "emoji_choice_validation", "emoji_caption_validation"
CONTENT: dict[str, Any] = {
    "name": "small",
    "question": "Does it work?",
    "recipe": "tiny",
    "languages": ["en", "de"],
    "seeds": [0, 1],
    "limit": 8,
    "x_label": "share",
    "points": [{"name": "none", "x": 0.0}, {"name": "half", "x": 0.5}],
    "measures": [
        {"task": CHOICE, "metric": "accuracy_above_chance", "title": "Choice"},
        {"task": CAPTION, "metric": "content", "title": "Content"},
    ],
}


def write_study(folder: Path, **fields: Any) -> Path:
    """Write `CONTENT` with other fields as <name>.toml and return its path."""
    content = {**CONTENT, **fields}
    tables = {"points", "measures", "x_measure"}
    lines = [f"{key} = {json.dumps(value)}" for key, value in content.items() if key not in tables]
    for name in sorted(tables & content.keys()):
        several = isinstance(content[name], list)
        for table in content[name] if several else [content[name]]:
            lines.append(f"[[{name}]]" if several else f"[{name}]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{content['name']}.toml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def make_study(tmp_path: Path) -> MakeStudy:
    """Return a function that loads a small study with some fields changed."""

    def make(**fields: Any) -> Study:
        return load_study(str(write_study(tmp_path, **fields)))

    return make


@pytest.fixture
def make_outcome() -> MakeOutcome:
    """Return a function that makes an outcome from choice accuracy by language."""

    def make(
        point: str,
        seed: int,
        values: Mapping[str, float | None],
        labels: Mapping[str, str] | None = None,
        more: tuple[Value, ...] = (),
        **others: Any,
    ) -> Outcome:
        labels = labels or {"en": "pivot", "de": "zero-shot"}
        stage = StageRecord(
            name="pretrain",
            data={"emoji": "0"},
            multimodal_samples={"en": 40},
            text_samples={},
            steps=5,
            seed=seed,
            losses={"validation": 2.5},
            trained=("bridge",),
        )
        fields: dict[str, Any] = {
            "schema_version": 1,
            "study": "small",
            "point": point,
            "seed": seed,
            "overrides": (f"seed={seed}",),
            "recipe_sha256": "a" * 64,
            "evaluation_sha256": "b" * 64,
            "checkpoint_sha256": "c" * 64,
            "record": TrainingRecord("tiny", "en", (stage,), {"torch": "2"}),
            "zero_shot": {tag: ZeroShot(one, f"evidence {tag}") for tag, one in labels.items()},
            "values": tuple(
                Value(CHOICE, "accuracy_above_chance", "", tag, value, 8, 0)
                for tag, value in values.items()
            )
            + more,
            "versions": {"mpm-eval": "0"},
        }
        return Outcome(**{**fields, **others})

    return make
