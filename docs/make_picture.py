"""Draw docs/answers.svg: test drawings, and what a run answered in five languages.

    python docs/make_picture.py results/runs/mpm-tiny

Needs the run's predictions of `emoji_choice` (English right, the others as they come): the picture
shows the first concepts, in the order of the samples, that were answered right in English, so
that the other columns show transfer and its failures alike.
"""

import base64
import html
import io
import sys
from pathlib import Path

from mpm_eval.data.emoji import emoji_data
from mpm_eval.stages.run_folder import join, open_task_folder

LANGUAGES = ("en", "zh", "de", "fr", "es")
HEADS = ("English (pivot)", "中文", "Deutsch", "français", "español")
ROWS, ROW, LEFT, COLUMN, TOP = 6, 62, 84, 168, 34


def _href(key: str) -> str:
    stream = io.BytesIO()
    emoji_data().load_image(key).save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def _cell(x: int, y: int, text: str, right: bool) -> str:
    colour, mark = ("#1a7f37", "✓") if right else ("#b35900", "✗")
    shown = text if len(text) <= 18 else text[:17] + "…"
    return (
        f'<text x="{x}" y="{y}" fill="{colour}">{mark} '
        f'<tspan fill="#1f2328">{html.escape(shown)}</tspan></text>'
    )


def draw(run: Path) -> str:
    """Return the SVG text."""
    joined = join(open_task_folder(run / "emoji_choice"))
    by_id = {tag: {j.sample.id: j for j in joined[tag]} for tag in LANGUAGES}
    rows: list[str] = []
    for member in joined["en"]:
        sample = member.sample
        if (
            sample.cell != "seen_concept/unseen_style"
            or member.prediction.output != sample.references[0]
        ):
            continue
        y = TOP + ROW * len(rows)
        cells = [
            f'<image x="14" y="{y + 4}" width="54" height="54" href="{_href(sample.image or "")}"/>'
        ]
        for column, tag in enumerate(LANGUAGES):
            one = by_id[tag][sample.id]
            right = one.prediction.output == one.sample.references[0]
            cells.append(_cell(LEFT + COLUMN * column, y + 36, one.prediction.output, right))
        rows.append("".join(cells))
        if len(rows) == ROWS:
            break
    width, height = LEFT + COLUMN * len(LANGUAGES) + 10, TOP + ROW * len(rows) + 10
    heads = "".join(
        f'<text x="{LEFT + COLUMN * i}" y="24" font-weight="bold" fill="#1f2328">{head}</text>'
        for i, head in enumerate(HEADS)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="system-ui, sans-serif" font-size="14">'
        f'<rect width="100%" height="100%" fill="#ffffff"/>{heads}{"".join(rows)}</svg>\n'
    )


if __name__ == "__main__":
    (Path(__file__).parent / "answers.svg").write_text(draw(Path(sys.argv[1])), encoding="utf-8")
