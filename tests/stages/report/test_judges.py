"""Judge health from judge_quality.json; a run without a judge has none."""

from pathlib import Path

from mpm_eval.judging.protocol import Judging
from mpm_eval.judging.quality import judge_quality
from mpm_eval.schema import Judgement
from mpm_eval.stages.judge import QUALITY
from mpm_eval.stages.report import write_report
from mpm_eval.stages.report.gather import gather
from mpm_eval.stages.report.judges import judge_health
from mpm_eval.strict import write_json


def judgement(id_: str, order: str, scores: tuple[float, float] | None) -> Judgement:
    error = "" if scores else "no numbers in the first line"
    return Judgement(id_, "en", "j", "robust", order, 0, f"{id_}{order}", "", scores, error)


def test_a_run_without_a_judge_has_no_judge_health(scored_run: Path) -> None:
    assert judge_health(gather([scored_run])) == []
    assert "Judges" not in write_report([scored_run]).path.read_text(encoding="utf-8")


def test_counts_swaps_and_failures_are_shown(scored_run: Path) -> None:
    judgements = [
        judgement("0", "reference-first", (5, 8)),
        judgement("0", "candidate-first", (6, 9)),
        judgement("1", "reference-first", (8, 5)),
        judgement("1", "candidate-first", (5, 8)),
        judgement("2", "reference-first", None),
    ]
    quality = judge_quality(Judging("openai:<b>", {}, "robust", 1), judgements, 6)
    write_json(scored_run / "animals" / QUALITY, quality)
    (found,) = judge_health(gather([scored_run]))
    assert found.judge == "openai:<b>, mode robust"
    assert found.counts == ("6", "4", "1", "1")
    assert (found.same_after_swap, found.same_when_repeated) == ("50 %", "–")
    html = write_report([scored_run]).path.read_text(encoding="utf-8")
    assert "openai:&lt;b&gt;, mode robust" in html
    assert "no numbers in the first line: 1" in html


def test_a_broken_file_is_a_problem_and_not_the_end(scored_run: Path) -> None:
    (scored_run / "animals" / QUALITY).write_text("{", encoding="utf-8")
    (found,) = judge_health(gather([scored_run]))
    assert "not valid JSON" in found.problem
    assert found.counts == ("–", "–", "–", "–")
