"""Plots: retention, main scores and layer curves, each with the table of its numbers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mpm_eval.schema import Score
from mpm_eval.stages.report.gather import Gathered, Run, find_score
from mpm_eval.stages.report.svg import (
    LINE,
    MUTED,
    PAPER,
    SERIES,
    drawing,
    inline_svg,
    printable,
)
from mpm_eval.stages.report.tables import language_name, shown
from mpm_eval.stages.result_schema import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_IN = 4.6
_LABELS_IN = 1.05  # room for the names of languages; headings run on into the plot
_ROW_IN, _FRAME_IN = 0.2, 0.72
# how a label is drawn: only a language never seen in pictures is a full point
_FILLED = ("zero-shot", "quasi-zero-shot")
_DASHES = ("-", "--", ":", "-.")


@dataclass(frozen=True, slots=True)
class Plot:
    """A figure for the page and the numbers in it."""

    title: str
    caption: str
    svg: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class _Line:
    """One line of a dot plot: a task's heading, or a language with one score per run."""

    text: str
    scores: tuple[Score | None, ...] = ()
    heading: bool = False


def plots(gathered: Gathered) -> list[Plot]:
    """Return every plot that the results have data for."""
    found = []
    lines = _lines(gathered, lambda result: ("retention", result.task.main_subset))
    if lines:
        caption = (
            "Score in the target language as a percentage of the score in the pivot language on "
            "the same samples, of each task's main metric. 100: nothing is lost."
        )
        found.append(_dots(gathered, "Transfer retention", caption, "retention, %", lines, 100))
    by_metric: dict[str, list[str]] = {}
    for name in gathered.tasks:
        by_metric.setdefault(gathered.result(name).task.main_metric, []).append(name)
    for metric, names in by_metric.items():
        lines = _lines(gathered, lambda r, m=metric: (m, r.task.main_subset), names)
        if lines:
            caption = f"The main metric of {_and(names)}, on each task's main subset."
            found.append(_dots(gathered, f"{metric} by language", caption, metric, lines, None))
    for run in gathered.runs:
        found += _layers(gathered, run)
    numbered = enumerate(found, start=1)
    return [_finished(plot, figure, f"plot{number}") for number, (plot, figure) in numbered]


def _finished(plot: Plot, figure: "Figure", prefix: str) -> Plot:
    return replace(plot, svg=inline_svg(figure, prefix, plot.title, plot.caption))


def _lines(gathered: Gathered, which: Any, tasks: Sequence[str] | None = None) -> list[_Line]:
    """Return the lines of a dot plot; `which` gives the metric and subset of a result."""
    found: list[_Line] = []
    for name in gathered.tasks if tasks is None else tasks:
        sides = {number: side.result for number, _, side in gathered.of_task(name)}
        members = []
        for tag in gathered.languages:
            scores = tuple(
                find_score(sides[i], which(sides[i])[0], tag, which(sides[i])[1])
                if i in sides
                else None
                for i in range(len(gathered.runs))
            )
            if any(score and score.value is not None for score in scores):
                members.append(_Line(language_name(tag)[0], scores))
        if len(members) == 1:
            found.append(_Line(f"{name}, {members[0].text}", members[0].scores, heading=True))
        elif members:
            found += [_Line(name, heading=True), *members]
    return found


def _dots(
    gathered: Gathered,
    title: str,
    caption: str,
    label: str,
    lines: Sequence[_Line],
    reference: float | None,
) -> tuple[Plot, "Figure"]:
    """Return a plot of a point with its 95 % interval per language and run, grouped by task."""
    from matplotlib.figure import Figure

    height = _FRAME_IN + _ROW_IN * len(lines)
    with drawing():
        figure = Figure(figsize=(WIDTH_IN, height))
        axes = figure.subplots()
        top = 0.3 if len(gathered.runs) > 1 else 0.08
        figure.subplots_adjust(
            left=_LABELS_IN / WIDTH_IN, right=0.97, top=1 - top / height, bottom=0.44 / height
        )
        _frame(axes, [line.text for line in lines], [line.heading for line in lines])
        if reference is not None:
            axes.axvline(reference, color=MUTED, linewidth=0.8, dashes=(4, 3), zorder=1)
        for number, run in enumerate(gathered.runs):
            _points(axes, lines, number, len(gathered.runs), run.name)
        axes.set_xlabel(printable(label))
        _from_zero(axes)
        if len(gathered.runs) > 1:
            axes.legend(
                loc="lower right", bbox_to_anchor=(1, 1), ncols=len(gathered.runs), frameon=False,
                borderaxespad=0.2, handletextpad=0.2, columnspacing=1.2, fontsize=8.5,
            )  # fmt: skip
    return Plot(title, caption, "", _HEADER, tuple(_dot_rows(gathered, lines))), figure


_HEADER = ("task", "language", "run", "value", "95 % interval", "label", "n", "failed")


