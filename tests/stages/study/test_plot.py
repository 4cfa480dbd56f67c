"""The plot of a study: what is on it, and that the same rows give the same bytes."""

from xml.etree import ElementTree

import pytest

from mpm_eval.stages.study.plot import to_svg
from mpm_eval.stages.study.table import rows_of
from tests.stages.study.conftest import MakeOutcome, MakeStudy

pytestmark = pytest.mark.slow  # matplotlib


def texts(svg: str) -> list[str]:
    return [e.text or "" for e in ElementTree.fromstring(svg).iter() if e.tag.endswith("}text")]


def test_a_panel_per_measure_and_series_and_a_line_per_language(
    make_study: MakeStudy, make_outcome: MakeOutcome
) -> None:
    points = [
        {"name": "alone", "label": "English $only"},
        {"name": "a", "x": 25, "series": ["one"]},
        {"name": "b", "x": 50, "series": ["two"]},
    ]
    study = make_study(points=points, x_scale="ordinal", x_label="damage, %")
    outcomes = {
        p.name: [make_outcome(p.name, s, {"en": 30.0 + s, "de": 20.0}) for s in (0, 1)]
        for p in study.points
    }
    svg = to_svg(study, rows_of(study, outcomes))
    shown = texts(svg)
    for title in ("Choice: one", "Choice: two", "Content: one", "Content: two"):
        assert title in shown
    for text in ("English", "German", "English $only", "25", "50", "damage, %"):
        assert text in shown
    assert svg == to_svg(study, rows_of(study, outcomes))


@pytest.mark.parametrize("scale", ["linear", "category"])
def test_undefined_values_leave_gaps(
    scale: str, make_study: MakeStudy, make_outcome: MakeOutcome
) -> None:
    study = make_study(x_scale=scale)
    outcomes = {"none": [make_outcome("none", 0, {"en": 3.0, "de": None})]}
    assert "Choice" in texts(to_svg(study, rows_of(study, outcomes)))
