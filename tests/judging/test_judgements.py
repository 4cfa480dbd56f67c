"""The file of judgements: one judge, one protocol, nothing lost and nothing twice."""

from dataclasses import replace
from pathlib import Path

import pytest

from mpm_eval.errors import UserError
from mpm_eval.judging.judgements import JudgementFile, read_judgements, read_judging
from mpm_eval.judging.protocol import Judging, Reply, judgement_of
from mpm_eval.schema import Judgement
from tests.judging.conftest import requests

JUDGING = Judging("openai:tiny", {"base_url": "http://a/v1"}, "llava", 1)


def judgement(text: str, number: int = 0) -> Judgement:
    return judgement_of(JUDGING, requests(number + 1, JUDGING)[number], Reply(text))


def write(folder: Path, *judgements: Judgement, judging: Judging = JUDGING) -> None:
    with JudgementFile.open(folder, judging) as file:
        for one in judgements:
            file.append(one)


def test_judgements_come_back_as_they_were_with_their_judge(tmp_path: Path) -> None:
    one, two = judgement("8 7\n\u2028 好", 0), judgement("no scores", 1)
    write(tmp_path, one, two)
    assert list(read_judgements(tmp_path).values()) == [one, two]
    assert read_judging(tmp_path) == JUDGING


def test_the_last_judgement_of_a_request_counts(tmp_path: Path) -> None:
    write(tmp_path, judgement("?"), judgement("8 7"))
    assert [j.scores for j in read_judgements(tmp_path).values()] == [(8, 7)]


def test_half_a_last_line_is_cut_and_never_read(tmp_path: Path) -> None:
    write(tmp_path, judgement("8 7"))
    path = tmp_path / "judgements.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cut off when judging stopped"):
        read_judgements(tmp_path)
    write(tmp_path)
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"mode": "robust"}, "mode was 'llava', is 'robust'"),
        ({"judge": "openai:other"}, "judge was 'openai:tiny', is 'openai:other'"),
        ({"settings": {"base_url": "http://b/v1"}}, "settings was {'base_url': 'http://a/v1'}"),
        ({"max_reply_tokens": 180}, "max_reply_tokens was 1024, is 180"),
        ({"parser_version": 0}, "parser_version was 1, is 0"),
        ({"prompts_sha256": "x"}, "prompts_sha256 was"),
    ],
)
def test_two_judges_or_protocols_never_share_a_file(
    tmp_path: Path, change: dict[str, object], difference: str
) -> None:
    write(tmp_path, judgement("8 7"))
    with pytest.raises(UserError, match="judged with something else") as caught:
        write(tmp_path, judging=replace(JUDGING, **change))  # type: ignore[arg-type]
    assert difference in str(caught.value)


def test_a_judge_that_never_answered_may_be_replaced(tmp_path: Path) -> None:
    write(tmp_path)
    other = replace(JUDGING, judge="openai:other")
    write(tmp_path, judging=other)
    assert read_judging(tmp_path) == other


def test_repeats_may_grow(tmp_path: Path) -> None:
    robust = replace(JUDGING, mode="robust")
    write(tmp_path, judgement("8 7"), judging=robust)
    write(tmp_path, judging=replace(robust, repeats=3))
    assert read_judging(tmp_path) == replace(robust, repeats=3)


def test_judgements_that_no_one_signed_are_refused(tmp_path: Path) -> None:
    write(tmp_path, judgement("8 7"))
    (tmp_path / "judge.json").unlink()
    with pytest.raises(UserError, match="nothing says who judged"):
        write(tmp_path)


def test_a_folder_is_written_by_one_process_at_a_time(tmp_path: Path) -> None:
    with (
        JudgementFile.open(tmp_path, JUDGING),
        pytest.raises(UserError, match="another process is writing here"),
    ):
        write(tmp_path)
    write(tmp_path, judgement("8 7"))


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "judgements.jsonl").write_text('{"id": "0"}\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"judgements\.jsonl:1: key 'language' is missing"):
        read_judgements(tmp_path)
