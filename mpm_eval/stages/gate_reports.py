"""A gate's verdicts as a table, JUnit XML, a Markdown summary and GitHub annotations."""

import html
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

from mpm_eval.errors import UserError
from mpm_eval.stages.gate_verdicts import Report, Verdict
from mpm_eval.strict import write_text

WORDS = {"passed": "passed", "regression": "REGRESSION", "undecided": "cannot decide"}
# what XML 1.0 has no way to write, not even escaped
_NO_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_MARKS = {"passed": "✅", "regression": "❌", "undecided": "❔"}


def table(report: Report) -> list[dict[str, Any]]:
    """Return one row per verdict for a terminal, in the order of the report.

    No row begins with what a file says: `::` at the start of a line is a command to GitHub.
    """
    return [
        {
            "verdict": WORDS[verdict.status],
            "task": _line(verdict.task),
            "metric": _line(verdict.metric),
            "language": _line(verdict.language) or "-",
            "baseline": _number(verdict.baseline),
            "candidate": _number(verdict.candidate),
            "change": _number(verdict.change, sign=True),
            "margin": _number(verdict.margin),
            "n": verdict.n,
            "why": _line(verdict.reason),
        }
        for verdict in report.verdicts
    ]


def headline(report: Report) -> str:
    """Return the whole report in one line."""
    counts = {s: sum(v.status == s for v in report.verdicts) for s in WORDS}
    told = [f"{number} {WORDS[status]}" for status, number in counts.items() if number]
    return (
        f"gate: {WORDS[report.status]} ({', '.join(told)}; "
        f"{_line(report.candidate)} against {_line(report.baseline)})"
    )


def junit(report: Report) -> str:
    """Return JUnit XML: a test case per verdict, a failure per regression, an error per undecided.

    Nothing is ever marked as skipped: several readers count that as success.
    """
    failures = sum(v.status == "regression" for v in report.verdicts)
    errors = sum(v.status == "undecided" for v in report.verdicts)
    # readers of the format expect a time on every element
    counts = {
        "tests": str(len(report.verdicts)),
        "failures": str(failures),
        "errors": str(errors),
        "skipped": "0",
        "time": "0",
    }
    root = ET.Element("testsuites", {"name": "mpm-eval gate", **counts})
    name = _xml(f"gate of {report.candidate} against {report.baseline}")
    suite = ET.SubElement(root, "testsuite", {"name": name, **counts})
    for verdict in report.verdicts:
        case = ET.SubElement(
            suite,
            "testcase",
            {"classname": _xml(f"gate.{verdict.task}"), "name": _xml(_name(verdict)), "time": "0"},
        )
        if verdict.status != "passed":
            tag = "failure" if verdict.status == "regression" else "error"
            told = {"message": _xml(verdict.reason), "type": verdict.status}
            ET.SubElement(case, tag, told).text = _xml(_details(verdict))
        else:
            ET.SubElement(case, "system-out").text = _xml(_details(verdict))
    if report.warnings:
        ET.SubElement(suite, "system-out").text = _xml("\n".join(report.warnings))
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def markdown(report: Report) -> str:
    """Return the summary of a job: the outcome, a table of verdicts, warnings."""
    lines = [f"## {_MARKS[report.status]} {_escape(headline(report))}", ""]
    columns = ["verdict", "task", "metric", "language", "baseline", "candidate", "change",
               "margin", "n", "why"]  # fmt: skip
    lines += [f"| {' | '.join(columns)} |", "|---|---|---|---|--:|--:|--:|--:|--:|---|"]
    for verdict, row in zip(report.verdicts, table(report), strict=True):
        mark = f"{_MARKS[verdict.status]} {row['verdict']}"
        cells = [mark, *(_escape(str(row[column])) for column in columns[1:])]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", f"One-sided level {report.alpha:g} over {report.num_cells} scores (Holm); "
              f"bootstrap seed {report.seed}."]  # fmt: skip
    if report.warnings:
        lines += ["", *(f"- {_escape(warning)}" for warning in report.warnings)]
    return "\n".join([*lines, ""])


def annotations(report: Report) -> list[str]:
    """Return GitHub's workflow commands: an error per regression, a warning per undecided."""
    commands = {"regression": "error", "undecided": "warning"}
    lines = []
    for verdict in report.verdicts:
        if verdict.status in commands:
            title = _property(f"{WORDS[verdict.status]}: {verdict.task} {_name(verdict)}")
            message = _message(verdict.reason)
            lines.append(f"::{commands[verdict.status]} title={title}::{message}")
    return [*lines, *(f"::warning title=gate::{_message(w)}" for w in report.warnings)]


def write_junit(path: Path, report: Report) -> None:
    """Write JUnit XML in one step."""
    write_text(path, junit(report))


def append_summary(path: Path, report: Report) -> None:
    """Append the Markdown summary: a job's summary holds those of all its steps."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(markdown(report))
    except OSError as error:
        raise UserError(f"--summary {path}: cannot be written ({error.strerror})") from None


def _name(verdict: Verdict) -> str:
    return f"{verdict.metric} ({verdict.language})" if verdict.language else verdict.metric


def _details(verdict: Verdict) -> str:
    facts = [
        ("baseline", _number(verdict.baseline)),
        ("candidate", _number(verdict.candidate)),
        ("change, positive is better", _number(verdict.change, sign=True)),
        ("lower 95 % bound of the change", _number(verdict.lower, sign=True)),
        ("margin", _number(verdict.margin)),
        ("smallest drop found 8 times in 10", _number(verdict.detectable)),
        ("p of a drop, adjusted", "-" if verdict.p_value is None else f"{verdict.p_value:.4f}"),
        ("samples", str(verdict.n)),
        ("clusters", str(verdict.num_clusters)),
    ]
    known = [f"{what}: {value}" for what, value in facts if value not in ("-", "0")]
    return "\n".join([verdict.reason, *known])


def _number(value: float | None, sign: bool = False) -> str:
    if value is None:
        return "-"
    if sign:
        return f"{value:+.1f}" if abs(value) >= 0.05 else "0.0"
    return f"{value:.1f}" if abs(value) >= 1 or value == 0 else f"{value:.3g}"


def _line(text: str) -> str:
    """Return `text` on one line, without what could steer a terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _xml(text: str) -> str:
    return _NO_XML.sub("", text)


def _escape(text: str) -> str:
    """Return `text` so that Markdown shows it as it is, in a table cell too."""
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", html.escape(_line(text), quote=False))


def _message(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")
