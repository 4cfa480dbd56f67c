"""Pairing: the items of two results brought together by id and language; nothing vanishes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpm_eval.errors import UserError, unknown
from mpm_eval.items import FILE as ITEMS_FILE
from mpm_eval.items import Cell, Item, Items, read_items
from mpm_eval.metrics import is_of_a_set, load_metric
from mpm_eval.stages.result_schema import Result, load_result

if TYPE_CHECKING:
    import numpy as np

# the interval of a score is no part of what its metric is
_INTERVAL = "|ci:"
# parts of a signature that are the model's and not the metric's: what two models may differ in
OF_THE_MODEL = ("layer:", "layers:", "painter:", "painted:")
# kinds of tasks with numbers that no single sample has
_WITHOUT_ITEMS = ("probe", "paint")
# a change of interpreter changes no answer and no score
_NO_MATTER = ("python",)

_Pair = tuple[str, Any, Any]  # what, its value in a, its value in b


@dataclass(frozen=True, slots=True)
class Side:
    """One task's result with its items, from a run folder or a baseline."""

    result: Result
    items: Items | None  # None for a probe scored before probes had items
    where: str  # path shown in messages


@dataclass(frozen=True, slots=True)
class PairedCell:
    """The items of one metric, language and subset that both sides scored, and what differs."""

    task: str
    metric: str
    language: str
    subset: str
    higher_is_better: bool
    items: tuple[Item, ...]  # items of a, scored in both, in the order of a
    a: "np.ndarray"  # x_NS, a row of statistics per item
    b: "np.ndarray"  # the same items in the same order
    only_a: tuple[str, ...]  # ids that a counts, scored or failed, and b does not have
    only_b: tuple[str, ...]
    failed_a: tuple[str, ...]
    failed_b: tuple[str, ...]
    changed_input: tuple[str, ...]  # ids whose prompt, options or picture differ, where both known
    changed_output: tuple[str, ...]  # ids scored in both whose outputs differ
    unknown_input: tuple[str, ...]  # ids scored in both whose input one side did not record

    @property
    def clusters(self) -> list[str]:
        return [item.cluster for item in self.items]


def run_sides(run: Path) -> dict[str, Side]:
    """Return every task of a run folder by its name.

    Raises UserError for a folder without tasks, a task that is not scored, and items that are
    missing or those of other predictions.
    """
    folders = sorted(
        {path.parent for name in ("manifest.json", "result.json") for path in run.glob(f"*/{name}")}
    )
    if not folders:
        raise UserError(
            f"{run}: not a run folder, no task in it has a result.json; "
            "make one with: mpm-eval run --task TASK --model MODEL"
        )
    found: dict[str, Side] = {}
    for folder in folders:
        side = _side(folder, run)
        name = side.result.task.name
        if name in found:
            raise UserError(
                f"{folder}: a second result of task '{name}', the first is in "
                f"{found[name].where}; move one of them out of the run"
            )
        found[name] = side
    return found


def has_items(side: Side, metric: str, subset: str) -> bool:
    """Return whether a side has items of a metric; a probe's are those of its headline layer."""
    if side.items is None or metric not in side.items.statistics:
        return False
    return side.result.task.kind != "probe" or not subset


def main_subset(result: Result, metric: str) -> str:
    """Return the subset that stands for a metric: the task's, of a distance of sets always all.

    A part of a set often has too few pictures for a distance.
    """
    return "" if is_of_a_set(metric) else result.task.main_subset


def is_whole(side: Side, metric: str, subset: str) -> bool:
    """Return whether a score is of a whole set: without items that could be paired or resampled."""
    kinds = side.result.task.kind in _WITHOUT_ITEMS
    return kinds and not has_items(side, metric, subset)


def pair_cell(a: Side, b: Side, metric: str, language: str, subset: str) -> PairedCell:
    """Return the items of a cell that both sides scored, and every id where they differ.

    A language or subset that one side lacks is not an error: its ids are in `only_a` or `only_b`.
    Raises UserError for a probe, a metric that one side lacks, an id that is there twice, and
    statistics of different widths or directions, which no version of one metric has.
    """
    task = a.result.task.name
    better = _direction(a, b, metric)
    cell_a, cell_b = (_cell(side, metric, language, subset) for side in (a, b))
    index_a, index_b = _by_id(cell_a, a), _by_id(cell_b, b)
    scored_b = {item.id: i for i, item in enumerate(cell_b.items)}
    rows_a = [i for i, item in enumerate(cell_a.items) if item.id in scored_b]
    items = tuple(cell_a.items[i] for i in rows_a)
    rows_b = [scored_b[item.id] for item in items]
    if items and cell_a.statistics.shape[1] != cell_b.statistics.shape[1]:
        raise UserError(
            f"{b.where}: metric '{metric}' has {cell_b.statistics.shape[1]} statistics per item, "
            f"{cell_a.statistics.shape[1]} in {a.where}; score both with the same mpm-eval"
        )
    return PairedCell(
        task=task,
        metric=metric,
        language=language,
        subset=subset,
        higher_is_better=better,
        items=items,
        a=cell_a.statistics[rows_a],
        b=cell_b.statistics[rows_b],
        only_a=tuple(id_ for id_ in index_a if id_ not in index_b),
        only_b=tuple(id_ for id_ in index_b if id_ not in index_a),
        failed_a=tuple(item.id for item in cell_a.failed),
        failed_b=tuple(item.id for item in cell_b.failed),
        changed_input=tuple(
            id_
            for id_, item in index_a.items()
            # a control changes inputs on purpose: it is a difference of the runs
            if a.result.control == b.result.control
            and (other := index_b.get(id_)) is not None
            and item.input_sha256
            and other.input_sha256
            and item.input_sha256 != other.input_sha256
        ),
        changed_output=tuple(
            item.id for item in items if item.output_sha256 != index_b[item.id].output_sha256
        ),
        unknown_input=tuple(
            item.id for item in items if not (item.input_sha256 and index_b[item.id].input_sha256)
        ),
    )


