"""The report in headless Chromium: hostile texts are shown and never run, filters and keys work."""

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from mpm_eval.stages.report import write_report
from mpm_eval.stages.score import score_run
from tests.stages.conftest import MakeRun, MakeTask
from tests.stages.report.conftest import HOSTILE, Chromium

pytestmark = pytest.mark.slow

# opens the report in a frame and uses it as a reader does; writes what it sees into its own body
DRIVER = """<!doctype html><meta charset="utf-8"><iframe id="f" src="report.html{hash}"
 width="900" height="700"></iframe><script>
document.getElementById("f").onload = async () => {{
  const page = document.getElementById("f").contentDocument, seen = {{}};
  const get = (id) => page.getElementById(id);
  const wait = (ms) => new Promise((done) => setTimeout(done, ms));
  const choose = (id, value) => {{ get(id).value = value; get(id).dispatchEvent(new Event("change")); }};
  const key = (name) => page.body.dispatchEvent(new KeyboardEvent("keydown", {{key: name, bubbles: true}}));
  const write = async (text) => {{
    get("search").value = text; get("search").dispatchEvent(new Event("input")); await wait(300);
  }};
  const current = () => page.querySelector(".sample.current h3")?.textContent;
  const count = () => get("count").textContent;
  {body}
  document.body.replaceChildren(JSON.stringify(seen));
}};
</script>"""


class Page(HTMLParser):
    """What Chromium made of the report: the elements and the text of each part."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.title = self.text = ""
        self._in: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        self._in.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._in and self._in.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "title" in self._in and "svg" not in self._in:
            self.title += data
        elif not {"script", "style"} & set(self._in):
            self.text += data


def driven(chromium: Chromium, report: Path, body: str, place: str = "") -> dict[str, object]:
    """Return what the driver saw in the report, opened at `place`."""
    driver = report.with_name("driver.html")
    driver.write_text(DRIVER.format(body=body, hash=place), encoding="utf-8")
    dom = chromium(driver.as_uri(), "--allow-file-access-from-files", "--dump-dom")
    text = Page(dom).text
    found: dict[str, object] = json.loads(text[text.index("{") : text.rindex("}") + 1])
    return found


def test_hostile_texts_are_shown_and_never_run(chromium: Chromium, hostile_run: Path) -> None:
    report = write_report([hostile_run]).path
    assert report.stat().st_size < 5_000_000
    page = Page(chromium(report.as_uri(), "--dump-dom"))
    assert page.title == f"{HOSTILE[1]}: mpm-eval report"
    for text in HOSTILE[:5]:
        assert text in page.text
    for shown in (
        "RLOetirw ot thgirPDF and RLIisolated",
        "null NUL escape ESC[31m delete DEL feed",
    ):
        assert shown in page.text
    assert "show 20,000 of 1,000,000 characters" in page.text
    assert not any(character in page.text for character in "\x00\x1b\x7f\u202e\u202c\u2067")
    scripts = [attributes for tag, attributes in page.elements if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "data"}, {}]
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")], tag
        assert str(attributes.get("href", "#")).startswith("#"), tag
        assert str(attributes.get("src", "data:image/")).startswith("data:image/"), tag


def test_a_script_that_got_into_the_page_would_not_run(
    chromium: Chromium, scored_run: Path
) -> None:
    report = write_report([scored_run]).path
    html = report.read_text(encoding="utf-8")
    attack = "<script>document.title = 'taken over'</script><img src=x onerror=document.title=1>"
    report.write_text(html.replace("<footer>", attack + "<footer>"), encoding="utf-8")
    page = Page(chromium(report.as_uri(), "--dump-dom", refused=3))
    assert page.title == "m: mpm-eval report"


def test_filters_search_keys_and_links_find_samples(
    chromium: Chromium, make_task: MakeTask, make_run: MakeRun
) -> None:
    task = make_task(metrics=["exact_match", "fidelity"])
    first = make_run(task, {("0", "de"): "falsch", ("3", "zh"): "dies ist ein Satz"})
    second = make_run(task, {("1", "en"): "mistaken ÄPFEL"}, run="second")
    for run in (first, second):
        score_run(run)
    report = write_report([first, second]).path
    body = """
  seen.all = count(); seen.deep = current();
  seen.focus = page.activeElement.className;
  key("j"); seen.next = current();
  key("k"); key("k"); seen.back = current();
  seen.hash = page.location.hash;
  choose("verdict", "wrong"); seen.wrong = count();
  choose("verdict", "language"); seen.language = count();
  choose("verdict", "");
  choose("flip", "any"); seen.any = count();
  choose("flip", "-1"); seen.onlyFirst = count();
  choose("flip", "1"); seen.onlySecond = count();
  choose("language", "de"); seen.german = count();
  seen.columns = page.querySelectorAll(".answer").length;
  choose("language", ""); choose("flip", "");
  choose("part", "category detail"); seen.detail = count();
  choose("part", "");
  await write("äpfel"); seen.search = count();
  seen.found = page.querySelector(".sample h3").textContent;
  await write("no such text"); seen.nothing = count();
  await write("");
  choose("order", "hard"); seen.hardest = page.querySelector(".sample h3").textContent;
  key("?"); seen.help = get("help").open; get("help-close").click();
  key("/"); seen.searching = page.activeElement.id;
"""
    seen = driven(chromium, report, body, "#animals/5")
    assert seen == {
        "all": "8 samples", "deep": "5", "focus": "sample current", "next": "6", "back": "4",
        "hash": "#animals/4", "wrong": "2 of 8 samples", "language": "1 of 8 samples",
        "any": "3 of 8 samples", "onlyFirst": "1 of 8 samples", "onlySecond": "2 of 8 samples",
        "german": "1 of 8 samples", "columns": 1, "detail": "4 of 8 samples",
        "search": "1 of 8 samples", "found": "1", "nothing": "0 of 8 samples", "hardest": "0",
        "help": True, "searching": "search",
    }  # fmt: skip


def test_a_picture_of_the_page_is_not_blank(
    chromium: Chromium, scored_run: Path, tmp_path: Path
) -> None:
    report, colours = write_report([scored_run]).path, {}
    for mode, setting in (("light", "1"), ("dark", "0")):
        picture = tmp_path / f"{mode}.png"
        chromium(
            report.as_uri(), f"--screenshot={picture}", "--window-size=900,1400",
            f"--blink-settings=preferredColorScheme={setting}",
        )  # fmt: skip
        with Image.open(picture) as image:
            assert len(image.convert("RGB").getcolors(1 << 24) or []) > 50
            colours[mode] = image.convert("L").crop((5, 1300, 6, 1301)).tobytes()[0]
    assert colours["light"] > 200 > 60 > colours["dark"]
