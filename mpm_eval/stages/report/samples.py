"""Samples: which samples a report shows, and what it says of each answer."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from mpm_eval.data import Dataset
from mpm_eval.errors import UserError
from mpm_eval.items import Items, output_sha256
from mpm_eval.metrics import Metric, load_metric
from mpm_eval.schema import Sample
from mpm_eval.stages.report.gather import Gathered, TaskRun
from mpm_eval.stages.rows import Joined
from mpm_eval.stages.run_folder import Opened, join, open_task_folder

# of the samples shown, at most these shares are picked because they failed or flip
FAILED_SHARE, FLIPPED_SHARE = 0.25, 0.5


@dataclass(frozen=True, slots=True)
class Answer:
    """What one run answered to a sample, and what was made of it."""

    text: str
    verdict: str  # right, wrong, language, graded, failed; unknown: not scored
    values: tuple[float | None, ...]  # one per metric of the task, on the metric's scale
    error: str = ""


@dataclass(frozen=True, slots=True)
class Member:
    """One sample in one language with the answers of the runs."""

    sample: Sample
    question: str  # what the model was asked: the prompt where the sample has no question
    answers: tuple[Answer | None, ...]  # one per run of the report; None: not answered there


@dataclass(frozen=True, slots=True)
class Group:
    """One sample in all its languages."""

    id: str
    members: Mapping[str, Member]  # language -> member

    @property
    def failed(self) -> bool:
        return any(a and a.verdict == "failed" for m in self.members.values() for a in m.answers)

    @property
    def flipped(self) -> bool:
        return any(flips(member.answers) for member in self.members.values())

    @property
    def first(self) -> Sample:
        return next(iter(self.members.values())).sample


@dataclass(frozen=True, slots=True)
class TaskSamples:
    """The samples of one task that the report shows."""

    name: str
    metrics: tuple[str, ...]  # what `Answer.values` are values of
    groups: tuple[Group, ...]
    total: int  # samples the task has in the run; 0 where they cannot be read
    num_failed: int  # of the shown ones, picked because they failed
    num_flipped: int
    notes: tuple[str, ...]  # what is missing and why
    dataset: Dataset | None  # where the pictures are


def flips(answers: Sequence[Answer | None]) -> int:
    """Return 1 where only the second run is right, -1 where only the first is, else 0."""
    if len(answers) < 2 or answers[0] is None or answers[1] is None:
        return 0
    if "unknown" in (answers[0].verdict, answers[1].verdict):
        return 0
    return (answers[1].verdict == "right") - (answers[0].verdict == "right")


def task_samples(gathered: Gathered, task: str) -> TaskSamples:
    """Return all samples of a task; none, and the reason, where they can no longer be read."""
    (first, _, side), *others = gathered.of_task(task)
    metrics = tuple(side.items.statistics) if side.items else ()
    empty = TaskSamples(task, metrics, (), 0, 0, 0, (), None)
    if side.result.task.kind == "probe":
        return replace(empty, notes=("a probe reads hidden states: it has no answers to show",))
    if side.result.task.kind == "paint":
        return replace(empty, notes=("what was painted is shown under Pictures",))
    try:
        sources = {first: _open(side, metrics)}
    except UserError as error:
        return replace(empty, notes=(f"samples not shown: {error}",))
    notes = [side.problem] if side.problem else []
    for number, run, other in others:
        try:
            if other.result.data.sha256 != side.result.data.sha256:
                raise UserError(f"{other.folder}: answers other data than {side.folder}")
            sources[number] = _open(other, metrics)
            notes += [other.problem] if other.problem else []
        except UserError as error:
            notes.append(f"answers of {run.name} not shown: {error}")
    groups: dict[str, dict[str, Member]] = {}
    for key, member in sources[first].joined.items():
        if key[1] not in gathered.languages:
            continue
        answers = tuple(
            sources[i].answer(key) if i in sources else None for i in range(len(gathered.runs))
        )
        question = member.sample.question or member.prediction.prompt
        groups.setdefault(key[0], {})[key[1]] = Member(member.sample, question, answers)
    found = tuple(Group(id_, members) for id_, members in groups.items())
    dataset = sources[first].opened.dataset
    return TaskSamples(task, metrics, found, len(found), 0, 0, tuple(notes), dataset)


def pick(samples: TaskSamples, number: int) -> TaskSamples:
    """Return at most `number` of the samples, in their order.

    Failed ones come first, then those that flip between the first two runs, each up to its share;
    the rest is spread evenly over the task.
    """
    groups = samples.groups
    if len(groups) <= number:
        failed, flipped = (sum(getattr(g, what) for g in groups) for what in ("failed", "flipped"))
        return _picked(samples, range(len(groups)), failed, flipped)
    failed = [i for i, group in enumerate(groups) if group.failed]
    failed = spread(failed, math.floor(number * FAILED_SHARE))
    flipped = [i for i, group in enumerate(groups) if group.flipped and i not in set(failed)]
    flipped = spread(flipped, math.floor(number * FLIPPED_SHARE))
    chosen = {*failed, *flipped}
    others = [i for i in range(len(groups)) if i not in chosen]
    chosen.update(spread(others, number - len(chosen)))
    return _picked(samples, sorted(chosen), len(failed), len(flipped))


def spread(values: Sequence[int], number: int) -> list[int]:
    """Return at most `number` of the values, evenly spaced."""
    if len(values) <= number:
        return list(values)
    return [values[i * len(values) // number] for i in range(number)]


def shares(sizes: Sequence[int], total: int) -> list[int]:
    """Return how many of `total` samples each task gets: equal shares, none above its size."""
    given = [0] * len(sizes)
    left = total
    for place, i in enumerate(sorted(range(len(sizes)), key=sizes.__getitem__)):
        given[i] = min(sizes[i], left // (len(sizes) - place))
        left -= given[i]
    return given


def verdict(value: float | None, metric: Metric, in_language: float | None) -> str:
    """Return what a value of the main metric says of one answer.

    right: at the best end of its range; wrong: at the worst end, or at or below 0 where the range
    has no end; language: not right, and not in the language asked for (fidelity 0); graded: in
    between, or the metric does not apply.
    """
    if value is not None and _is_best(value, metric):
        return "right"
    if in_language == 0:
        return "language"
    if value is None:
        return "graded"
    low, high = metric.range
    if not metric.higher_is_better:
        return "wrong" if value >= high else "graded"
    return "wrong" if value <= max(low, 0) and math.isfinite(high) else "graded"


def _is_best(value: float, metric: Metric) -> bool:
    low, high = metric.range
    return value >= high if metric.higher_is_better else value <= low


@dataclass(frozen=True, slots=True)
class _Source:
    """The samples and predictions of one task in one run, with what was made of them."""

    opened: Opened
    joined: Mapping[tuple[str, str], Joined]
    judge: Callable[[Joined], Answer]

    def answer(self, key: tuple[str, str]) -> Answer | None:
        return self.judge(self.joined[key]) if key in self.joined else None


def _open(side: TaskRun, metrics: Sequence[str]) -> _Source:
    """Return the samples of a task folder; UserError where they are not the scored ones."""
    opened = open_task_folder(side.folder)
    joined = {j.sample.key: j for members in join(opened).values() for j in members}
    if side.items is None:
        return _Source(opened, joined, _unscored)
    scored = {item.key: item.output_sha256 for item in side.items.items}
    answered = {
        key: output_sha256(j.prediction.content, j.prediction.option_scores)
        for key, j in joined.items()
    }
    if scored != answered:
        raise UserError(
            f"{side.folder}: the predictions have changed since they were scored; "
            f"score the run again: mpm-eval score {side.folder.parent}"
        )
    return _Source(opened, joined, _scored(side.items, side.result.task.main_metric, metrics))


def _unscored(joined: Joined) -> Answer:
    said = "failed" if joined.failed else "unknown"
    return Answer(_text(joined), said, (), joined.prediction.error)


def _scored(items: Items, main: str, metrics: Sequence[str]) -> Callable[[Joined], Answer]:
    """Return a function from a joined sample to its answer with verdict and values."""
    loaded = {name: load_metric(name) for name in {*items.statistics, main}}
    place = {item.key: i for i, item in enumerate(items.items)}
    values = {name: _values(rows, loaded[name]) for name, rows in items.statistics.items()}
    main_rows = items.statistics.get(main)

    def judge(joined: Joined) -> Answer:
        i = place[joined.sample.key]
        found = {name: column[i] for name, column in values.items()}
        main_row = main_rows[i] if main_rows is not None else None
        if joined.failed:
            said = "failed"
        elif main_row is not None and not len(main_row):
            said = "unknown"  # answered, and judging the answer failed
        else:
            said = verdict(found.get(main), loaded[main], found.get("fidelity"))
        shown = tuple(found.get(name) for name in metrics)
        return Answer(_text(joined), said, shown, joined.prediction.error)

    return judge


def _values(rows: Sequence[Sequence[float] | None], metric: Metric) -> list[float | None]:
    """Return the metric of each item alone; None where it does not apply or is undefined."""
    import numpy as np

    known = [i for i, row in enumerate(rows) if row is not None and len(row)]
    found: list[float | None] = [None] * len(rows)
    if known:
        statistics_NS = np.array([rows[i] for i in known], dtype=np.float64)
        for i, value in zip(known, metric.aggregate(statistics_NS), strict=True):
            found[i] = float(value) if np.isfinite(value) else None
    return found


def _text(joined: Joined) -> str:
    if not joined.prediction.option_scores:
        return joined.prediction.output
    from mpm_eval.metrics.choice import choose

    return joined.sample.options[choose(joined.item)]


def _picked(samples: TaskSamples, chosen: Sequence[int], failed: int, flipped: int) -> TaskSamples:
    groups = tuple(samples.groups[i] for i in chosen)
    return replace(samples, groups=groups, num_failed=failed, num_flipped=flipped)
