"""Every task file that is shipped: it loads, and yields the same samples in every language."""

import pytest

from mpm_eval.data import open_dataset
from mpm_eval.data.emoji_qa import caption_prompts
from mpm_eval.languages import EMOJI_LANGUAGES
from mpm_eval.tasks import list_tasks

pytestmark = pytest.mark.slow  # all shipped data is read

# the files of other tasks are the user's to download: see test_llava.py and benchmarks/
TASKS = {task.name: task for task in list_tasks() if str(task.data["source"]).startswith("emoji")}


def test_the_shipped_tasks_are_these() -> None:
    assert set(TASKS) == {
        "alignment",
        "emoji_caption",
        "emoji_caption_validation",
        "emoji_choice",
        "emoji_choice_prompts",
        "emoji_choice_validation",
        "emoji_paint",
        "emoji_qa",
        "image_text_alignment",
        "llava_zh",
        "transfer_caption",
        "transfer_de",
        "transfer_es",
        "transfer_fr",
        "transfer_zh",
    }


@pytest.mark.parametrize("name", sorted(TASKS))
def test_a_shipped_task_yields_parallel_samples_in_every_language(name: str) -> None:
    task = TASKS[name]
    dataset = open_dataset(task)
    assert len(dataset.sha256) == 64
    ids = [s.id for s in dataset.samples("en")]
    assert len(set(ids)) == len(ids) > 0
    for language in task.languages:
        samples = dataset.samples(language)
        assert [s.id for s in samples] == ids
        assert all(s.language == language and s.references and s.references[0] for s in samples)
        assert all(bool(s.options) == (task.kind == "choose") for s in samples)
    pictures = {s.image for s in dataset.samples("en")[:20]}
    assert all(key is None or dataset.load_image(key).size == (64, 64) for key in pictures)


@pytest.mark.parametrize("name", sorted(TASKS))
def test_a_shipped_task_names_licence_and_source(name: str) -> None:
    task = TASKS[name]
    assert task.licence and task.citation and task.description
    assert task.version >= 1 and task.pivot == "en" and task.languages[0] == "en"


@pytest.mark.parametrize(
    "name",
    [n for n, t in sorted(TASKS.items()) if t.data["source"] == "emoji" and t.kind != "probe"],
)
def test_prompts_are_the_caption_prompts_of_training(name: str) -> None:
    task = TASKS[name]
    assert task.prompts == {tag: caption_prompts()[tag] for tag in task.languages}


def test_captions_and_choices_are_in_all_sixteen_languages() -> None:
    for name in ("emoji_caption", "emoji_choice", "alignment", "image_text_alignment"):
        assert TASKS[name].languages == EMOJI_LANGUAGES


def test_transfer_tasks_ask_the_same_english_questions() -> None:
    asked = [
        [(s.id, s.options, s.answer) for s in open_dataset(task).samples("en")]
        for name, task in TASKS.items()
        if name.startswith("transfer_") and task.kind == "choose"
    ]
    assert len(asked) == 4
    assert all(one == asked[0] for one in asked)


def test_the_quick_tasks_stay_small() -> None:
    for name, limit in (("transfer_de", 1200), ("llava_zh", 600), ("alignment", 1000)):
        assert len(open_dataset(TASKS[name]).samples("en")) <= limit
