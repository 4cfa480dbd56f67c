"""Task files: names, groups, paths, hashes."""

from dataclasses import replace
from pathlib import Path

import pytest

from mpm_eval.errors import UserError
from mpm_eval.resources import shipped
from mpm_eval.tasks import expand, groups, list_tasks, load_task
from tests.conftest import write_task
from tests.stages.paint_runs import paint_task


def test_a_group_is_its_tasks_each_once() -> None:
    names = [task.name for task in expand(["transfer", "transfer_de"])]
    assert names == ["transfer_caption", "transfer_de", "transfer_es", "transfer_fr", "transfer_zh"]


def test_a_path_to_a_shipped_task_is_that_task() -> None:
    by_path = str(shipped("tasks") / "transfer_de.toml")
    (task,) = expand([by_path, "transfer_de"])
    assert task == replace(load_task("transfer_de"), path=by_path)


def test_a_shipped_task_carries_no_path_of_this_machine() -> None:
    assert {task.path for task in list_tasks()} == {""}


@pytest.mark.parametrize("name", ["trasfer_de", "../tasks/transfer_de", ""])
def test_a_name_that_is_no_task_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"unknown task '{name}'"):
        load_task(name)


def test_a_group_never_has_the_name_of_a_task() -> None:
    assert not set(groups()) & {task.name for task in list_tasks()}


def test_the_hash_changes_with_the_prompt_and_not_with_the_description(tmp_path: Path) -> None:
    path = write_task(tmp_path)
    before = load_task(path).sha256
    path.write_text(path.read_text().replace("Name the colour.", "Say its colour."))
    assert load_task(path).sha256 == before
    path.write_text(path.read_text().replace("Was ist das?", "Was siehst du?"))
    assert load_task(path).sha256 != before


def test_the_hash_changes_with_the_data_and_not_with_layout_or_groups(tmp_path: Path) -> None:
    path = write_task(tmp_path)
    before = load_task(path).sha256
    text = path.read_text()
    path.write_text(f'# comment\ngroups = ["g"]\nlicence = "MIT"\ncitation = "us"\n{text}\n')
    assert load_task(path).sha256 == before
    path.write_text(text.replace('path = "pictures"', 'path = "photos"'))
    assert load_task(path).sha256 != before


def test_two_different_tasks_of_one_name_are_refused(tmp_path: Path) -> None:
    first, second = write_task(tmp_path / "a"), write_task(tmp_path / "b")
    with pytest.raises(UserError, match="two tasks are called 'small'"):
        expand([str(first), str(second)])


def test_a_computed_field_cannot_be_written(tmp_path: Path) -> None:
    path = write_task(tmp_path)
    path.write_text('sha256 = "x"\n' + path.read_text())
    with pytest.raises(UserError, match="key 'sha256' is computed"):
        load_task(path)


