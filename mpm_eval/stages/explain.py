"""Explain: the first stage at which two runs part for one sample, with both sides of it."""

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpm_eval.errors import UserError, unknown
from mpm_eval.items import Item, output_sha256
from mpm_eval.metrics import load_metric
from mpm_eval.schema import Judgement, Prediction
from mpm_eval.stages.cells import Cell, Selection, choose_cells
from mpm_eval.stages.compare import flips
from mpm_eval.stages.pairing import Side, pair_cell, run_sides, signature_of
from mpm_eval.stages.show import plain
from mpm_eval.strict import build, read_jsonl

_KINDS = ("better", "worse")  # of flips
_JUDGEMENTS = "judgements.jsonl"
_ABSENT = "no such sample"
_NOT_RECORDED = "not recorded"


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a sample in two runs."""

    name: str  # data, prompt, image, decoding, model, output, judgement or score
    same: bool | None  # None: one side did not record it; the model is named, not compared
    a: str
    b: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """A sample's way through both runs."""

    task: str
    metric: str
    id: str
    language: str
    first: str | None  # the first stage that differs; None: none does
    stages: tuple[Stage, ...]  # in the order of a run; only "data" where one side lacks the sample


def explain_runs(
    run_a: Path, run_b: Path, wanted: str, selection: Selection | None = None
) -> tuple[Explanation, ...]:
    """Return how a sample went through two run folders, in every selected task and language.

    `wanted` is a sample's id, or "better" or "worse" for the first sample that flipped so. Raises
    UserError when there is no such sample, and as `explain` does.
    """
    sides_a, sides_b = run_sides(run_a), run_sides(run_b)
    cells, _ = choose_cells(sides_a, sides_b, selection or Selection())
    places = {
        cell: (sides_a[cell.task], sides_b[cell.task])
        for cell in cells
        if all(sides[cell.task].items is not None for sides in (sides_a, sides_b))
    }
    if not places:
        raise UserError("--explain: a probe has no samples to explain; choose another --task")
    ids = {cell: _ids(*sides, cell.language) for cell, sides in places.items()}
    id_, chosen = wanted, [cell for cell in places if wanted in ids[cell]]
    if not chosen and wanted in _KINDS:
        id_, chosen = _first_flipped(wanted, places)
    if not chosen:
        known = {plain(id_).plain for of_cell in ids.values() for id_ in of_cell}
        raise unknown("sample id", wanted, known, "--explain")
    found: list[Explanation] = []
    for task in dict.fromkeys(cell.task for cell in chosen):
        of_task = [cell for cell in chosen if cell.task == task]
        languages = [cell.language for cell in of_task]
        found += explain(*places[of_task[0]], of_task[0].metric, id_, languages)
    return tuple(found)


def explain(a: Side, b: Side, metric: str, id_: str, languages: Sequence[str]) -> list[Explanation]:
    """Return the stages of one sample in each language; reads both folders' predictions.

    Raises UserError for predictions that are missing or not those that were scored.
    """
    tracks_a, tracks_b = (_tracks(side, metric, id_) for side in (a, b))
    found = []
    for tag in languages:
        stages = _stages(a, b, metric, tracks_a.get(tag), tracks_b.get(tag))
        first = next((stage.name for stage in stages if stage.same is False), None)
        found.append(Explanation(a.result.task.name, metric, id_, tag, first, stages))
    return found


def _ids(a: Side, b: Side, language: str) -> set[str]:
    items = [item for side in (a, b) if side.items is not None for item in side.items.items]
    return {item.id for item in items if item.language == language}


def _first_flipped(kind: str, places: Mapping[Cell, tuple[Side, Side]]) -> tuple[str, list[Cell]]:
    for cell, sides in places.items():
        found = flips(pair_cell(*sides, cell.metric, cell.language, cell.subset))
        if ids := getattr(found, kind):
            return ids[0], [cell]
    raise UserError(f"--explain {kind}: no sample is {kind} in B in the cells compared")


@dataclass(frozen=True, slots=True)
class _Track:
    """What one run holds of one sample."""

    item: Item
    row: Sequence[float] | None  # None: the metric does not apply
    prediction: Prediction
    judgements: tuple[Judgement, ...] | None  # in a fixed order; None: nothing was judged


def _tracks(side: Side, metric: str, id_: str) -> dict[str, _Track]:
    """Return by language what a run holds of a sample."""
    assert side.items is not None
    path = Path(side.where) / "predictions.jsonl"
    if not path.is_file():
        raise UserError(
            f"{path}: no such file; --explain reads the predictions of both runs, "
            "results alone do not hold them"
        )
    lines = _lines(path, id_)
    judged = path.with_name(_JUDGEMENTS)
    judgements = _lines(judged, id_) if judged.is_file() else None
    found = {}
    for item, row in zip(side.items.items, side.items.statistics[metric], strict=True):
        if item.id != id_:
            continue
        predictions = [build(Prediction, line, str(path)) for line in lines[item.language]]
        if [output_sha256(p.content, p.option_scores) for p in predictions] != [item.output_sha256]:
            raise UserError(
                f"{path}: sample '{item.id}' ({item.language}) is not as it was scored; "
                f"score the run again: mpm-eval score {path.parent.parent}"
            )
        said = None
        if judgements is not None:
            said = _said([build(Judgement, x, str(judged)) for x in judgements[item.language]])
        found[item.language] = _Track(item, row, predictions[0], said)
    return found


