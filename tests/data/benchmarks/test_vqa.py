"""xGQA and MaXM: official files to samples, and what mistakes say."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpm_eval.data import open_dataset
from mpm_eval.errors import CorruptImage, UserError
from mpm_eval.tasks import load_task
from tests.data.benchmarks.conftest import MAXM, XGQA, write_json, write_maxm, write_xgqa


def change_json(path: Path, change: Callable[[Any], object]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    write_json(path, content)


def test_xgqa_asks_in_each_language_and_expects_the_english_label(root: Path) -> None:
    write_xgqa(root)
    dataset = open_dataset(load_task("xgqa"))
    for tag in XGQA:
        samples = dataset.samples(tag)
        assert [(s.id, s.references[0]) for s in samples] == [
            ("101", "yes"), ("102", "red"), ("103", "left")]  # fmt: skip
        assert samples[0].question == f"{tag} 101?"
        assert [s.cluster for s in samples] == ["n1.jpg", "n1.jpg", "n2.jpg"]
        assert [s.category for s in samples] == ["verify", "query", "choose"]
    assert dataset.load_image("n2.jpg").size == (8, 6)
    assert dataset.description["parallel"] == "yes"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda q: q["102"].pop("answer"), "ko/test.json: 102: key 'answer' is missing"),
        (lambda q: q["102"].update(question=3), "ko/test.json: 102: question: expected a string, got an integer"),
        (lambda q: q.update({"104": ["x"]}), "ko/test.json: 104: expected an object {…}, got list"),
        (lambda q: q["102"].update(imageId="n9"), "ko/test.json: 102: imageId 'n9' and answer 'red', in another language 'n1' and 'red'"),
        (lambda q: q["102"].update(answer="빨강"), "ko/test.json: 102: imageId 'n1' and answer '빨강', in another"),
        (lambda q: q["102"].update(answer=" "), "ko/test.json: 102: imageId"),
        (lambda q: q.clear(), "no samples in ko"),
    ],
)  # fmt: skip
def test_a_bad_question_of_xgqa_is_named(
    root: Path, change: Callable[[Any], object], message: str
) -> None:
    change_json(write_xgqa(root) / "ko/test.json", change)
    with pytest.raises(UserError) as caught:
        open_dataset(load_task("xgqa"))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_list_where_xgqa_has_an_object_is_refused(root: Path) -> None:
    write_json(write_xgqa(root) / "en/test.json", [])
    with pytest.raises(UserError, match=r"en/test\.json: expected an object of question id"):
        open_dataset(load_task("xgqa"))


def test_a_question_that_one_language_lacks_is_said_in_the_description(root: Path) -> None:
    change_json(write_xgqa(root) / "ko/test.json", lambda questions: questions.pop("103"))
    dataset = open_dataset(load_task("xgqa"))
    assert dataset.description["parallel"] == "no: 1 ids are not in every language"


def test_a_missing_file_says_where_it_comes_from(root: Path) -> None:
    (write_xgqa(root) / "bn/test.json").unlink()
    with pytest.raises(UserError) as caught:
        open_dataset(load_task("xgqa"))
    assert (
        "xgqa/data/few_shot/bn/test.json: no such file; get it from https://github.com/Adapter-Hub/xGQA"
        in str(caught.value)
    )


def test_the_hash_is_of_questions_and_answers_not_of_pictures(root: Path) -> None:
    folder = write_xgqa(root)
    before = open_dataset(load_task("xgqa")).sha256
    (root / "gqa/images/n1.jpg").unlink()
    assert open_dataset(load_task("xgqa")).sha256 == before
    change_json(folder / "zh/test.json", lambda questions: questions["101"].update(question="？"))
    assert open_dataset(load_task("xgqa")).sha256 != before


def test_a_picture_that_is_broken_or_missing_fails_alone(root: Path) -> None:
    write_xgqa(root)
    (root / "gqa/images/n1.jpg").write_bytes(b"no picture")
    dataset = open_dataset(load_task("xgqa"))
    with pytest.raises(CorruptImage, match=r"n1\.jpg: cannot be decoded"):
        dataset.load_image("n1.jpg")
    (root / "gqa/images/n1.jpg").unlink()
    with pytest.raises(CorruptImage, match=r"n1\.jpg: no such picture in "):
        dataset.load_image("n1.jpg")


def test_no_picture_at_all_is_the_users_to_mend(root: Path) -> None:
    write_xgqa(root)
    for path in (root / "gqa/images").iterdir():
        path.unlink()
    with pytest.raises(
        UserError, match=r"xgqa: no picture of the set is in .*; put them there, see"
    ):
        open_dataset(load_task("xgqa")).load_image("n1.jpg")


def test_maxm_has_the_answers_and_their_processed_forms_as_references(root: Path) -> None:
    write_maxm(root)
    dataset = open_dataset(load_task("maxm"))
    for tag, code in MAXM.items():
        first, second = dataset.samples(tag)
        assert (first.id, first.question) == (f"{tag}/0", f"{code} 0?")
        assert first.references == ("Two", "a pair", "two")
        assert (first.category, second.category) == ("single", "collection")
    assert dataset.load_image("00ab.jpg").size == (8, 6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(split="he"), "maxm_v1_iw.json: split is 'he', expected 'iw'; is it the file of another"),
        (lambda c: c.pop("annotations"), "maxm_v1_iw.json: key 'annotations': expected a list"),
        (lambda c: c["annotations"][0].pop("image_id"), "maxm_v1_iw.json: annotations[0]: key 'image_id' is missing"),
        (lambda c: c["annotations"][0]["qa_pairs"][1].pop("question_id"), "maxm_v1_iw.json: annotations[0]: key 'question_id' is missing"),
        (lambda c: c["annotations"][0]["qa_pairs"][1].update(question_id="0"), "maxm_v1_iw.json: annotations[0]: field 'id': 'he/0'"),
        (lambda c: c["annotations"][0]["qa_pairs"][1].update(answers=[], processed_answers=[]), "field 'references': is empty"),
        (lambda c: c["annotations"].clear(), "no samples in he"),
    ],
)  # fmt: skip
def test_a_bad_picture_of_maxm_is_named(
    root: Path, change: Callable[[Any], object], message: str
) -> None:
    change_json(write_maxm(root) / "maxm_v1_iw.json", change)
    with pytest.raises(UserError) as caught:
        open_dataset(load_task("maxm"))
    assert message in str(caught.value) and "\n" not in str(caught.value)
