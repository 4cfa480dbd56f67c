"""Parallel sentences in plain files: lines, lengths, and a probe from start to end."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpm_eval.data import open_dataset
from mpm_eval.data.parallel_text import open_parallel_text
from mpm_eval.errors import UserError
from mpm_eval.schema import Task
from tests.conftest import Command

Make = Callable[..., Task]
EN = ["A man sleeps .", "Two dogs run .", "A red bus ."]
ZH = ["一个男人在睡觉。", "两只狗在跑。", "一辆红色的公交车。"]


def write(folder: Path, en: str, zh: str) -> None:
    (folder / "corpus").mkdir(exist_ok=True)
    (folder / "corpus" / "test.en").write_bytes(en.encode())
    (folder / "corpus" / "test.zh").write_bytes(zh.encode())


@pytest.fixture
def task(make_task: Make, tmp_path: Path) -> Task:
    write(tmp_path, "\n".join(EN) + "\n", "\n".join(ZH) + "\n")
    return make_task("probe", source="parallel_text", path="corpus", files="test.{language}")


def test_line_i_means_the_same_in_every_language(task: Task) -> None:
    dataset = open_dataset(task)
    for language, texts in (("en", EN), ("zh", ZH)):
        samples = dataset.samples(language)
        assert [s.question for s in samples] == texts
        assert [(s.id, s.cluster, s.language) for s in samples] == [
            (str(k), str(k), language) for k in (1, 2, 3)
        ]
    assert dataset.description["lines"] == "3"


def test_windows_line_ends_marks_and_a_missing_last_line_end_change_nothing(
    task: Task, tmp_path: Path
) -> None:
    before = open_parallel_text(task)
    write(tmp_path, "\ufeff" + "\r\n".join(EN), "\n".join(ZH))
    after = open_parallel_text(task)
    assert after.samples("en") == before.samples("en") and after.sha256 == before.sha256


def test_a_line_separator_inside_a_sentence_is_no_new_line(task: Task, tmp_path: Path) -> None:
    write(tmp_path, "one\u2028two\nthree", "一\n三")
    assert [s.question for s in open_parallel_text(task).samples("en")] == ["one\u2028two", "three"]


def test_other_words_have_another_hash(task: Task, tmp_path: Path) -> None:
    before = open_parallel_text(task).sha256
    write(tmp_path, "\n".join([*EN[:2], "A blue bus ."]), "\n".join(ZH))
    assert open_parallel_text(task).sha256 != before


def test_the_first_sentences_may_be_asked_for(make_task: Make, task: Task) -> None:
    few = make_task(
        "probe", source="parallel_text", path="corpus", files="test.{language}", count=2
    )
    assert len(open_parallel_text(few).samples("zh")) == 2


@pytest.mark.parametrize(
    ("en", "zh", "message"),
    [
        ("a\nb\n", "一\n", "test.zh has 1 lines and test.en has 2; line i must mean the same"),
        ("a\n\nb\n", "一\n二\n三\n", r"test\.en:2: empty line"),
        ("a\n \t\nb\n", "一\n二\n三\n", r"test\.en:2: empty line"),
        ("a\n\n", "一\n", r"test\.en:2: empty line"),
        ("", "一\n", r"test\.en: is empty"),
        ("\n", "一\n", r"test\.en:1: empty line"),
    ],
)
def test_lines_that_do_not_pair_are_refused(
    task: Task, tmp_path: Path, en: str, zh: str, message: str
) -> None:
    write(tmp_path, en, zh)
    with pytest.raises(UserError, match=message):
        open_parallel_text(task)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"path": "nowhere"}, "no folder"),
        ({"path": "corpus", "files": "train.{language}"}, r"no file .*train\.en"),
        ({"path": "corpus", "files": "test.en"}, "'test.en' has no {language}"),
        ({"path": "corpus", "files": "../{language}.txt"}, "lies outside"),
        ({"path": "corpus", "files": "test.{language}", "count": -1}, "count: must be at least 0"),
        ({"path": "corpus", "file": "x"}, "unknown key 'file'"),
    ],
)
def test_a_wrong_table_is_refused(
    make_task: Make, task: Task, data: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        open_parallel_text(make_task("probe", source="parallel_text", **data))


def test_only_a_probe_reads_sentences(make_task: Make, task: Task) -> None:
    asked = make_task("generate", source="parallel_text", path="corpus")
    with pytest.raises(UserError, match=r'sentences ask nothing.*set kind = "probe"'):
        open_parallel_text(asked)


def test_bytes_that_are_no_text_are_refused(task: Task, tmp_path: Path) -> None:
    (tmp_path / "corpus" / "test.zh").write_bytes(b"\xff\xfe\n")
    with pytest.raises(UserError, match=r"test\.zh: not UTF-8"):
        open_parallel_text(task)


@pytest.mark.slow
def test_a_corpus_is_probed_from_files_to_scores(mpm_eval: Command, tmp_path: Path) -> None:
    write(
        tmp_path,
        "".join(f"sentence {k}\n" for k in range(12)),
        "".join(f"句子 {k}\n" for k in range(12)),
    )
    (tmp_path / "captions.toml").write_text(
        """
version = 1
kind = "probe"
description = "Are captions aligned?"
languages = ["en", "zh"]
metrics = ["retrieval_p1", "retrieval_p1_floor", "cka"]
main_metric = "retrieval_p1"

[data]
source = "parallel_text"
path = "corpus"
files = "test.{language}"
"""
    )
    done = mpm_eval("run", "--task", "captions.toml", "--model", "echo", "--out", "run", "--json")
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)
    values = {s["metric"]: s["value"] for s in result["scores"] if not s["subset"]}
    assert set(values) == {"retrieval_p1", "retrieval_p1_floor", "cka"}
    assert values["retrieval_p1"] <= values["retrieval_p1_floor"] + 10, "echo aligns nothing"
