"""The table of a study: known means and spreads, what is undefined, what is missing."""

import csv
import io
from statistics import mean, stdev

import pytest

from mpm_eval.stages.study.folders import Value
from mpm_eval.stages.study.table import missing_runs, rows_of, to_csv, to_markdown
from tests.stages.study.conftest import MakeOutcome, MakeStudy


def test_mean_and_spread_over_seeds(make_study: MakeStudy, make_outcome: MakeOutcome) -> None:
    values = (10.0, 20.0, 60.0)
    outcomes = {"none": [make_outcome("none", s, {"en": v, "de": 1}) for s, v in enumerate(values)]}
    row = rows_of(make_study(seeds=[0, 1, 2]), outcomes)[0]
    assert (row.point, row.language, row.label, row.x) == ("none", "en", "pivot", 0.0)
    assert row.mean == mean(values) == 30
    assert row.sd == pytest.approx(stdev(values)) and row.sd == pytest.approx(26.4575, abs=1e-4)
    assert (row.min, row.max, row.values, row.seeds) == (10, 60, values, (0, 1, 2))


def test_one_seed_has_no_spread(make_study: MakeStudy, make_outcome: MakeOutcome) -> None:
    rows = rows_of(make_study(), {"none": [make_outcome("none", 0, {"en": 4.0, "de": 3.0})]})
    assert [row.sd for row in rows] == [None, None]


def test_an_undefined_value_is_counted_and_not_averaged(
    make_study: MakeStudy, make_outcome: MakeOutcome
) -> None:
    study = make_study()
    outcomes = {
        "none": [make_outcome("none", s, {"de": v, "en": 1}) for s, v in ((0, None), (1, 8.0))],
        "half": [make_outcome("half", s, {"de": None, "en": 1}) for s in (0, 1)],
    }
    rows = {(row.point, row.language): row for row in rows_of(study, outcomes)}
    assert rows["none", "de"].mean == 8 and rows["none", "de"].num_undefined == 1
    assert rows["half", "de"].mean is None and rows["half", "de"].num_undefined == 2
    text = to_markdown(study, list(rows.values()), outcomes, "mpm-eval study small")
    assert "| none | 0 | 1.0 ± 0.0 P | 8.0 (1 undefined) Z |" in text
    assert "| half | 0.5 | 1.0 ± 0.0 P | – |" in text


def test_a_measured_x_is_the_mean_over_seeds_of_the_language(
    make_study: MakeStudy, make_outcome: MakeOutcome
) -> None:
    first = {"task": "alignment", "metric": "retrieval_p1", "title": "P@1"}
    study = make_study(x_measure=first)
    found = [Value("alignment", "retrieval_p1", "", "de", 40.0 + s, 8, 0) for s in (0, 1)]
    outcomes = {"none": [make_outcome("none", s, {"de": 5.0}, more=(found[s],)) for s in (0, 1)]}
    assert rows_of(study, outcomes)[0].x == 40.5


def test_labels_that_differ_between_seeds_are_all_shown(
    make_study: MakeStudy, make_outcome: MakeOutcome
) -> None:
    study = make_study()
    outcomes = {
        "none": [
            make_outcome("none", 0, {"de": 1.0}),
            make_outcome("none", 1, {"de": 3.0}, {"de": "quasi-zero-shot"}),
        ]
    }
    rows = rows_of(study, outcomes)
    assert rows[0].label == "zero-shot or quasi-zero-shot"
    assert "2.0 ± 1.4 ZQ" in to_markdown(study, rows, outcomes, "c")


def test_what_was_not_run_is_named(make_study: MakeStudy, make_outcome: MakeOutcome) -> None:
    study = make_study()
    outcomes = {"none": [make_outcome("none", 0, {"en": 1.0, "de": 1.0})]}
    assert missing_runs(study, outcomes) == ["none-seed1", "half-seed0", "half-seed1"]
    text = to_markdown(study, rows_of(study, outcomes), outcomes, "c")
    assert "**Incomplete**: not run yet: none-seed1, half-seed0, half-seed1." in text
    assert "**Fewer than 3 seeds**" in text


def test_the_conclusion_is_shown_or_awaited(
    make_study: MakeStudy, make_outcome: MakeOutcome
) -> None:
    outcomes = {"none": [make_outcome("none", 0, {"en": 1.0, "de": 1.0})]}
    for text, shown in (("", "*The numbers await a reading.*"), ("So | so.", "**So \\| so.**")):
        study = make_study(conclusion=text)
        assert shown in to_markdown(study, rows_of(study, outcomes), outcomes, "c")


def test_csv_holds_every_row_unrounded(make_study: MakeStudy, make_outcome: MakeOutcome) -> None:
    outcomes = {"none": [make_outcome("none", s, {"en": 100 / 3 + s, "de": 0.5}) for s in (0, 1)]}
    rows = rows_of(make_study(), outcomes)
    read = list(csv.DictReader(io.StringIO(to_csv(rows))))
    assert len(read) == len(rows) == 2
    assert float(read[0]["mean"]) == rows[0].mean
    assert [float(v) for v in read[0]["values"].split()] == list(rows[0].values)
