"""HTML: the board as one file without scripts, light and dark."""

import base64
import hashlib
from importlib.resources import files
from itertools import groupby
from typing import Any

from mpm_eval.stages.leaderboard.board import Board
from mpm_eval.stages.show import plain


def to_html(board: Board) -> str:
    """Return the board as a page that loads nothing and runs nothing."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined
    from markupsafe import Markup

    style = _own("leaderboard.css")
    environment = Environment(
        loader=FunctionLoader(_own),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return environment.get_template("leaderboard.html.j2").render(
        board=board,
        style=Markup(style),
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'",
        grouped=lambda rows: [list(group) for _, group in groupby(rows, lambda row: row.group)],
    )


def _visible(value: Any) -> Any:
    """Return a text without control characters: nothing a file says can turn the page's text."""
    from markupsafe import Markup

    if isinstance(value, str) and not isinstance(value, Markup):
        return plain(value).plain
    return value


def _own(name: str) -> str:
    folder = files("mpm_eval.stages.leaderboard") / "templates"
    return (folder / name).read_text(encoding="utf-8")