def _said(judgements: Sequence[Judgement]) -> tuple[Judgement, ...]:
    """Return the judgements that count: of a request asked again, the last."""
    last = {judgement.request_sha256: judgement for judgement in judgements}
    return tuple(sorted(last.values(), key=lambda j: (j.judge, j.mode, j.order, j.repeat)))


def _lines(path: Path, id_: str) -> dict[str, list[Mapping[str, Any]]]:
    """Return a sample's lines by language; only these are checked, all would take seconds."""
    found: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for _, line in read_jsonl(path):
        if line.get("id") == id_:
            found[str(line.get("language"))].append(line)
    return found


def _stages(a: Side, b: Side, metric: str, x: _Track | None, y: _Track | None) -> tuple[Stage, ...]:
    data = Stage("data", _same_data(a, b, x, y), _data(a, x), _data(b, y))
    if x is None or y is None:
        return (data,)
    p, q = x.prediction, y.prediction
    stages = [
        data,
        _recorded("prompt", p.prompt, q.prompt),
        # of equal data and an equal prompt only the decoded picture is left to differ
        _recorded("image", p.input_sha256, q.input_sha256, "input sha256 "),
        _recorded("decoding", _decoding(a), _decoding(b)),
        Stage("model", None, _model(a), _model(b)),
        _output(p, q),
    ]
    if x.judgements is not None and y.judgements is not None:
        stages.append(_compared("judgement", _spoken(x.judgements), _spoken(y.judgements)))
    stages.append(_score(a, b, metric, x, y))
    return tuple(stages)


def _compared(name: str, one: str, other: str) -> Stage:
    return Stage(name, one == other, one, other)


def _recorded(name: str, one: str, other: str, prefix: str = "") -> Stage:
    same = one == other if one and other else None
    shown = (prefix + text if text else _NOT_RECORDED for text in (one, other))
    return Stage(name, same, *shown)


def _same_data(a: Side, b: Side, x: _Track | None, y: _Track | None) -> bool:
    return a.result.data.sha256 == b.result.data.sha256 and _place(x) == _place(y)


def _place(track: _Track | None) -> tuple[str, str, str] | None:
    item = track.item if track else None
    return (item.cluster, item.category, item.cell) if item else None


def _data(side: Side, track: _Track | None) -> str:
    digest = f"sha256 {side.result.data.sha256}"
    if track is None:
        return f"{_ABSENT}, {digest}"
    names = ("cluster", "category", "cell")
    place = zip(names, _place(track) or (), strict=True)
    return ", ".join([digest, *(f"{name} {value}" for name, value in place if value)])


def _decoding(side: Side) -> str:
    settings = side.result.decoding
    return _text({**dict(sorted(settings.items())), "seed": side.result.seed}) if settings else ""


def _model(side: Side) -> str:
    model = side.result.model
    return f"{model.name}, sha256 {model.sha256[:12]}"


def _output(one: Prediction, other: Prediction) -> Stage:
    same = all(
        getattr(one, name) == getattr(other, name) for name in ("output", "option_scores", "error")
    )
    a, b = _answer(one, 6), _answer(other, 6)
    if a == b and not same:  # scores that part in a late digit
        a, b = _answer(one, 17), _answer(other, 17)
    return Stage("output", same, a, b)


def _answer(prediction: Prediction, digits: int) -> str:
    if prediction.error:
        return f"failed: {prediction.error}"
    scores = [f"{s.logprob:.{digits}g}/{s.num_tokens}" for s in prediction.option_scores]
    tail = f" [log-probability/tokens of the options: {', '.join(scores)}]" if scores else ""
    return prediction.output + tail


def _spoken(judgements: Sequence[Judgement]) -> str:
    names = ("judge", "mode", "order", "repeat", "scores", "reply", "error")
    return _text([{name: getattr(judgement, name) for name in names} for judgement in judgements])


def _score(a: Side, b: Side, metric: str, x: _Track, y: _Track) -> Stage:
    one, other = _value(metric, x), _value(metric, y)
    signatures = [signature_of(side.result, metric, x.item.language) for side in (a, b)]
    if signatures[0] != signatures[1]:
        one, other = f"{one} by {signatures[0]}", f"{other} by {signatures[1]}"
    return _compared("score", one, other)


def _value(metric: str, track: _Track) -> str:
    import numpy as np

    if track.row is None:
        return f"{metric} does not apply"
    if track.item.error:
        return "failed"
    value = float(load_metric(metric).aggregate(np.asarray(track.row, dtype=np.float64)))
    return f"{metric} undefined" if math.isnan(value) else f"{metric} {value:.6g}"


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
