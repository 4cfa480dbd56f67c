"""Names to paint: the same concepts in every language, each with a real drawing and another one."""

from dataclasses import replace

import pytest

from mpm_eval.data import open_dataset
from mpm_eval.data.emoji_paint import SEEN, UNSEEN
from mpm_eval.errors import UserError
from mpm_eval.languages import EMOJI_LANGUAGES
from mpm_eval.schema import Task
from mpm_eval.tasks import groups, load_task


def task(**data: object) -> Task:
    return replace(
        load_task("emoji_paint"), data={"source": "emoji_paint", "split": "test", **data}
    )


def test_a_name_is_the_prompt_and_the_drawing_is_of_the_style_that_no_model_saw() -> None:
    dataset = open_dataset(task())
    samples = {tag: {s.id: s for s in dataset.samples(tag)} for tag in ("en", "zh")}
    dog = samples["zh"]["1f436"]
    assert (dog.question, dog.image, dog.other_image) == ("狗脸", "openmoji/1f436", "noto/1f436")
    assert samples["en"]["1f436"].question == "dog face"
    assert samples["en"].keys() == samples["zh"].keys()


def test_enough_concepts_for_a_distance_and_both_cells() -> None:
    samples = open_dataset(task()).samples("en")
    cells = [s.cell for s in samples]
    assert len(samples) >= 3 * 320  # dimensions of the embedded features, see images.frechet
    assert set(cells) == {SEEN, UNSEEN} and cells.count(UNSEEN) > 150
    assert len({s.image for s in samples}) == len({s.id for s in samples}) == len(samples)


def test_a_number_per_cell_keeps_the_first_of_each() -> None:
    few, all_ = (open_dataset(task(per_cell=n)).samples("de") for n in (5, 0))
    assert [s.cell for s in few].count(SEEN) == [s.cell for s in few].count(UNSEEN) == 5
    assert [s.id for s in few] == [s.id for s in all_ if s.id in {f.id for f in few}]


@pytest.mark.parametrize(
    ("data", "message"),
    [({"split": "train"}, "data.split"), ({"cells": []}, "unknown key 'cells'")],
)
def test_a_wrong_table_is_named(data: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_dataset(task(**data))


def test_the_shipped_task_paints_in_all_sixteen_languages_and_is_in_its_groups() -> None:
    assert load_task("emoji_paint").languages == EMOJI_LANGUAGES
    assert all("emoji_paint" in groups()[name] for name in ("paint", "paint_fid", "paint_clip"))
