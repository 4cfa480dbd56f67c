"""Hand-made results, with or without items, for the tests of leaderboards and cards."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mpm_eval.items import FILE, Item, Items, write_items
from mpm_eval.schema import Score
from mpm_eval.stages.result_schema import (
    DataIdentity,
    ModelIdentity,
    Result,
    TaskIdentity,
    ZeroShot,
)
from mpm_eval.strict import write_json

SIGNATURE = "exact_match|v:1|ci:bootstrap,percentile|resamples:2000|seed:0|clusters:80"


def score(language: str, value: float | None = 50.0, **fields: Any) -> Score:
    content: dict[str, Any] = {
        "metric": "exact_match",
        "language": language,
        "value": value,
        "ci95": None if value is None else (value - 2.4, value + 2.4),
        "n": 100,
        "n_failed": 0,
        "higher_is_better": True,
        "signature": SIGNATURE,
        "label": "pivot" if language == "en" else "zero-shot",
        **fields,
    }
    return Score(**content)


def add(
    runs: Path,
    run: str,
    *scores: Score,
    model: str = "m",
    spec: str = "",
    model_sha256: str = "c" * 64,
    task: str = "animals",
    version: int = 1,
    task_sha256: str = "a" * 64,
    data_sha256: str = "b" * 64,
    decoding: Mapping[str, Any] | None = None,
    limit: int | None = None,
    kind: str = "generate",
    main_subset: str = "",
    control: str = "",
    description: str = "Name it",
) -> Path:
    """Write the result of one task in runs/run and return its file."""
    shown = scores or (score("en"), score("zh"))
    languages = tuple(dict.fromkeys(s.language for s in shown))
    result = Result(
        schema_version=1,
        task=TaskIdentity(
            task, version, task_sha256, kind, shown[0].metric, main_subset, "en", description
        ),
        model=ModelIdentity(model, model_sha256, spec or model, {}),
        data=DataIdentity(data_sha256, {}),
        decoding={"strategy": "greedy"} if decoding is None else decoding,
        seed=0,
        limit=limit,
        languages=languages,
        num_samples=200,
        num_failed=0,
        predictions_sha256="d" * 64,
        versions={},
        zero_shot={tag: ZeroShot("unknown", "") for tag in languages},
        scores=tuple(shown),
        skipped=(),
        control=control,
    )
    path = runs / run / task / "result.json"
    write_json(path, result)
    return path


def add_items(
    runs: Path,
    run: str,
    hits: Mapping[str, Sequence[int | None]],
    *,
    options: int = 0,
    above_chance: bool = False,
    predictions_sha256: str = "d" * 64,
    more: Sequence[Score] = (),
    metric: str = "exact_match",
    **fields: Any,
) -> Path:
    """Write a result with its items: item i of each language is right (1), wrong (0) or failed.

    Cluster i holds item i of every language. With `options` the task is a choice among as many.
    """
    if options:
        metric = "accuracy_above_chance" if above_chance else "accuracy"
        fields = {"kind": "choose", **fields}
    items, rows, scores = [], [], []
    for tag, own in hits.items():
        for i, hit in enumerate(own):
            error = "" if hit is not None else "no answer"
            items.append(Item(str(i), tag, f"c{i:04d}", "", "", error, "", ""))
            part = [1 / options] if options else []
            rows.append([] if hit is None else [float(hit), *part, 1.0])
        known = [hit for hit in own if hit is not None]
        value = 100 * sum(known) / len(known) if known else None
        if above_chance and value is not None:
            value = (value - 100 / options) / (1 - 1 / options)
        scores.append(
            score(
                tag,
                value,
                metric=metric,
                n=len(known),
                n_failed=len(own) - len(known),
                signature=f"{metric}|v:1|ci:none",
            )
        )
    path = add(runs, run, *scores, *more, **{"model": run, **fields})
    write_items(path.parent / FILE, Items(tuple(items), {metric: rows}, predictions_sha256))
    return path
