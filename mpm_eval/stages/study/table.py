"""The table of a study: mean and spread over seeds, as records, Markdown and CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from statistics import mean, stdev

from mpm_eval.stages.leaderboard.markdown import code, escape
from mpm_eval.stages.study.definition import Measure, Point, Study
from mpm_eval.stages.study.folders import Outcome, Value

MIN_SEEDS = 3
_LETTERS = {
    "pivot": "P",
    "zero-shot": "Z",
    "quasi-zero-shot": "Q",
    "supervised": "S",
    "unknown": "?",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One point, measure and language over the seeds."""

    point: str
    x: float | None  # None: a category
    task: str
    metric: str
    subset: str
    language: str
    label: str  # of zero_shot; several where seeds differ
    mean: float | None  # None: no seed has a value
    sd: float | None  # of one more than n - 1 seeds; None below two
    min: float | None
    max: float | None
    seeds: tuple[int, ...]  # that have a value
    values: tuple[float, ...]  # theirs
    num_undefined: int  # seeds where the measure is undefined, e.g. retention of a pivot at chance
    n: int  # samples per seed, the fewest

    def of(self, measure: Measure) -> bool:
        return (self.task, self.metric, self.subset) == (
            measure.task,
            measure.metric,
            measure.subset,
        )


Outcomes = Mapping[str, Sequence[Outcome]]  # by point


def rows_of(study: Study, outcomes: Outcomes) -> list[Row]:
    """Return a row per measure, point and language that at least one seed has."""
    rows = []
    for measure in study.measured:
        for point in study.points:
            for language in study.languages:
                row = _row(study, measure, point, language, outcomes.get(point.name, ()))
                if row is not None:
                    rows.append(row)
    return rows


def _row(
    study: Study, measure: Measure, point: Point, language: str, outcomes: Sequence[Outcome]
) -> Row | None:
    found = [
        (outcome, value)
        for outcome in outcomes
        for value in outcome.values
        if _is_of(value, measure) and value.language == language
    ]
    if not found:
        return None
    defined = [(o.seed, v.value) for o, v in found if v.value is not None]
    values = [value for _, value in defined]
    labels = dict.fromkeys(o.zero_shot[language].label for o, _ in found)
    x = point.x
    if study.x_measure is not None:
        x = _mean_of(study.x_measure, language, outcomes)
    return Row(
        point=point.name,
        x=x,
        task=measure.task,
        metric=measure.metric,
        subset=measure.subset,
        language=language,
        label=" or ".join(labels),
        mean=mean(values) if values else None,
        sd=stdev(values) if len(values) > 1 else None,
        min=min(values, default=None),
        max=max(values, default=None),
        seeds=tuple(seed for seed, _ in defined),
        values=tuple(values),
        num_undefined=len(found) - len(defined),
        n=min(value.n for _, value in found),
    )


def _mean_of(measure: Measure, language: str, outcomes: Sequence[Outcome]) -> float | None:
    values = [
        value.value
        for outcome in outcomes
        for value in outcome.values
        if _is_of(value, measure) and value.language == language and value.value is not None
    ]
    return mean(values) if values else None


def _is_of(value: Value, measure: Measure) -> bool:
    return (value.task, value.metric, value.subset) == (
        measure.task,
        measure.metric,
        measure.subset,
    )


def to_csv(rows: Sequence[Row]) -> str:
    """Return the rows as CSV, one line each; lists are joined by spaces."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, [f.name for f in fields(Row)], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        cells = asdict(row)
        for name in ("seeds", "values"):
            cells[name] = " ".join(map(str, cells[name]))
        writer.writerow(cells)
    return stream.getvalue()


def to_markdown(study: Study, rows: Sequence[Row], outcomes: Outcomes, command: str) -> str:
    """Return the study as a page: the question, a table per measure, how to make it again."""
    lines = [
        f"# Study: {escape(study.name)}",
        "",
        escape(" ".join(study.question.split())),
        "",
        *_conclusion(study),
        "![plot](plot.svg)",
        "",
        _LEGEND,
        "",
    ]
    for measure in study.measured:
        lines += _table(study, measure, [row for row in rows if row.of(measure)])
    lines += ["## How it was made", "", f"- Command: {code(command)}"]
    lines += [f"- Recipe: {code(study.recipe)}; seeds: {', '.join(map(str, study.seeds))}"]
    lines += [f"- At most {study.limit} ids per task, in the validation style."]
    lines += [f"- Of every run: {code(text)}" for text in study.overrides]
    for point in study.points:
        own = ", ".join(map(code, point.overrides)) or "the recipe as it is"
        lines.append(f"- [{escape(point.name)}](cards/{point.name}.md): {own}")
    missing = missing_runs(study, outcomes)
    if missing:
        lines += ["", f"**Incomplete**: not run yet: {', '.join(map(escape, missing))}."]
    if len(study.seeds) < MIN_SEEDS:
        lines += ["", f"**Fewer than {MIN_SEEDS} seeds**: the spread says little."]
    return "\n".join(lines) + "\n"


_LEGEND = (
    "A cell is the mean over seeds ± their standard deviation (n − 1), then how the model came to "
    "the language, from its training record: **P** pivot, **Z** zero-shot, **Q** quasi-zero-shot, "
    "**S** supervised. Lowest and highest seed: table.csv."
)


def _conclusion(study: Study) -> list[str]:
    text = " ".join(study.conclusion.split())
    return [f"**{escape(text)}**" if text else "*The numbers await a reading.*", ""]


def _table(study: Study, measure: Measure, rows: Sequence[Row]) -> list[str]:
    title = f"## {escape(measure.title)}"
    about = f"{code(measure.metric)} of {code(measure.task)}"
    if measure.subset:
        about += f", {code(measure.subset)}"
    if rows:
        about += f"; {min(row.n for row in rows)} samples or more per cell and seed"
    languages = [tag for tag in study.languages if any(row.language == tag for row in rows)]
    named = any(point.x is not None for point in study.points)
    head = ["point", *([escape(study.x_label)] if named else []), *languages]
    lines = [title, "", f"{about}.", "", f"| {' | '.join(head)} |"]
    lines.append(f"|---{'|--:' * (len(head) - 1)}|")
    for point in study.points:
        found = {row.language: row for row in rows if row.point == point.name}
        if found:
            x = "–" if point.x is None else f"{point.x:g}"
            cells = [escape(point.name), *([x] if named else [])]
            cells += [_cell(found.get(tag)) for tag in languages]
            lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _cell(row: Row | None) -> str:
    if row is None or row.mean is None:
        return "–"
    letters = "".join(_LETTERS[label] for label in row.label.split(" or "))
    spread = "" if row.sd is None else f" ± {row.sd:.1f}"
    undefined = f" ({row.num_undefined} undefined)" if row.num_undefined else ""
    return f"{_number(row.mean)}{spread}{undefined} {letters}"


def _number(value: float) -> str:
    text = f"{value:.1f}"
    return text.replace("-", "\N{MINUS SIGN}") if float(text) else "0.0"


def missing_runs(study: Study, outcomes: Outcomes) -> list[str]:
    """Return the names of the runs that have no outcome."""
    done = {(point, outcome.seed) for point, found in outcomes.items() for outcome in found}
    return [
        f"{point.name}-seed{seed}"
        for point in study.points
        for seed in study.seeds
        if (point.name, seed) not in done
    ]
