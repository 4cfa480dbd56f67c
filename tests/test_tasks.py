"""Task files: names, groups, paths, hashes."""

from pathlib import Path

import pytest

from mpm_eval.errors import UserError
from mpm_eval.tasks import expand, groups, list_tasks, load_task
from tests.conftest import write_task


def test_a_group_is_its_tasks_each_once() -> None:
    names = [task.name for task in expand(["transfer", "transfer_de"])]
    assert names == ["transfer_de", "transfer_es", "transfer_fr", "transfer_zh"]


def test_a_group_never_has_the_name_of_a_task() -> None:
    assert not set(groups()) & {task.name for task in list_tasks()}


def test_the_hash_changes_with_the_prompt_and_not_with_the_description(tmp_path: Path) -> None:
    path = write_task(tmp_path)
    before = load_task(path).sha256
    path.write_text(path.read_text().replace("Name the colour.", "Say its colour."))
    assert load_task(path).sha256 == before
    path.write_text(path.read_text().replace("Was ist das?", "Was siehst du?"))
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
