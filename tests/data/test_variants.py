"""Controls change exactly what they say; paraphrases ask the same sample in other words."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpm_eval.data import open_dataset
from mpm_eval.data.variants import CONTROLS, derangement
from mpm_eval.errors import UserError
from mpm_eval.schema import Task
from mpm_eval.tasks import load_task
from tests.conftest import write_task


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return load_task(write_task(tmp_path))


PICTURE_CONTROLS = ("blank", "shuffled", "blind")


@pytest.mark.parametrize("control", PICTURE_CONTROLS)
def test_a_control_keeps_ids_questions_and_references(task: Task, control: str) -> None:
    plain, changed = open_dataset(task), open_dataset(task, control)
    assert changed.sha256 == plain.sha256
    for tag in task.languages:
        kept = [(s.id, s.question, s.references, s.cluster) for s in plain.samples(tag)]
        assert [(s.id, s.question, s.references, s.cluster) for s in changed.samples(tag)] == kept


def test_blank_pictures_are_one_grey_of_the_same_size(task: Task) -> None:
    dataset = open_dataset(task, "blank")
    for sample in dataset.samples("en"):
        assert sample.image is not None
        picture = dataset.load_image(sample.image)
        assert picture.size == (16, 16)
        assert picture.getcolors() == [(256, (128, 128, 128))]


def test_blind_samples_have_no_picture(task: Task) -> None:
    assert {s.image for s in open_dataset(task, "blind").samples("de")} == {None}


def test_shuffled_pictures_are_those_of_other_samples_each_used_once(task: Task) -> None:
    plain, changed = open_dataset(task), open_dataset(task, "shuffled")
    own = {s.id: s.image for s in plain.samples("en")}
    for tag in task.languages:
        shown = {s.id: s.image for s in changed.samples(tag)}
        assert all(own[sample] != shown[sample] for sample in own)
        assert Counter(own.values()) == Counter(shown.values())
    assert {s.key: s.image for s in changed.samples("en")} == {
        (s.id, "en"): s.image for s in changed.samples("de")
    }


@pytest.mark.parametrize("control", ["blank", "shuffled"])
def test_a_changed_picture_has_another_key(task: Task, control: str) -> None:
    # a backend may keep what it made of a key
    plain = {s.id: s.image for s in open_dataset(task).samples("en")}
    assert all(plain[s.id] != s.image for s in open_dataset(task, control).samples("en"))


@given(st.lists(st.integers(0, 6), min_size=2, max_size=40))
def test_a_derangement_leaves_no_picture_in_its_cluster(groups: list[int]) -> None:
    clusters = {f"p{i}": f"c{group}" for i, group in enumerate(groups)}
    if 2 * max(Counter(groups).values()) > len(groups):
        with pytest.raises(UserError, match="no other picture is left"):
            derangement(clusters, "small")
        return
    other = derangement(clusters, "small")
    assert sorted(other.values()) == sorted(clusters)
    assert all(clusters[key] != clusters[other[key]] for key in clusters)


def test_an_unknown_control_is_named_with_the_known_ones(task: Task) -> None:
    with pytest.raises(UserError, match="did you mean 'blank'"):
        open_dataset(task, "blanc")
    assert set(PICTURE_CONTROLS) < set(CONTROLS)


@pytest.mark.parametrize("control", PICTURE_CONTROLS)
def test_data_without_pictures_have_no_picture_control(tmp_path: Path, control: str) -> None:
    with pytest.raises(UserError, match="has no pictures"):
        open_dataset(text_task(tmp_path), control)


def text_task(folder: Path, translation: str = "", extra: str = "") -> Task:
    rows = folder / "rows"
    rows.mkdir(exist_ok=True)
    (rows / "samples.jsonl").write_text(
        '{"id": "1", "language": "en", "question": "What barks?", "references": ["dog"]}\n'
        '{"id": "1", "language": "de", "question": "Was bellt?", "references": ["Hund"]'
        f"{translation}}}\n",
        encoding="utf-8",
    )
    path = folder / "text.toml"
    path.write_text(
        'version = 1\nkind = "generate"\ndescription = "x"\nlanguages = ["en", "de"]\n'
        'metrics = ["exact_match"]\nmain_metric = "exact_match"\n'
        f'[data]\nsource = "jsonl"\npath = "rows"\n[prompts]\nen = "Q: {{question}}"\n'
        f'de = "F: {{question}}"\n{extra}',
        encoding="utf-8",
    )
    return load_task(path)


def test_translate_test_asks_the_translation_and_expects_the_pivot_s_answer(tmp_path: Path) -> None:
    dataset = open_dataset(
        text_task(tmp_path, ', "translation": "What is barking?"'), "translate-test"
    )
    (sample,) = dataset.samples("de")
    assert (sample.language, sample.question) == ("de", "What is barking?")
    assert (sample.prompt, sample.references) == ("Q: {question}", ("dog",))


def test_translate_test_without_translations_says_which_sample_lacks_one(tmp_path: Path) -> None:
    dataset = open_dataset(text_task(tmp_path), "translate-test")
    with pytest.raises(UserError, match=r"sample '1' \(de\): has no field 'translation'"):
        dataset.samples("de")


PARAPHRASES = """
[paraphrases]
en = ["Question: {question}"]
de = ["Frage: {question}"]
"""


def test_paraphrases_ask_every_sample_once_per_prompt(tmp_path: Path) -> None:
    samples = open_dataset(text_task(tmp_path, extra=PARAPHRASES)).samples("de")
    assert [(s.id, s.prompt, s.category) for s in samples] == [
        ("1#1", "F: {question}", "prompt 1"),
        ("1#2", "Frage: {question}", "prompt 2"),
    ]
    assert {s.cluster for s in samples} == {"1"}


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ('[paraphrases]\nen = ["a", "b"]\nde = ["c"]\n', "paraphrases.de: 1 paraphrases, other"),
        ('[paraphrases]\nen = ["a"]\n', "paraphrases.de: 0 paraphrases, other languages have 1"),
        ('[paraphrases]\nen = ["Q: {question}"]\nde = ["c"]\n', "empty or given twice"),
        ('[paraphrases]\nen = [" "]\nde = ["c"]\n', "empty or given twice"),
        ('[paraphrases]\nen = ["{name}"]\nde = ["c"]\n', "unknown placeholder {name}"),
        ('[paraphrases]\nen = ["a"]\nde = ["c"]\nfr = ["d"]\n', "unknown language 'fr'"),
    ],
)
def test_bad_paraphrases_are_one_line(tmp_path: Path, extra: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        text_task(tmp_path, extra=extra)
    assert message in str(error.value)
