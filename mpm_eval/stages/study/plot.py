"""The plot of a study: a panel per measure and series, a line per language, a dot per seed."""

import contextlib
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mpm_eval.languages import LANGUAGES
from mpm_eval.stages.study.definition import Point, Study
from mpm_eval.stages.study.table import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PANEL_IN = (4.4, 2.7)
_INK, _MUTED, _LINE = "#222222", "#666666", "#cccccc"
# Okabe and Ito's palette, told apart by people with colour blindness; markers where it runs out.
_COLOURS = (
    *("#000000", "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31"),
)
_MARKERS = "os^D"
_SETTINGS: dict[Any, Any] = {
    "font.size": 9,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _MUTED,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "text.color": _INK,
    "text.parse_math": False,  # a "$" in a name is a "$"
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "grid.color": "#e8e8e8",
    "grid.linewidth": 0.6,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "study",  # the same numbers give the same bytes
}


@dataclass(frozen=True, slots=True)
class _Style:
    """How a language is drawn, the same in every panel."""

    colour: str
    marker: str
    shift: float  # in units of one step of x, so that languages do not hide each other


def to_svg(study: Study, rows: Sequence[Row]) -> str:
    """Return the plot as SVG; the same rows give the same text.

    Dots are seeds, lines join the means of a language, bars reach from the lowest to the highest
    seed. Where x is measured, each point has its language's own x.
    """
    from matplotlib.figure import Figure

    languages = [tag for tag in study.languages if any(row.language == tag for row in rows)]
    styles = _styles(languages)
    width, height = _PANEL_IN[0] * len(study.series), _PANEL_IN[1] * len(study.measures) + 0.7
    with _drawing():
        figure = Figure(figsize=(max(width, _PANEL_IN[0] * 1.3), height), layout="constrained")
        panels = figure.subplots(
            len(study.measures), len(study.series), squeeze=False, sharex="col", sharey="row"
        )
        for measure, line in zip(study.measures, panels, strict=True):
            for series, axes in zip(study.series, line, strict=True):
                names = [p.name for p in study.points if not p.series or series in p.series]
                shown = [r for r in rows if r.of(measure) and r.point in names]
                _panel(axes, study, names, shown, styles)
                axes.set_title(f"{measure.title}{f': {series}' if series else ''}")
        for axes in panels[-1]:
            axes.set_xlabel(study.x_label)
        handles = [
            axes.plot([], [], f"{style.marker}-", color=style.colour, markersize=4,
                      label=LANGUAGES[tag][0])[0]
            for tag, style in styles.items()
        ]  # fmt: skip
        columns = min(len(handles), 5 * len(study.series))
        figure.legend(handles=handles, loc="outside upper left", ncols=columns, frameon=False)
        stream = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(stream, format="svg", metadata=nothing)
    # matplotlib ends some lines with a space
    return "\n".join(line.rstrip() for line in stream.getvalue().split("\n"))


@contextlib.contextmanager
def _drawing() -> Iterator[None]:
    import matplotlib

    with warnings.catch_warnings(), matplotlib.rc_context():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def _styles(languages: Sequence[str]) -> dict[str, _Style]:
    middle = (len(languages) - 1) / 2
    return {
        tag: _Style(
            _COLOURS[index % len(_COLOURS)],
            _MARKERS[index // len(_COLOURS) % len(_MARKERS)],
            0.5 * (index - middle) / max(len(languages), 5),
        )
        for index, tag in enumerate(languages)
    }


def _panel(
    axes: "Axes",
    study: Study,
    names: Sequence[str],
    rows: Sequence[Row],
    styles: Mapping[str, _Style],
) -> None:
    spread = study.x_scale != "linear" and study.x_measure is None
    for tag, style in styles.items():
        found = [row for row in rows if row.language == tag and row.mean is not None]
        places = [(_place(study, names, row), row) for row in found]
        drawn = sorted(
            ((x + style.shift * spread, row) for x, row in places if x is not None),
            key=lambda pair: pair[0],
        )
        _line(axes, study, drawn, style)
    if spread:
        axes.set_xticks(range(len(names)), [_label(study.point(name)) for name in names])
    axes.axhline(0, color=_LINE, linewidth=0.8, zorder=1)
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    axes.spines[["top", "right"]].set_visible(False)


def _label(point: Point) -> str:
    return point.label or (point.name if point.x is None else f"{point.x:g}")


def _place(study: Study, names: Sequence[str], row: Row) -> float | None:
    if study.x_measure is not None or study.x_scale == "linear":
        return row.x
    return float(names.index(row.point))


def _line(axes: "Axes", study: Study, drawn: Sequence[tuple[float, Row]], style: _Style) -> None:
    if not drawn:
        return
    xs = [x for x, _ in drawn]
    means = [row.mean or 0.0 for _, row in drawn]
    axes.plot(xs, means, style.marker, color=style.colour, markersize=4, zorder=3)
    joined = [(x, row.mean or 0.0) for x, row in drawn if row.x is not None]
    if joined:
        axes.plot(*zip(*joined, strict=True), "-", color=style.colour, linewidth=1.4, zorder=3)
    for x, row in drawn:
        axes.plot([x, x], [row.min or 0.0, row.max or 0.0], color=style.colour, linewidth=1,
                  alpha=0.5, zorder=2)  # fmt: skip
        axes.plot([x] * len(row.values), row.values, ".", color=style.colour, markersize=3,
                  alpha=0.5, zorder=2)  # fmt: skip