PROMPT = 'en = "What is this?"'


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("version = 1", "verson = 1", "unknown key 'verson'; did you mean 'version'? known: "),
        ("version = 1", "", "key 'version' is missing"),
        ("version = 1", "version = true", "version: expected an integer, got a boolean"),
        ("version = 1", "version = 0", "version: must be at least 1, got 0"),
        ("version = 1", "version = 1\nmax_new_tokens = 0", "max_new_tokens: must be at least 1, got 0"),
        ("version = 1", 'version = 1\nname = "other"', "name: 'other' must equal the file's name 'small'"),
        ("version = 1", 'version = 1\npivot = "fr"', "pivot: unknown language 'fr'; known: de, en"),
        ("version = 1", 'version = 1\nmain_subset = "cel=x"', "main_subset: 'cel=x' names no subset; write category=NAME or cell=NAME"),
        ('"Name the colour."', '" "', "description: is empty; say what the task measures"),
        ('"generate"', '"generat"', "kind: unknown kind 'generat'; did you mean 'generate'? known: choose, generate, paint, probe, retrieve"),
        ('kind = "generate"', 'kind = "probe"', "metrics: unknown metric 'exact_match'; known: cka, "),
        ('kind = "generate"', 'kind = "choose"', "metrics: 'exact_match' cannot score kind 'choose', only generate"),
        ('["en", "de"]', '["en", "dee"]', "languages: unknown language 'dee'; did you mean 'de'?"),
        ('["en", "de"]', '["en", "de", "de"]', "languages: 'de' is listed twice"),
        ('["en", "de"]', "[]", "languages: is empty"),
        ('["exact_match"]', "[]", "metrics: is empty"),
        ('["exact_match"]', '["exact_match", "exact_match"]', "metrics: 'exact_match' is listed twice"),
        ('["exact_match"]', '["exactmatch"]', "metrics: unknown metric 'exactmatch'; did you mean 'exact_match'?"),
        ('main_metric = "exact_match"', 'main_metric = "chrf"', "main_metric: unknown metric 'chrf'; known: exact_match"),
        ('"jsonl"', '"json"', "data.source: unknown source 'json'; did you mean 'jsonl'?"),
        ('"jsonl"', "2024-01-31", "data: source: is read as a date"),
        (PROMPT, "", "prompts.en: is missing; every language needs a prompt"),
        (PROMPT, 'en = " "', "prompts.en: is missing"),
        (PROMPT, f'{PROMPT}\nfr = "Quoi?"', "prompts: unknown language 'fr'; known: de, en"),
        (PROMPT, 'en = "{thing}?"', "prompts.en: unknown placeholder {thing}; only {question} is filled in"),
        (PROMPT, 'en = "{ question }?"', "prompts.en: unknown placeholder { question }"),
        (PROMPT, 'en = "{question!r}?"', "prompts.en: unknown placeholder {question!r}"),
        (PROMPT, 'en = "{}?"', "prompts.en: unknown placeholder {}"),
        ('path = "pictures"', "path = 2024-01-31", "data: path: is read as a date"),
    ],
)  # fmt: skip
def test_a_mistake_names_file_and_field(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = write_task(tmp_path, number=1)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(UserError) as caught:
        load_task(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


def test_a_probe_asks_nothing(tmp_path: Path) -> None:
    path = write_task(tmp_path, number=1)
    text = path.read_text().replace('"generate"', '"probe"').replace("exact_match", "retrieval_p1")
    path.write_text(text)
    with pytest.raises(UserError, match="prompts: a task of kind 'probe' asks nothing"):
        load_task(path)
    path.write_text(text[: text.index("[prompts]")])
    assert load_task(path).prompts == {}


def test_json_in_a_prompt_is_text(tmp_path: Path) -> None:
    path = write_task(tmp_path, number=1)
    prompt = 'Answer as {"name": "…"}: {question}'
    path.write_text(path.read_text().replace('"What is this?"', f"'{prompt}'"))
    assert load_task(path).prompts["en"] == prompt


def test_one_language_needs_no_pivot_among_its_languages(tmp_path: Path) -> None:
    path = write_task(tmp_path, number=1)
    text = path.read_text().replace('["en", "de"]', '["de"]').replace(PROMPT, "")
    path.write_text(text)
    assert load_task(path).languages == ("de",)


def test_languages_that_are_not_parallel_have_no_pivot(tmp_path: Path) -> None:
    path = write_task(tmp_path, number=1)
    path.write_text(path.read_text().replace("version = 1", 'version = 1\npivot = ""'))
    assert load_task(path).pivot == ""


def test_a_ranking_task_asks_nothing(tmp_path: Path) -> None:
    path = write_task(tmp_path, number=1)
    text = (
        path.read_text().replace('"generate"', '"retrieve"').replace("exact_match", "recall_at_1")
    )
    path.write_text(text)
    with pytest.raises(UserError, match="prompts: a task of kind 'retrieve' asks nothing"):
        load_task(path)
    path.write_text(text[: text.index("[prompts]")])
    assert load_task(path).metrics == ("recall_at_1",)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("size = 16", "size = 4", "painting.size: must be from 8 to 8192 pixels, or 0"),
        ("size = 16", "size = 16.5", "painting: size: expected an integer"),
        ("size = 16", "images_per_prompt = 0", "painting.images_per_prompt: must be at least 1"),
        ("size = 16", "side = 16", "painting: unknown key 'side'"),
        ("[painting]\nsize = 16\n", "", "painting: a task of kind 'paint' needs a table"),
        ('kind = "paint"', 'kind = "generate"', "painting: a task of kind 'generate' has no table"),
        ('"clip_score"', '"clipscore"', "metrics: unknown metric 'clipscore'; did you mean 'clip_score'"),
        ('"clip_score"', '"exact_match"', "metrics: unknown metric 'exact_match'"),
        # only Inception's features give a FID
        ('"fd_efficientnet_lite0"', '"fid"', "metrics: unknown metric 'fid'"),
        ("size = 16", 'extractor = "hf:acme/DINO-v2@abc"', "metrics: unknown metric 'fd_efficientnet_lite0'"),
        ('en = "{question}"', 'en = ""', "prompts.en: is missing"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_task_that_paints_is_named(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = paint_task(tmp_path)
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")
    with pytest.raises(UserError) as caught:
        load_task(path)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_a_distance_is_named_after_what_it_measures_features_with(tmp_path: Path) -> None:
    metrics = ["fd_dino_v2", "kid_dino_v2", "diversity"]
    path = paint_task(tmp_path, metrics=metrics, extractor="hf:acme/DINO-v2@abc")
    assert load_task(path).metrics == tuple(metrics)
    path = paint_task(tmp_path, metrics=["fid", "kid"], extractor="inception:weights.pth:clean")
    assert load_task(path).metrics == ("fid", "kid")


def test_the_hash_changes_with_how_is_painted(tmp_path: Path) -> None:
    one, other = (load_task(paint_task(tmp_path, size=size)).sha256 for size in (16, 32))
    assert one != other
