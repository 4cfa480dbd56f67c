"""MMBench: rows of a TSV with pictures inside, in every rotation."""

from pathlib import Path

import pytest

from mpm_eval.data import open_dataset
from mpm_eval.errors import CorruptImage, UserError
from mpm_eval.tasks import load_task
from tests.data.benchmarks.conftest import encoded, write_mmbench


def test_a_row_is_a_question_with_hint_and_lettered_options(root: Path) -> None:
    write_mmbench(root)
    dataset = open_dataset(load_task("mmbench"))
    samples = dataset.samples("en")
    assert [s.id for s in samples] == ["0", "1000000", "2000000", "3", "1000003"]
    assert samples[0].question == "Look\nhere\nWhat?\nA. cat\nB. dog\nC. cow"
    assert samples[3].question == 'The "tab"?\nA. yes\nB. no'
    assert (samples[0].options, samples[0].references) == (("A", "B", "C"), ("B",))
    assert [s.answer for s in samples] == [1, 0, 2, 0, 1]
    assert [s.cluster for s in samples] == ["0", "0", "0", "3", "3"]
    assert samples[0].category == "animals"
    assert dataset.description["questions"] == "2"
    assert [s.id for s in dataset.samples("zh")] == [s.id for s in samples]


def test_rotations_and_languages_share_the_picture_of_their_question(root: Path) -> None:
    write_mmbench(root)
    dataset = open_dataset(load_task("mmbench"))
    keys = [s.image for tag in ("en", "zh") for s in dataset.samples(tag)]
    assert len(set(keys)) == 2 and len(set(keys[:3])) == 1
    assert dataset.load_image(str(keys[0])).getpixel((0, 0)) == (255, 0, 0)
    assert dataset.load_image(str(keys[3])).getpixel((0, 0)) == (0, 0, 255)


def test_a_picture_that_is_no_picture_fails_alone(root: Path) -> None:
    file = write_mmbench(root) / "MMBench_DEV_EN.tsv"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace(encoded("red"), "A" * 80), encoding="utf-8")
    dataset = open_dataset(load_task("mmbench"))
    with pytest.raises(CorruptImage, match="cannot be decoded"):
        dataset.load_image(str(dataset.samples("en")[0].image))
    file.write_text(text.replace(encoded("red"), "é" * 80), encoding="utf-8")
    dataset = open_dataset(load_task("mmbench"))
    with pytest.raises(CorruptImage, match="is not base64"):
        dataset.load_image(str(dataset.samples("en")[0].image))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\tanswer\t", "\tright\t", r"EN\.tsv: column 'answer' is missing"),
        ("1000003\t", "x\t", r"EN\.tsv:9: index: 'x' is not a whole number"),
        ("1000003\t", "3\t", r"EN\.tsv:9: field 'id': '3' in language 'en' is already in"),
        ("\tB\tsigns\t3", "\tB\tsigns\t9", r"EN\.tsv:9: image: '9' is neither a picture nor the index"),
        ("\tB\tsigns", "\tC\tsigns", r"EN\.tsv:9: answer: 'C' is not one of A, B"),
        ("\tB\tsigns", "\t\tsigns", r"EN\.tsv:9: answer: is empty; .* use the dev split"),
        ("\t3\tmade\tx\t\tdev", "\t3\tmade", r"EN\.tsv:9: 11 fields, the header has 14; is the file cut off\?"),
        ("1000003\t", "2000000\t", r"EN\.tsv:9: field 'id': '2000000' in language 'en' is already"),
        ("\tno\tyes\t", "\t\tyes\t", r"EN\.tsv:9: field 'options': needs at least two, got 1"),
        ('"The ""tab""?"\t\tno', '"The "tab"?"\t\tno', r"EN\.tsv:9: not valid TSV"),
    ],
)  # fmt: skip
def test_a_bad_row_is_named(root: Path, old: str, new: str, message: str) -> None:
    file = write_mmbench(root) / "MMBench_DEV_EN.tsv"
    text = file.read_text(encoding="utf-8")
    assert text.count(old) == 1
    file.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(UserError, match=message):
        open_dataset(load_task("mmbench"))


def test_an_empty_file_is_refused(root: Path) -> None:
    (write_mmbench(root) / "MMBench_DEV_CN.tsv").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match=r"CN\.tsv: column 'index' is missing"):
        open_dataset(load_task("mmbench"))
