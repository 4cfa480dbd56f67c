"""Definitions of studies: the shipped ones, and every mistake in one clear line."""

import re
from pathlib import Path
from typing import Any

import pytest

from mpm_eval.errors import UserError
from mpm_eval.stages.study.definition import list_studies, load_study
from mpm_eval.stages.study.folders import STUDIES, Folders, read_outcome
from mpm_eval.stages.study.plan import evaluation_sha256
from tests.stages.study.conftest import CAPTION, CHOICE, CONTENT, MakeStudy, write_study

ON_GEMMA = ["calibration_gemma", "low_resource_gemma"]
NAMES = sorted(["balance", "calibration", "low_resource", "pivot", "translation_noise", *ON_GEMMA])


def test_five_studies_and_two_on_a_pretrained_language_model_are_shipped() -> None:
    assert list_studies() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_study_was_run_and_its_numbers_were_read(name: str) -> None:
    study = load_study(name)
    for point in study.points:
        for seed in study.seeds:
            outcome = read_outcome(Folders(STUDIES, name).outcome(point.name, seed))
            assert outcome is not None
            assert outcome.evaluation_sha256 == evaluation_sha256(study)
            assert tuple(outcome.overrides) == study.overrides_of(point, seed)
    text = " ".join(study.conclusion.split())
    assert len(re.findall(r"[.] [A-Z]|[.]$", text)) == 2  # sentences
    assert text in (STUDIES / name / "table.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_study_has_three_seeds_and_asks_one_question(name: str) -> None:
    study = load_study(name)
    assert len(study.seeds) >= 3
    assert study.question.strip().endswith("?") and study.question.count("?") == 1
    assert study.languages[0] == "en" and len(study.languages) >= 5


@pytest.mark.slow  # imports torch
@pytest.mark.parametrize("name", NAMES)
def test_every_point_of_a_shipped_study_is_a_recipe(name: str) -> None:
    from training.recipe import load_recipe

    study = load_study(name)
    hashes = {
        load_recipe(study.recipe, study.overrides_of(point, seed)).sha256
        for point in study.points
        for seed in study.seeds
    }
    assert len(hashes) == len(study.points) * len(study.seeds)  # no point is another's double


def test_later_overrides_win_and_the_seed_is_last(make_study: MakeStudy) -> None:
    study = make_study(overrides=["a.b=1"], points=[{"name": "p", "x": 1, "overrides": ["a.b=2"]}])
    assert study.overrides_of(study.points[0], 7) == ("a.b=1", "a.b=2", "seed=7")


_MEASURE = CONTENT["measures"][0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pointz": 1}, "unknown key 'pointz'; did you mean 'points'?"),
        ({"limit": 0}, "limit: must be at least 1, got 0"),
        ({"seeds": []}, "seeds: is empty; list at least one"),
        ({"seeds": [1, 1]}, "seeds: 1 is listed twice; remove one"),
        ({"question": " "}, "question: is empty"),
        ({"x_scale": "log"}, "unknown scale 'log'"),
        ({"languages": ["en", "xx"]}, "unknown language 'xx'"),
        ({"languages": ["de"]}, "languages lack its pivot 'en'; add it"),
        ({"languages": ["en", "pl"]}, "has no samples in pl; change languages"),
        ({"points": [{"name": "a", "x": 1}] * 2}, "points: a is listed twice; remove one"),
        ({"points": [{"name": "a"}]}, "points: a: x is missing"),
        ({"points": [{"name": "../a", "x": 1}]}, "points: '../a': use a-z, 0-9, '_', '-' and '.'"),
        ({"measures": [_MEASURE | {"metric": "acuracy"}]}, "did you mean 'accuracy'?"),
        ({"measures": [_MEASURE | {"metric": "content"}]}, "unknown metric 'content'"),
        ({"measures": [_MEASURE | {"task": "emoji_choic"}]}, "did you mean 'emoji_choice'?"),
        ({"measures": [_MEASURE | {"task": "emoji_choice"}]}, "is the test split; studies are"),
        ({"measures": [_MEASURE] * 2}, "is listed twice; remove one"),
        ({"x_measure": _MEASURE}, f"of {CHOICE} in '' is listed twice"),
    ],
)
def test_a_mistake_in_a_study_is_one_clear_line(
    fields: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = write_study(tmp_path, **fields)
    with pytest.raises(UserError) as caught:
        load_study(str(path))
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert str(path) in str(caught.value) or "unknown task" in str(caught.value)


def test_an_unknown_study_names_the_known_ones() -> None:
    with pytest.raises(UserError, match="unknown study 'pivott'; did you mean 'pivot'"):
        load_study("pivott")


def test_the_name_must_be_that_of_the_file(tmp_path: Path) -> None:
    path = write_study(tmp_path).rename(tmp_path / "other.toml")
    with pytest.raises(UserError, match="name: 'small' must equal the file's name 'other'"):
        load_study(str(path))


def test_a_point_without_series_lies_on_all_of_them(make_study: MakeStudy) -> None:
    points = [{"name": "a", "x": 0}, {"name": "b", "x": 1, "series": ["s"]}]
    assert make_study(points=points).series == ("s",)
    assert make_study().series == ("",)


def test_tasks_are_those_of_all_measures(make_study: MakeStudy) -> None:
    x = {"task": "alignment", "metric": "retrieval_p1", "title": "P@1"}
    assert make_study(x_measure=x).tasks == (CHOICE, CAPTION, "alignment")
