"""Results with items made of right and wrong answers, for the tests of the gate."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mpm_eval.items import Item, Items
from mpm_eval.schema import Score
from mpm_eval.stages.pairing import Side
from mpm_eval.stages.result_schema import (
    DataIdentity,
    ModelIdentity,
    Result,
    TaskIdentity,
    ZeroShot,
)

LABELS = {"en": "pivot", "de": "zero-shot", "zh": "zero-shot"}


def make_side(
    answers: Mapping[str, Sequence[float]],
    *,
    metric: str = "exact_match",
    version: int = 1,
    data: str = "d" * 64,
    limit: int | None = None,
    control: str = "",
    labels: Mapping[str, str] = LABELS,
    failed: Collection[int] = (),
    ids: Sequence[str] | None = None,
    inputs: str = "",
    outputs: str = "",
    signature: str = "",
    kind: str = "generate",
) -> Side:
    """Return a task of one metric: per language a 1 per right answer and a 0 per wrong one.

    Equal answers are equal outputs, unless `outputs` tells two sides apart. Of kind "probe" an
    answer list holds one value and there are no items.
    """
    scores, items, rows = [], [], []
    for language, hits in answers.items():
        kept = [hit for i, hit in enumerate(hits) if i not in failed]
        value = 100 * sum(kept) / len(kept) if kept else None
        if kind == "probe":
            value = hits[0]
        scores.append(
            Score(
                metric=metric,
                language=language,
                value=value,
                ci95=None,
                n=len(kept),
                n_failed=len(hits) - len(kept),
                higher_is_better=True,
                signature=f"{signature or metric}|ci:none",
                label=labels[language],
            )
        )
        for i, hit in enumerate(hits):
            id_ = ids[i] if ids else str(i)
            output = hashlib.sha256(f"{outputs}{hit}".encode()).hexdigest()[:16]
            error = "out of memory" if i in failed else ""
            items.append(Item(id_, language, id_, "", "", error, inputs, output))
            rows.append(() if error else (float(hit), 1.0))
    result = Result(
        schema_version=1,
        task=TaskIdentity("animals", version, "t" * 64, kind, metric, "", "en"),
        model=ModelIdentity("m", "a" * 64, "m", {}),
        data=DataIdentity(data, {}),
        decoding={},
        seed=0,
        limit=limit,
        languages=tuple(answers),
        num_samples=len(items),
        num_failed=sum(bool(item.error) for item in items),
        predictions_sha256="p" * 64,
        versions={},
        zero_shot={tag: ZeroShot(labels[tag], "") for tag in answers},
        scores=tuple(scores),
        skipped=(),
        control=control,
    )
    statistics: dict[str, Any] = {metric: rows}
    made = None if kind == "probe" else Items(tuple(items), statistics, "p" * 64)
    return Side(result, made, "run/animals")


def hits(right: int, of: int) -> list[float]:
    """Return `of` answers, the first `right` of them right."""
    return [1.0] * right + [0.0] * (of - right)
