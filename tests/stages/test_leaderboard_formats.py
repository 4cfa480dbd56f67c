"""The formats of a leaderboard: the same rows for programs, LaTeX that is whole, a harmless page."""

import csv
import html.parser
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mpm_eval.errors import UserError
from mpm_eval.stages.leaderboard import FORMATS, Selection, write_leaderboard
from mpm_eval.stages.leaderboard.latex import escape as latex
from mpm_eval.stages.leaderboard.markdown import code
from tests.stages.leaderboard_runs import add, add_items, score

ONE = 60 * [1] + 60 * [0]
HOSTILE = 'evil_\\|"<script>alert(1)</script>&\u202e$x^2$ 100% #1 ~{y}'


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three models, two of them alike, beside one whose name is an attack."""
    monkeypatch.chdir(tmp_path)
    runs = tmp_path / "results" / "runs"
    for name in ("a", "b"):
        add_items(runs, name, {"en": ONE, "zh": ONE, "de": ONE[::-1]}, options=4)
    hits = {"en": ONE, "zh": 120 * [0], "de": 120 * [0]}
    add_items(runs, "c", hits, options=4, more=[score("zh", 5.0, metric="chrf")])
    add(runs, "evil", score("en", metric="exact_match"), model=HOSTILE, task="beasts",
        description=HOSTILE)  # fmt: skip
    return runs


def written(runs: Path, *formats: str, **options: Any) -> dict[str, Path]:
    paths = write_leaderboard(runs, runs.parent, Selection(), formats or ("all",), **options)
    return {path.suffix: path for path in paths}


class Page(html.parser.HTMLParser):
    """Collects tags, links and the text of a page, and checks that tags close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_all_writes_every_format_and_the_default_three(runs: Path) -> None:
    assert list(written(runs)) == [".md", ".csv", ".json", ".parquet", ".tex", ".html"]
    paths = write_leaderboard(runs, runs.parent)
    assert [path.suffix for path in paths] == [".md", ".csv", ".json"]


def test_formats_come_in_one_order_and_are_in_the_command(runs: Path) -> None:
    paths = written(runs, "html", "md")
    assert list(paths) == [".md", ".html"]
    assert "--format html --format md`" in paths[".md"].read_text(encoding="utf-8")


def test_an_unknown_format_is_named_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--format: unknown format 'latx'; did you mean 'latex'\?"):
        write_leaderboard(tmp_path, tmp_path, formats=["latx"])


def test_every_format_has_the_same_bytes_again(runs: Path) -> None:
    first = {suffix: path.read_bytes() for suffix, path in written(runs).items()}
    assert len(first) == len(FORMATS)
    assert {suffix: path.read_bytes() for suffix, path in written(runs).items()} == first


def test_csv_json_and_parquet_hold_the_same_rows(runs: Path) -> None:
    paths = written(runs)
    rows = json.loads(paths[".json"].read_text())["rows"]
    table = pd.read_parquet(paths[".parquet"])
    assert list(table.columns) == list(next(csv.reader(paths[".csv"].open(encoding="utf-8"))))
    again = table.astype(object).where(table.notna(), None).to_dict("records")
    assert again == rows
    assert str(table["value"].dtype) == "float64" and str(table["main_metric"].dtype) == "bool"


def test_ranks_means_and_worst_languages_are_rows_too(runs: Path) -> None:
    table = pd.read_parquet(written(runs)[".parquet"])
    mine = table[(table.model == "c") & (table.task == "animals")]
    by = {(row.summary, row.language): row for row in mine.itertuples() if row.main_metric}
    assert set(by) == {("", "en"), ("", "zh"), ("", "de"), ("mean", ""), ("worst", "zh")}
    assert (by["mean", ""].rank_low, by["mean", ""].rank_high) == (3, 3)
    assert (by["", "en"].rank_low, by["", "en"].rank_high) == (1, 3)
    assert by["mean", ""].value == 0 and pd.isna(by["mean", ""].n)
    assert table[(table.task == "beasts") | ~table.main_metric].rank_low.isna().all()


def test_latex_has_whole_tables_of_as_many_cells_as_columns(runs: Path) -> None:
    text = written(runs)[".tex"].read_text(encoding="utf-8")
    depth: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if kind == "begin":
            depth.append(name)
        else:
            assert depth.pop() == name
    assert depth == []
    tables = re.findall(r"\\begin\{tabular\}\{(l(?:r+))\}\n(.*?)\\end\{tabular\}", text, re.DOTALL)
    assert len(tables) == text.count(r"\begin{table}") >= 3
    for columns, body in tables:
        lines = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert lines and body.startswith(r"\toprule") and body.endswith("\\bottomrule\n")
        for line in lines:
            assert len(re.findall(r"(?<!\\)&", line)) == len(columns) - 1
    assert len(set(re.findall(r"\\label\{(.*?)\}", text))) == len(tables)
    plain = re.sub(r"\\[\\{}$&#_%]", "", text)
    assert plain.count("{") == plain.count("}") and plain.count("$") % 2 == 0
    for line in plain.splitlines():
        assert "%" not in line or line.startswith("%")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a_b & c%", r"a\_b \& c\%"),
        ("$x^2$", r"\$x\textasciicircum{}2\$"),
        ("\\input{x}", r"\textbackslash{}input\{x\}"),
        ("--check", r"-{}-check"),
        ("1–3", "1--3"),
        ("<a|b>", r"\textless{}a\textbar{}b\textgreater{}"),
        ("two\nlines", "two lines"),
        ("95 % ±2", r"95 \% $\pm$2"),
    ],
)
def test_latex_prints_a_text_as_it_is(text: str, expected: str) -> None:
    assert latex(text) == expected


def test_the_page_runs_and_loads_nothing(runs: Path) -> None:
    text = written(runs)[".html"].read_text(encoding="utf-8")
    page = Page(text)
    names = {name for name, _ in page.tags}
    assert not names & {"script", "img", "iframe", "object", "link", "form", "base"}
    assert not [key for _, found in page.tags for key in found if key.startswith("on")]
    assert all("style" not in found for _, found in page.tags)
    targets = [found["href"] for name, found in page.tags if name == "a"]
    assert all(str(target).startswith(("#", "https://")) for target in targets)
    (policy,) = [found["content"] for name, found in page.tags if found.get("http-equiv")]
    assert policy is not None and policy.startswith("default-src 'none'; style-src 'sha256-")


def test_a_hostile_name_is_only_text_on_the_page(runs: Path) -> None:
    page = Page(written(runs)[".html"].read_text(encoding="utf-8"))
    assert "<script>alert(1)</script>" in page.text
    assert "\u202e" not in page.text and "\N{REPLACEMENT CHARACTER}$x^2$" in page.text


def test_the_links_of_the_page_lead_to_its_tasks(runs: Path) -> None:
    page = Page(written(runs)[".html"].read_text(encoding="utf-8"))
    ids = [found["id"] for name, found in page.tags if name == "section" and "id" in found]
    targets = [str(found["href"])[1:] for name, found in page.tags if name == "a"]
    assert targets[: len(ids)] == ids == ["s1", "s2"]


@pytest.mark.parametrize(
    ("text", "expected"), [("a|b", "`a|b`"), ("a`b", "`` a`b ``"), ("two\nlines", "`two lines`")]
)
def test_code_in_markdown_cannot_end_early(text: str, expected: str) -> None:
    assert code(text) == expected
