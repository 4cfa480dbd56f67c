"""Board: every table of a leaderboard as text in cells, ready for any way of writing it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from mpm_eval.metrics import METRICS, PROBE_METRICS, is_of_a_set, load_metric, paint_metric
from mpm_eval.schema import Score
from mpm_eval.stages.leaderboard.collect import CEILING, FLOOR, MODEL, TOLD, Entry
from mpm_eval.stages.leaderboard.notes import Note, main_notes, notes_of
from mpm_eval.stages.leaderboard.published import DOUBT, Published, beside
from mpm_eval.stages.leaderboard.standings import MEAN, WORST, Standings, columns

MARKS = {
    "pivot": "P",
    "zero-shot": "Z",
    "quasi-zero-shot": "Q",
    "supervised": "S",
    "unknown": "?",
}
NONE = "–"
_COPIED = "Copied from the source below: not measured here, not ranked."
_DIGITS = {"cider": 2}  # a range up to 10 needs a second digit; most are out of 100
_IMPORTED = "mean:"  # on another program's scale, often 0 to 1
_TRANSFER = {
    "transfer_gap": (
        "Transfer gap",
        "The value in the pivot language minus the value in the language, on the same samples.",
    ),
    "retention": (
        "Retention",
        "The value in the language, in percent of that in the pivot, on the same samples.",
    ),
}


@dataclass(frozen=True, slots=True)
class Cell:
    """A value, half the width of its interval, and what is said of it."""

    value: str = NONE
    half: str = ""
    mark: str = ""  # how the model came to the language, or which language is the worst

    def __str__(self) -> str:
        half = f"±{self.half}" if self.half else ""
        return " ".join(part for part in (self.value, half, self.mark) if part)


@dataclass(frozen=True, slots=True)
class Row:
    """A model, a floor or a ceiling."""

    name: str
    cells: tuple[Cell, ...]
    role: str = MODEL
    group: int = 0  # rows of one number are tied, or of one kind


@dataclass(frozen=True, slots=True)
class Table:
    """A table with its heading; the first column names the rows."""

    title: str  # "" for the first one of a task
    text: str
    head: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[Note, ...] = ()
    published: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """A task, or the published results that belong to none."""

    title: str
    text: str
    tables: tuple[Table, ...]


@dataclass(frozen=True, slots=True)
class Board:
    """A leaderboard."""

    command: str  # that makes it again
    sections: tuple[Section, ...]
    left_out: tuple[str, ...]


def make_board(
    entries: Sequence[Entry],
    found: Mapping[str, Standings],
    left_out: Sequence[str],
    command: str,
    published: Sequence[Published],
    show_published: bool,
) -> Board:
    """Return the board of entries sorted by task, with the standings of each task by its name.

    Published tables stand below the task they belong to; with `show_published` also those whose
    tasks are not all on the board.
    """
    sections = []
    for name, members in groupby(entries, key=lambda entry: entry.result.task.name):
        group = list(members)
        task = group[0].result.task
        tables = _probe(group, found[name]) if task.kind == "probe" else _task(group, found[name])
        tables += [_published(table, tags) for table, tags in beside(name, published)]
        sections.append(Section(name, task.description, tuple(tables)))
    if show_published:
        shown = set(found)
        rest = [p for p in published if not p.tasks or not set(p.tasks.values()) <= shown]
        for table in rest:
            block = replace(_published(table, table.languages), title="", text="")
            sections.append(Section(f"Published, not comparable: {table.title}", _COPIED, (block,)))
    return Board(command, tuple(sections), tuple(left_out))


def _task(group: Sequence[Entry], found: Standings) -> list[Table]:
    task = group[0].result.task
    tables = [_main(group, found)]
    if found.ranks and len(found.ranks) > 1:
        tables.append(_ranks(group, found))
    models = [entry for entry in group if entry.role in (MODEL, TOLD)]
    for metric, (title, text) in _TRANSFER.items():
        tags = columns(models, metric, task.main_subset)
        tags = tuple(tag for tag in tags if tag in found.targets)
        if tags:
            tables.append(_plain(models, metric, task.main_subset, tags, title, text))
    return tables + (_painted(group) if task.kind == "paint" else [])


def _painted(group: Sequence[Entry]) -> list[Table]:
    """Return a table of each other metric of painted pictures; distances are of all of them."""
    task = group[0].result.task
    tables = []
    for metric in dict.fromkeys(s.metric for entry in group for s in entry.result.scores):
        known = paint_metric(metric)
        if known is None or metric == task.main_metric:
            continue
        subset = "" if known.of_a_set else task.main_subset
        if tags := columns(group, metric, subset):
            better = "higher" if known.higher_is_better else "lower"
            text = f"{known.what}; {better} is better."
            if is_of_a_set(metric):
                text += " Of whole sets: listed without a paired test."
            tables.append(_plain(group, metric, subset, tags, metric, text))
    return tables


def _probe(group: Sequence[Entry], found: Standings) -> list[Table]:
    task = group[0].result.task
    metrics = list(dict.fromkeys(s.metric for entry in group for s in entry.result.scores))
    tables = [replace(_main(group, found), title=task.main_metric)] if found.languages else []
    for metric in metrics:
        is_floor = metric.endswith("_floor") and metric.removesuffix("_floor") in metrics
        tags = columns(group, metric, "")
        if metric != task.main_metric and not is_floor and tags:
            tables.append(_plain(group, metric, "", tags, metric, ""))
    return tables


def _main(group: Sequence[Entry], found: Standings) -> Table:
    task = group[0].result.task
    metric, subset = task.main_metric, task.main_subset
    digits = _digits(metric)
    by = found.ranks.get(found.ranked_by, {})
    several = len(found.targets) > 1
    rows = []
    for entry in group:
        cells = []
        rank = by.get(entry.folder)
        if by:
            cells.append(Cell(_rank(rank)) if entry.role in (MODEL, TOLD) else Cell(""))
        if several:
            cells += _summary(entry, found, digits)
        cells += [_cell(entry.score(metric, tag, subset), digits) for tag in found.languages]
        number = rank[0] if rank else len(group) + 1
        rows.append(Row(entry.name, tuple(cells), entry.role, number))
    models = [row for row in rows if row.role in (MODEL, TOLD)]
    rows = [
        *sorted(models, key=lambda row: row.group),  # stable: by name where tied
        *_floors(rows, group, found, digits),
    ]
    heads = (*(("rank",) if by else ()), *((MEAN, WORST) if several else ()), *found.languages)
    shown = [
        (entry.name, score)
        for entry in group
        for tag in found.languages
        if (score := entry.score(metric, tag, subset)) is not None
    ]
    notes = (*main_notes(group, found, digits), *notes_of(shown))
    return Table("", "", "model", heads, tuple(rows), notes)


def _floors(
    rows: Sequence[Row], group: Sequence[Entry], found: Standings, digits: int
) -> list[Row]:
    """Return the rows that are never ranked: what guessing, controls and perfection reach."""
    last = len(group) + 2
    lows = [replace(row, group=last) for row in rows if row.role == FLOOR]
    highs = [replace(row, group=last) for row in rows if row.role == CEILING]
    task = group[0].result.task
    by = bool(found.ranks.get(found.ranked_by))
    if found.chance:
        values = [found.chance[tag] for tag in found.languages]
        lows.insert(0, Row("chance", _reference(values, found, digits, by), FLOOR, last))
    lows += _random_pairs(group, found, digits, last) if task.kind == "probe" else []
    if (best := _best(task.main_metric)) is not None:
        values = [best] * len(found.languages)
        highs.append(Row("perfect", _reference(values, found, digits, by), CEILING, last))
    return lows + highs


def _reference(
    values: Sequence[float], found: Standings, digits: int, ranked: bool
) -> tuple[Cell, ...]:
    cells = [Cell(_number(value, digits)) for value in values]
    if len(found.targets) > 1:
        own = [v for v, tag in zip(values, found.languages, strict=True) if tag in found.targets]
        summary = (sum(own) / len(own), min(own))
        cells = [*(Cell(_number(value, digits)) for value in summary), *cells]
    return (Cell(""), *cells) if ranked else tuple(cells)


def _random_pairs(group: Sequence[Entry], found: Standings, digits: int, number: int) -> list[Row]:
    metric = f"{group[0].result.task.main_metric}_floor"
    by = bool(found.ranks.get(found.ranked_by))
    empty = (Cell(""),) * (by + 2 * (len(found.targets) > 1))
    rows = []
    for entry in group:
        scores = [entry.score(metric, tag, "") for tag in found.languages]
        if any(scores):
            cells = (*empty, *(replace(_cell(score, digits), mark="") for score in scores))
            rows.append(Row(f"{entry.name}, random pairs", cells, FLOOR, number))
    return rows


def _best(metric: str) -> float | None:
    """Return the best value that a metric can have; None where there is none."""
    if metric in PROBE_METRICS:
        ends, higher = PROBE_METRICS[metric].range, PROBE_METRICS[metric].higher_is_better
    elif metric in METRICS or paint_metric(metric) is not None:
        known = load_metric(metric)
        ends, higher = known.range, known.higher_is_better
    else:
        return None
    best = ends[1] if higher else ends[0]
    return best if abs(best) != float("inf") else None


def _summary(entry: Entry, found: Standings, digits: int) -> list[Cell]:
    task, standing = entry.result.task, found.rows[entry.folder]
    if standing.mean is None or standing.worst is None:
        return [Cell(), Cell()]
    mean = Cell(_number(standing.mean, digits), _half(standing.mean_ci95, digits))
    score = entry.score(task.main_metric, standing.worst, task.main_subset)
    return [mean, replace(_cell(score, digits), mark=standing.worst)]


def _ranks(group: Sequence[Entry], found: Standings) -> Table:
    by = found.ranks.get(found.ranked_by, {})
    last = (len(group) + 1, 0)
    ranked = [entry for entry in group if any(entry.folder in own for own in found.ranks.values())]
    ranked.sort(key=lambda entry: by.get(entry.folder, last)[0])  # stable: as in the table above
    rows = tuple(
        Row(entry.name, tuple(Cell(_rank(own.get(entry.folder))) for own in found.ranks.values()))
        for entry in ranked
    )
    text = "Of the same models in each column of the table above."
    return Table("Ranks", text, "model", tuple(found.ranks), rows)


def _plain(
    group: Sequence[Entry],
    metric: str,
    subset: str,
    tags: Sequence[str],
    title: str,
    text: str,
) -> Table:
    """Return a table of another metric, without means and ranks."""
    main = group[0].result.task.main_metric
    digits = _digits(main if metric == "transfer_gap" else metric)
    rows, shown = [], []
    for suffix, name in (("", metric), (", random pairs", f"{metric}_floor")):
        for entry in group:
            scores = [entry.score(name, tag, subset) for tag in tags]
            if not any(scores):
                continue
            if not suffix:
                shown += [(entry.name, score) for score in scores if score]
            cells = tuple(_cell(score, digits) for score in scores)
            if suffix:
                cells = tuple(replace(cell, mark="") for cell in cells)
            role = FLOOR if suffix else entry.role
            rows.append(Row(entry.name + suffix, cells, role, int(role != MODEL)))
    return Table(title, text, "model", tuple(tags), tuple(rows), tuple(notes_of(shown)))


def _published(published: Published, tags: Sequence[str]) -> Table:
    heads = [(tag, column) for tag in tags for column in published.columns]
    rows = []
    for system in published.systems:
        if not any(tag in system.values for tag in tags):
            continue
        cells = []
        for tag, column in heads:
            value = system.values.get(tag, {}).get(column)
            doubt = DOUBT if f"{tag}.{column}" in system.doubtful else ""
            cells.append(Cell() if value is None else Cell(_number(value, 1), mark=doubt))
        name = f"{system.name} ({system.detail})" if system.detail else system.name
        rows.append(Row(name, tuple(cells)))
    better = "higher" if published.higher_is_better else "lower"
    return Table(
        title="Published, not comparable",
        text=f"{published.title}. {_COPIED}",
        head="system",
        columns=tuple(f"{tag} {column}" for tag, column in heads),
        rows=tuple(rows),
        notes=(
            Note(f"Source: {published.citation}.", url=published.url),
            Note(f"Protocol: {published.protocol}; {better} is better."),
            *(Note(text) for text in published.notes),
        ),
        published=True,
    )


def _cell(score: Score | None, digits: int) -> Cell:
    if score is None or score.value is None:
        return Cell()
    mark = MARKS.get(score.label, "?")
    return Cell(_number(score.value, digits), _half(score.ci95, digits), mark)


def _half(ci95: tuple[float, float] | None, digits: int) -> str:
    return "" if ci95 is None else f"{(ci95[1] - ci95[0]) / 2:.{digits}f}"


def _number(value: float, digits: int) -> str:
    return f"{round(value, digits) + 0.0:.{digits}f}"  # + 0.0: never -0.0


def _rank(rank: tuple[int, int] | None) -> str:
    if rank is None:
        return NONE
    return str(rank[0]) if rank[0] == rank[1] else f"{rank[0]}–{rank[1]}"


def _digits(metric: str) -> int:
    return 3 if metric.startswith(_IMPORTED) else _DIGITS.get(metric, 1)