def _dot_rows(gathered: Gathered, lines: Sequence[_Line]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    task = ""
    for line in lines:
        task = line.text if line.heading else task
        for run, score in zip(gathered.runs, line.scores, strict=False):
            if score is not None:
                s = shown(score)
                counts = (str(s.n), str(s.n_failed))
                rows.append((task, line.text, run.name, s.value, s.interval, s.label, *counts))
    return rows


def _frame(axes: "Axes", texts: Sequence[str], headings: Sequence[bool]) -> None:
    axes.set_ylim(len(texts) - 0.4, -0.6)
    axes.set_yticks(range(len(texts)), [printable(text) for text in texts])
    for text, heading in zip(axes.get_yticklabels(), headings, strict=True):
        text.set_horizontalalignment("left")
        if heading:
            text.set_fontweight("bold")
    axes.tick_params(axis="y", length=0, pad=72 * _LABELS_IN)
    axes.tick_params(axis="x", length=0)
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
    axes.grid(axis="x")
    axes.set_axisbelow(True)


def _points(axes: "Axes", lines: Sequence[_Line], number: int, of: int, name: str) -> None:
    colour = SERIES[number % len(SERIES)]
    shift = 0.0 if of == 1 else (number / (of - 1) - 0.5) * 0.4
    axes.plot([], [], "o", color=colour, markersize=5, label=printable(name))
    for place, line in enumerate(lines):
        score = line.scores[number] if line.scores else None
        if score is None or score.value is None:
            continue
        low, high = score.ci95 or (score.value, score.value)
        y = place + shift
        axes.plot([low, high], [y, y], color=colour, linewidth=1.6, solid_capstyle="round")
        face = colour if score.label in _FILLED else PAPER
        axes.plot([score.value], [y], "o", markersize=5, markeredgewidth=1.4,
                  markerfacecolor=face, markeredgecolor=colour)  # fmt: skip


def _from_zero(axes: "Axes") -> None:
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, 0) if low > 0 else low, high)


def _layers(gathered: Gathered, run: Run) -> list[tuple[Plot, "Figure"]]:
    """Return, per probe of a run and metric with layers, its curve over the layers."""
    found = []
    for name, side in run.tasks.items():
        metrics = {s.metric for s in side.result.scores if s.subset.startswith("layer=")}
        floor = "retrieval_floor" if "retrieval_floor" in metrics else ""
        for metric in sorted(metrics - {floor}):
            curves = {tag: _curve(side.result, metric, tag) for tag in gathered.languages}
            curves = {tag: curve for tag, curve in curves.items() if curve}
            if not curves:
                continue
            caption = (
                f"{metric} of hidden states after each layer, with 95 % intervals (task {name}"
                f"{f', {run.name}' if len(gathered.runs) > 1 else ''})."
            )
            if floor:
                caption += " Dashed: the floor, the 95th percentile under random pairings."
            lowest = _curve(side.result, floor, next(iter(curves))) if floor else []
            figure = _layer_figure(metric, curves, lowest)
            title = f"Alignment by layer: {metric}"
            rows = [
                (language_name(tag)[0], str(layer), *_value_and_interval(score))
                for tag, curve in curves.items()
                for layer, score in curve
            ]
            header = ("language", "layer", "value", "95 % interval")
            found.append((Plot(title, caption, "", header, tuple(rows)), figure))
    return found


def _curve(result: Result, metric: str, language: str) -> list[tuple[int, Score]]:
    found = {}
    for score in result.scores:
        field, _, layer = score.subset.partition("=")
        of_curve = (score.metric, score.language, field) == (metric, language, "layer")
        if of_curve and layer.isdecimal() and score.value is not None:
            found[int(layer)] = score
    return sorted(found.items(), key=lambda entry: entry[0])


def _value_and_interval(score: Score) -> tuple[str, str]:
    s = shown(score)
    return s.value, s.interval


def _layer_figure(
    metric: str, curves: dict[str, list[tuple[int, Score]]], floor: list[tuple[int, Score]]
) -> "Figure":
    from matplotlib.figure import Figure

    rows = -(-len(curves) // 4)
    height = 2.6 + 0.2 * rows
    with drawing():
        figure = Figure(figsize=(WIDTH_IN, height))
        axes = figure.subplots()
        figure.subplots_adjust(
            left=0.5 / WIDTH_IN, right=0.97, top=1 - (0.1 + 0.2 * rows) / height,
            bottom=0.44 / height,
        )  # fmt: skip
        for number, (tag, curve) in enumerate(curves.items()):
            colour, dash = SERIES[number % 8], _DASHES[number // 8 % 4]
            layers = [layer for layer, _ in curve]
            values = [score.value or 0.0 for _, score in curve]
            low, high = zip(*(s.ci95 or (s.value, s.value) for _, s in curve), strict=True)
            axes.fill_between(layers, low, high, color=colour, alpha=0.12, linewidth=0)
            name = printable(language_name(tag)[0])
            axes.plot(layers, values, dash, color=colour, marker="o", markersize=3,
                      linewidth=1.5, label=name)  # fmt: skip
        if floor:
            layers, values = [layer for layer, _ in floor], [s.value or 0.0 for _, s in floor]
            axes.plot(layers, values, color=MUTED, linewidth=1, dashes=(4, 3))
        axes.set_xticks([layer for layer, _ in max(curves.values(), key=len)])
        axes.set_xlabel("layer")
        axes.set_ylim(bottom=0)
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        axes.tick_params(length=0, labelcolor=MUTED)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(LINE)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False, fontsize=8.5,
                    borderaxespad=0.1, handlelength=1.4, columnspacing=1.2)  # fmt: skip
    return figure


def _and(names: Sequence[str]) -> str:
    return " and ".join(", ".join(names).rsplit(", ", 1))
