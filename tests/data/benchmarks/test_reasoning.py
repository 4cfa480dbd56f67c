"""MaRVL and XVNLI: official files to samples, and what mistakes say."""

import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mpm_eval.data import open_dataset
from mpm_eval.errors import CorruptImage, UserError
from mpm_eval.tasks import load_task
from tests.data.benchmarks.conftest import MARVL, XVNLI, edit, write_marvl, write_xvnli


def test_marvl_is_true_or_false_in_the_words_of_each_language(root: Path) -> None:
    write_marvl(root)
    task = load_task("marvl")
    dataset = open_dataset(task)
    for tag in MARVL:
        true, false = dataset.samples(tag)
        assert (true.id, true.question, true.answer) == (f"{tag}-0", f"{tag} 0", 0)
        assert false.answer == 1 and false.references == (false.options[1],)
        assert true.options == tuple(task.data["options"][tag])
        assert (true.cluster, true.category) == (f"{tag} 39-Pançi", "Cognition")


def test_two_pictures_are_shown_as_one_left_beside_right(root: Path) -> None:
    write_marvl(root)
    dataset = open_dataset(load_task("marvl"))
    key = dataset.samples("tr")[0].image
    assert key == "tr/images/39-Pançi/39-0.jpg|tr/images/39-Pançi/39-11.jpg"
    both = dataset.load_image(key)
    # the taller one, 10 x 64, is brought to the height of the other: 5 x 32
    assert both.size == (5 + 1 + 60, 32)
    left, bar, right = (both.getpixel((x, 16)) for x in (2, 5, 40))
    assert left[0] > 200 > left[2] and bar == (255, 255, 255) and right[2] > 200 > right[0]


def test_a_folder_with_a_decomposed_name_is_found(root: Path) -> None:
    write_marvl(root)
    folder = root / "iglue/marvl-images/ta/images/39-Pançi"
    folder.rename(folder.with_name(unicodedata.normalize("NFD", folder.name)))
    dataset = open_dataset(load_task("marvl"))
    assert dataset.load_image(str(dataset.samples("ta")[0].image)).height == 32


def test_a_pair_fails_with_either_of_its_pictures(root: Path) -> None:
    write_marvl(root)
    dataset = open_dataset(load_task("marvl"))
    (root / "iglue/marvl-images/sw/images/39-Pançi/39-11.jpg").write_bytes(b"no picture")
    with pytest.raises(CorruptImage, match=r"39-11\.jpg: cannot be decoded"):
        dataset.load_image(str(dataset.samples("sw")[0].image))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[1].pop("label"), "marvl-sw.jsonl:2: key 'label' is missing"),
        (lambda rows: rows[1].update(label="True"), "marvl-sw.jsonl:2: label: expected true or false, got a string"),
        (lambda rows: rows[1].update(id="sw-0"), "marvl-sw.jsonl:2: field 'id': 'sw-0' in language 'sw'"),
        (lambda rows: rows[1].update(left_img="../../x.jpg"), "marvl-sw.jsonl:2: 'sw/images/39-Pançi/../../x.jpg' is no file name"),
        (lambda rows: rows.clear(), "no samples in sw"),
    ],
)  # fmt: skip
def test_a_bad_line_of_marvl_is_named(
    root: Path, change: Callable[[list[dict[str, Any]]], object], message: str
) -> None:
    edit(write_marvl(root) / "marvl-sw.jsonl", change)
    with pytest.raises(UserError) as caught:
        open_dataset(load_task("marvl"))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_each_language_needs_a_word_for_each_label(root: Path) -> None:
    write_marvl(root)
    task = load_task("marvl")
    options = {**task.data["options"], "zh": ["对"]}
    with pytest.raises(
        UserError, match=r"data\.options\.zh: expected 2 words, for true, false; got 1"
    ):
        open_dataset(replace(task, data={**task.data, "options": options}))


def test_xvnli_has_the_order_entailment_neutral_contradiction(root: Path) -> None:
    write_xvnli(root)
    dataset = open_dataset(load_task("xvnli"))
    for tag in XVNLI:
        samples = dataset.samples(tag)
        assert [s.answer for s in samples] == [2, 1, 0]  # the fourth has no agreed label
        assert [s.question for s in samples] == [f"{tag} {number}" for number in range(3)]
        assert {s.image for s in samples} == {"759.jpg"}
    assert dataset.samples("fr")[0].references == ("non",)
    assert dataset.description["left_out"].startswith(f"{len(XVNLI)} lines without an agreed label")
    assert dataset.load_image("759.jpg").size == (8, 6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[0].update(gold_label="entailmnt"), "ru/test.jsonl:1: gold_label: unknown label 'entailmnt'; did you mean 'entailment'?"),
        (lambda rows: rows[0].pop("Flikr30kID"), "ru/test.jsonl:1: key 'Flikr30kID' is missing"),
        (lambda rows: rows[0].update(pairID=rows[1]["pairID"]), "ru/test.jsonl:2: field 'id'"),
    ],
)  # fmt: skip
def test_a_bad_line_of_xvnli_is_named(
    root: Path, change: Callable[[list[dict[str, Any]]], object], message: str
) -> None:
    edit(write_xvnli(root) / "ru/test.jsonl", change)
    with pytest.raises(UserError) as caught:
        open_dataset(load_task("xvnli"))
    assert message in str(caught.value) and "\n" not in str(caught.value)
