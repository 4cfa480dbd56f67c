"""Reports of a gate: what other programs read of it, and nothing a file says gets out of its cell."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from junitparser import Error, Failure, JUnitXml

from mpm_eval.errors import UserError
from mpm_eval.stages.gate_reports import (
    annotations,
    append_summary,
    headline,
    junit,
    markdown,
    table,
    write_junit,
)
from mpm_eval.stages.gate_verdicts import Report, Verdict

EVIL = "a|b`*_x\n::error::<script>&\x00\x1b[31m\ufffe,100%\r"

PASSED = Verdict("llava_zh", "chrf", "zh", "passed", "lower 95 % bound -0.4, margin 2", "zero-shot",
                 20.0, 20.1, 0.1, -0.4, 2.0, 1.5, 1.0, 300, 150)  # fmt: skip
REGRESSION = replace(
    PASSED, language="en", status="regression", reason="a drop of 9.0", p_value=0.001
)
UNDECIDED = Verdict("emoji_qa", "exact_match", "de", "undecided", "items differ")
COST = Verdict("emoji_qa", "seconds_per_sample", "", "passed", "0.01 is within the ceiling of 1")


def report(*verdicts: Verdict, warnings: tuple[str, ...] = ()) -> Report:
    return Report("main", "new", verdicts, warnings, len(verdicts), 0.05, 0)


@pytest.mark.parametrize(
    ("verdicts", "status", "exit_code"),
    [
        ((PASSED,), "passed", 0),
        ((PASSED, UNDECIDED), "undecided", 3),
        ((UNDECIDED, REGRESSION, PASSED), "regression", 1),
        ((), "undecided", 3),
    ],
)
def test_the_worst_verdict_is_the_report_s(
    verdicts: tuple[Verdict, ...], status: str, exit_code: int
) -> None:
    assert (report(*verdicts).status, report(*verdicts).exit_code) == (status, exit_code)


def test_a_junit_reader_sees_a_failure_an_error_and_nothing_skipped(tmp_path: Path) -> None:
    path = tmp_path / "new" / "gate.xml"
    write_junit(path, report(PASSED, REGRESSION, UNDECIDED, COST))
    (suite,) = JUnitXml.fromfile(str(path))
    cases = list(suite)
    assert [case.name for case in cases] == [
        "chrf (zh)", "chrf (en)", "exact_match (de)", "seconds_per_sample",
    ]  # fmt: skip
    assert [case.classname for case in cases][::3] == ["gate.llava_zh", "gate.emoji_qa"]
    assert [[type(r) for r in case.result] for case in cases] == [[], [Failure], [Error], []]
    assert cases[1].result[0].message == "a drop of 9.0"
    assert (suite.tests, suite.failures, suite.errors, suite.skipped) == (4, 1, 1, 0)
    root = ET.parse(path).getroot()
    assert (root.tag, root.get("tests"), root.get("failures")) == ("testsuites", "4", "1")
    assert all(element.get("time") for element in root.iter("testcase"))


def test_the_same_report_is_the_same_bytes() -> None:
    made = report(PASSED, REGRESSION, warnings=("w",))
    assert junit(made) == junit(made) and markdown(made) == markdown(made)


def test_text_of_a_file_stays_text_in_junit() -> None:
    evil = replace(REGRESSION, task=EVIL, metric=EVIL, reason=EVIL)
    root = ET.fromstring(junit(report(evil, warnings=(EVIL,))))
    failure = root.find(".//failure")
    assert failure is not None and "<script>&" in (failure.get("message") or "")
    assert "\x00" not in junit(report(evil)) and "\x1b" not in junit(report(evil))


@given(st.text())
def test_any_text_makes_valid_junit(text: str) -> None:
    made = report(replace(UNDECIDED, task=text, reason=text, language=text), warnings=(text,))
    root = ET.fromstring(junit(made))
    assert len(root.findall(".//testcase")) == 1


@given(st.text())
def test_any_text_stays_in_its_row_of_the_summary_and_of_the_table(text: str) -> None:
    made = report(replace(REGRESSION, task=text, reason=text, metric=text))
    lines = markdown(made).split("\n")
    rows = [line for line in lines if line.startswith("| ")]
    assert len(rows) == 2 and all(len(re.findall(r"(?<!\\)\|", row)) == 11 for row in rows)
    assert not re.search(r"<[a-zA-Z/]", rows[1])
    (row,) = table(made)
    assert all(str(value).isprintable() for value in row.values())
    assert next(iter(row)) == "verdict"  # a line never begins with a file's text


def test_the_summary_tells_the_outcome_the_scores_and_the_warnings() -> None:
    text = markdown(report(PASSED, REGRESSION, UNDECIDED, warnings=("rule[1] is unused",)))
    assert text.startswith("## ❌ gate: REGRESSION (1 passed, 1 REGRESSION, 1 cannot decide; new")
    assert "| ✅ passed | llava\\_zh | chrf | zh | 20.0 | 20.1 | +0.1 | 2.0 | 300 |" in text
    assert "| ❔ cannot decide | emoji\\_qa |" in text and "- rule\\[1\\] is unused" in text
    assert "level 0.05 over 3 scores (Holm)" in text


def test_a_summary_is_appended_to_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "summary.md"
    path.write_text("# Build\n", encoding="utf-8")
    append_summary(path, report(PASSED))
    assert path.read_text(encoding="utf-8").startswith("# Build\n## ✅ gate: passed")
    with pytest.raises(UserError, match=r"--summary .*cannot be written"):
        append_summary(tmp_path, report(PASSED))


def test_annotations_are_errors_and_warnings_and_one_line_each() -> None:
    evil = replace(REGRESSION, task=EVIL, reason=EVIL)
    lines = annotations(report(PASSED, evil, UNDECIDED, warnings=("100 %",)))
    assert lines[1:] == [
        "::warning title=cannot decide%3A emoji_qa exact_match (de)::items differ",
        "::warning title=gate::100 %25",
    ]
    assert lines[0].startswith("::error title=REGRESSION%3A ")
    assert "\n" not in lines[0] and "\r" not in lines[0] and "100%25%0D" in lines[0]
    title = lines[0].removeprefix("::error title=").partition("::")[0]
    assert ":" not in title and "," not in title


def test_the_headline_is_one_line_whatever_a_run_is_called() -> None:
    made = replace(report(PASSED), candidate=EVIL)
    assert headline(made).isprintable() and headline(made).startswith("gate: passed (1 passed; a|b")