def differences_of(a: Side, b: Side) -> list[str]:
    """Return one sentence, a's value before b's, per identity that differs besides the model.

    Task, data, languages, limit, decoding, seed, signatures of metrics, and versions of packages
    that both recorded.
    """
    x, y = a.result, b.result
    versions = [
        (f"version of {name}", version, y.versions[name])
        for name, version in sorted(x.versions.items())
        if name in y.versions and name not in _NO_MATTER
    ]
    return _sentences(
        [
            *_task_and_data(x, y),
            ("languages", _words(sorted(x.languages)), _words(sorted(y.languages))),
            ("control", x.control or "none", y.control or "none"),
            ("limit", _limit(x.limit), _limit(y.limit)),
            ("decoding", _settings(x.decoding), _settings(y.decoding)),
            ("seed", x.seed, y.seed),
            *_signatures(x, y).values(),
            *versions,
        ]
    )


def obstacles_of(a: Side, b: Side, metric: str, language: str) -> list[str]:
    """Return those differences that make a cell's two values numbers of different things.

    Task, data and the metric's signature, without what in it is the model's; a probe's signature
    counts its layers throughout.
    """
    pairs = _task_and_data(a.result, b.result)
    signature = _signatures(a.result, b.result).get((metric, language))
    if signature and a.result.task.kind != "probe":
        what, one, other = signature
        pairs.append((what, settings_of(one), settings_of(other)))
    return _sentences(pairs)


def settings_of(signature: str) -> str:
    """Return a signature without the parts that are the model's."""
    return "|".join(part for part in signature.split("|") if not part.startswith(OF_THE_MODEL))


def signature_of(result: Result, metric: str, language: str) -> str:
    """Return a metric's signature without its interval's; "" where it has no score."""
    return _signatures_of(result).get((metric, language), "")


def _side(folder: Path, run: Path) -> Side:
    path = folder / "result.json"
    if not path.is_file():
        raise UserError(f"{folder}: not scored yet; score it with: mpm-eval score {run}")
    result = load_result(path)
    if result.task.kind == "probe" and not (folder / ITEMS_FILE).is_file():
        return Side(result, None, str(folder))
    items = read_items(folder / ITEMS_FILE)
    if items.predictions_sha256 != result.predictions_sha256:
        raise UserError(
            f"{folder / ITEMS_FILE}: not the items of the result.json beside it "
            f"(their predictions differ); score the run again: mpm-eval score {run}"
        )
    return Side(result, items, str(folder))


def _cell(side: Side, metric: str, language: str, subset: str) -> Cell:
    if side.items is None:
        raise UserError(f"{side.where}: a probe has no items to pair")
    if metric not in side.items.statistics:
        raise unknown("metric", metric, side.items.statistics, side.where)
    return side.items.cell(metric, language, subset)


def _by_id(cell: Cell, side: Side) -> dict[str, Item]:
    found = {item.id: item for item in (*cell.items, *cell.failed)}
    if len(found) < len(cell.items) + len(cell.failed):
        raise UserError(f"{side.where}: a sample is there twice; score the run again")
    return found


def _direction(a: Side, b: Side, metric: str) -> bool:
    """Return whether higher is better, as the scores say, else the metric itself."""
    said = {s.higher_is_better for x in (a, b) for s in x.result.scores if s.metric == metric}
    if len(said) > 1:
        raise UserError(
            f"{b.where}: metric '{metric}' is better when higher on one side and when lower on "
            f"the other, {a.where}; they are not one metric"
        )
    return said.pop() if said else load_metric(metric).higher_is_better


def _task_and_data(a: Result, b: Result) -> list[_Pair]:
    return [
        ("task version", a.task.version, b.task.version),
        ("task file", _digest(a.task.sha256), _digest(b.task.sha256)),
        ("data", _digest(a.data.sha256), _digest(b.data.sha256)),
    ]


def _signatures(a: Result, b: Result) -> dict[tuple[str, str], _Pair]:
    """Return the signatures of every metric and language that both have."""
    found_a, found_b = _signatures_of(a), _signatures_of(b)
    return {
        key: (f"metric {key[0]} ({key[1]})", signature, found_b[key])
        for key, signature in found_a.items()
        if key in found_b
    }


def _signatures_of(result: Result) -> dict[tuple[str, str], str]:
    return {
        (score.metric, score.language): score.signature.partition(_INTERVAL)[0]
        for score in result.scores
        if "|of:" not in score.signature  # derived from another metric of the same result
    }


def _sentences(pairs: Iterable[_Pair]) -> list[str]:
    return [f"different {what}: {one} and {other}" for what, one, other in pairs if one != other]


def _digest(sha256: str) -> str:
    return f"sha256 {sha256[:12]}"


def _limit(limit: int | None) -> str:
    return "none" if limit is None else str(limit)


def _settings(decoding: Mapping[str, Any]) -> str:
    return _words(f"{key}={value}" for key, value in sorted(decoding.items()))


def _words(parts: Iterable[str]) -> str:
    return ", ".join(parts) or "none"
