"""The page: one valid file that loads nothing, with readable colours, the same bytes every time."""

import re
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import pytest

from mpm_eval.errors import UserError
from mpm_eval.stages.report import write_report
from tests.conftest import Command
from tests.stages.report.conftest import HOSTILE

VOID = {"meta", "input", "br", "hr", "img", "link", "wbr"}


class Balance(HTMLParser):
    """Whether every element is closed, and which ids and labels there are."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.elements.append((tag, found))
        self.ids += [found["id"]] if found.get("id") else []  # type: ignore[list-item]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page(run: Path) -> str:
    return write_report([run]).path.read_text(encoding="utf-8")


def parsed(html: str) -> Balance:
    balance = Balance()
    balance.feed(html)
    assert balance.open == []
    return balance


@pytest.mark.parametrize("name", ["scored_run", "hostile_run"])
def test_the_page_is_balanced_and_loads_nothing(name: str, request: pytest.FixtureRequest) -> None:
    html = page(request.getfixturevalue(name))
    balance = parsed(html)
    assert len(balance.ids) == len(set(balance.ids))
    for tag, attributes in balance.elements:
        for attribute in ("src", "href", "action", "srcset", "data", "poster"):
            assert (attributes.get(attribute) or "#").startswith("#"), tag
        assert "style" not in attributes
        assert not [key for key in attributes if key.startswith("on")]
    assert not re.search(r"""(src|href)\s*=\s*["']?\s*(https?:|//)""", html)
    assert not re.search(r"@import|url\(\s*['\"]?(https?:|//)", html)


def test_hostile_texts_are_text_in_the_page_without_javascript(hostile_run: Path) -> None:
    html = page(hostile_run)
    assert HOSTILE[1] not in html
    assert html.count("<script") == 2
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", re.sub(
        r'<script type="application/json".*?</script>', "", html, flags=re.DOTALL
    ))  # fmt: skip


def test_the_policy_allows_the_own_script_and_style_only(scored_run: Path) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', unescape(page(scored_run)))
    assert policy is not None
    parts = dict(part.strip().split(" ", 1) for part in policy[1].split(";"))
    assert parts["default-src"] == parts["base-uri"] == parts["form-action"] == "'none'"
    assert parts["img-src"] == "data:"
    assert re.fullmatch(r"'sha256-[\w+/=]+'", parts["script-src"])
    assert "unsafe" not in policy[1]


def test_the_same_run_gives_the_same_bytes(scored_run: Path, tmp_path: Path) -> None:
    first = write_report([scored_run], tmp_path / "a.html").path.read_bytes()
    assert write_report([scored_run], tmp_path / "b.html").path.read_bytes() == first


def test_scores_plots_and_provenance_need_no_javascript(scored_run: Path) -> None:
    html = page(scored_run)
    assert "<noscript>" in html
    for text in ("87.5", "Transfer retention", "mpm-eval run --task", "1 of 24 samples failed",
                 "no training record", 'scope="row"', "<caption"):  # fmt: skip
        assert text in html


def test_every_control_has_a_label(scored_run: Path) -> None:
    html = page(scored_run)
    for tag, attributes in parsed(html).elements:
        if tag in ("select", "input"):
            label = html[: html.index(f'id="{attributes["id"]}"')].rpartition("<label")[2]
            assert "</label" not in label
        if tag == "svg":
            assert attributes["aria-labelledby"]


def test_a_report_says_why_samples_are_missing(scored_run: Path, tmp_path: Path) -> None:
    (tmp_path / "animals" / "samples.jsonl").unlink()
    html = page(scored_run)
    assert "No samples are shown." in html
    assert "samples not shown: " in html
    assert "87.5" in html


def test_fewer_samples_are_counted(scored_run: Path) -> None:
    written = write_report([scored_run], num_samples=3)
    assert (written.num_samples, written.num_samples_left_out) == (3, 5)
    html = written.path.read_text(encoding="utf-8")
    assert "3 of 8 samples, spread evenly" in html
    with pytest.raises(UserError, match="--samples"):
        write_report([scored_run], num_samples=-1)


def luminance(colour: str) -> float:
    """Return the relative luminance of #rrggbb (WCAG 2.2)."""
    values = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
def test_texts_and_plots_have_enough_contrast(mode: int) -> None:
    style = (files("mpm_eval.stages.report") / "templates" / "report.css").read_text("utf-8")
    blocks = re.findall(r":root \{(.*?)\}", style, flags=re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", blocks[mode]))
    texts = ("ink", "muted", "link", "focus", "right", "wrong", "other", "failed")
    assert len(colours) == 19
    for name in texts:
        for behind in ("paper", "panel"):
            assert contrast(colours[name], colours[behind]) >= 4.5, (name, behind)
    for number in range(1, 9):
        assert contrast(colours[f"c{number}"], colours["paper"]) >= 3


@pytest.mark.slow
def test_the_command_writes_the_file_and_says_what_is_left_out(
    mpm_eval: Command, scored_run: Path, tmp_path: Path
) -> None:
    done = mpm_eval(
        "report", scored_run, "--samples", "2", "--languages", "en,de", "--out", "r.html"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "r.html\n"
    assert "2 of 8 samples shown" in done.stderr
    assert "Chinese" not in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_the_report_starts_without_torch_or_a_plotting_library() -> None:
    code = (
        "import sys, mpm_eval.commands.report, mpm_eval.stages.report\n"
        "print([m for m in ('torch', 'matplotlib', 'jinja2', 'numpy', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
