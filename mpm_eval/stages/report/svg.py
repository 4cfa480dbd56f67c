"""SVG: a matplotlib figure as inline SVG that takes its colours and fonts from the page."""

import contextlib
import io
import re
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from mpm_eval.stages.show import plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Stand-ins that a figure is drawn with; the page's style sheet gives each class its colour, in
# light and in dark mode.
INK, MUTED, LINE, PAPER = "#010000", "#020000", "#030000", "#040000"
SERIES = tuple(f"#0a000{number}" for number in range(1, 9))
_CLASSES = {INK: "ink", MUTED: "muted", LINE: "line", PAPER: "paper"} | {
    colour: f"c{number}" for number, colour in enumerate(SERIES, start=1)
}
_SVG = "http://www.w3.org/2000/svg"
_HREF = "{http://www.w3.org/1999/xlink}href"
# attributes of a figure that the style sheet of the page cannot know
_KEPT = (
    *("fill", "stroke", "opacity", "fill-opacity", "stroke-opacity", "stroke-width"),
    *("stroke-dasharray", "stroke-dashoffset", "stroke-linecap", "stroke-linejoin"),
    *("font-size", "font-weight", "text-anchor"),
)
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: searchable, and in the fonts of the page
    "text.parse_math": False,  # a "$" in a name is a "$"
    "font.size": 9,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "text.color": INK,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": INK,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
}


@contextlib.contextmanager
def drawing(**settings: str) -> Iterator[None]:
    """Let matplotlib draw as the page needs it, whatever the user's own settings are."""
    import matplotlib

    with warnings.catch_warnings(), matplotlib.rc_context():
        # a glyph that matplotlib's font lacks is drawn by the fonts of the reader
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS | settings)
        yield


def inline_svg(figure: "Figure", prefix: str, title: str, description: str) -> str:
    """Return `figure` as an <svg> element for a page: no style, no script, no date.

    The same figure gives the same text. `prefix` keeps its ids apart from those of other figures.
    """
    stream = io.BytesIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with drawing(**{"svg.hashsalt": prefix}):
        figure.savefig(stream, format="svg", metadata=nothing, transparent=True)
    root = ElementTree.fromstring(stream.getvalue())
    for parent in root.iter():
        for child in [c for c in parent if c.tag == f"{{{_SVG}}}style"]:
            parent.remove(child)
    used = {value[1:] for e in root.iter() if (value := e.get(_HREF))}
    used |= set(re.findall(r"url\(#([^)]+)\)", stream.getvalue().decode()))
    for element in root.iter():
        _clean(element, prefix, used)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("role", "img")
    root.set("aria-labelledby", f"{prefix}-title {prefix}-description")
    for name, text in (("description", description), ("title", title)):
        element = ElementTree.Element(f"{{{_SVG}}}{'title' if name == 'title' else 'desc'}")
        element.set("id", f"{prefix}-{name}")
        element.text = printable(text)
        root.insert(0, element)
    for element in root.iter():
        element.tag = element.tag.partition("}")[2]
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=False)


def printable(text: str) -> str:
    """Return `text` on one line without controls and without the characters that XML lacks."""
    return "".join("\ufffd" if c in "\ufffe\uffff" else c for c in plain(text).plain)


def _clean(element: ElementTree.Element, prefix: str, used: set[str]) -> None:
    """Turn style into attributes and classes, shorten, and keep only ids that are referred to."""
    style = dict(
        part.split(": ", 1) for part in element.attrib.pop("style", "").split("; ") if ": " in part
    )
    classes = []
    for name, value in style.items():
        if value in _CLASSES:
            classes.append(f"{name}-{_CLASSES[value]}")
        elif name in _KEPT:
            element.set(name, value)
    if element.tag == f"{{{_SVG}}}text" and not classes:
        classes.append("fill-ink")
    if classes:
        element.set("class", " ".join(classes))
    attributes = element.attrib
    if "d" in attributes:
        attributes["d"] = " ".join(attributes["d"].split())
    if (id_ := attributes.pop("id", "")) in used:
        attributes["id"] = f"{prefix}-{id_}"
    if target := attributes.pop(_HREF, ""):
        attributes["href"] = f"#{prefix}-{target[1:]}"
    if "clip-path" in attributes:
        attributes["clip-path"] = attributes["clip-path"].replace("url(#", f"url(#{prefix}-")
