"""Judging a run with a live server: killed, restarted, failing; every judgement exactly once."""

import json
import os
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mpm_eval.endpoint import Patience
from mpm_eval.errors import UserError
from mpm_eval.items import read_items
from mpm_eval.judging.judges import open_judge
from mpm_eval.judging.protocol import Judging
from mpm_eval.schema import Prediction, Task
from mpm_eval.stages.judge import bounds, judge_run, llava_parser_score
from mpm_eval.stages.result_schema import load_result
from mpm_eval.stages.score import score_run
from mpm_eval.tasks import load_task
from tests.conftest import Command, command, environment
from tests.judging.conftest import KEY, StartServer, write_judged_task, write_llava
from tests.judging.conftest import own_server as own_server
from tests.judging.conftest import shared_server as shared_server
from tests.judging.conftest import start_server as start_server
from tests.stages.conftest import MakeRun

pytestmark = pytest.mark.slow  # servers and processes are started and killed

QUICK = Patience(timeout_s=0.5, tries=2, concurrency=2, first_backoff_s=0.01)


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MPM_EVAL_JUDGE_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return load_task(write_judged_task(tmp_path))


@pytest.fixture
def run(task: Task, make_run: MakeRun) -> Path:
    return make_run(task)


def judgements(run: Path) -> list[dict[str, Any]]:
    text = (run / "boats" / "judgements.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def pooled(run: Path) -> dict[str, Any]:
    (result,) = score_run(run)
    (row,) = [s for s in result["scores"] if s["metric"] == "relative_score" and not s["subset"]]
    notes = {n["name"]: n["value"] for n in result["notes"] if not n["subset"]}
    return {**row, **notes}


def test_the_score_is_the_ratio_of_sums_per_category_and_over_all(
    run: Path, start_server: StartServer
) -> None:
    judge_run(run, open_judge(start_server().spec, QUICK))
    (result,) = score_run(run)
    pairs = {j["id"]: j["scores"] for j in judgements(run)}
    values = {s["subset"]: s["value"] for s in result["scores"]}
    wanted = {"": pairs.values()} | {
        f"category={name}": [pairs[str(i)], pairs[str(i + 3)]]
        for i, name in enumerate(("conv", "detail", "complex"))
    }
    assert values == {
        subset: pytest.approx(100 * sum(p[1] for p in found) / sum(p[0] for p in found))
        for subset, found in wanted.items()
    }
    means = [value for subset, value in values.items() if subset]
    assert values[""] != pytest.approx(sum(means) / 3)  # the pooled ratio is no mean of them


def test_judging_again_asks_nothing_and_writes_the_same_bytes(
    run: Path, start_server: StartServer
) -> None:
    server = start_server()
    for _ in range(2):
        judge_run(run, open_judge(server.spec, QUICK))
        score_run(run)
        files = [(run / "boats" / n).read_bytes() for n in ("judgements.jsonl", "result.json")]
    assert len(server.asked()) == 6
    judge_run(run, open_judge(server.spec, QUICK))
    score_run(run)
    assert files == [(run / "boats" / n).read_bytes() for n in ("judgements.jsonl", "result.json")]


def test_failures_are_counted_with_bounds_and_asked_again_next_time(
    run: Path, start_server: StartServer
) -> None:
    server = start_server("unparsable", "refusal", "out-of-range", "ok")
    (outcome,) = judge_run(run, open_judge(server.spec, Patience(concurrency=1, tries=1)))
    assert outcome.quality["num_failed"] == 3 and not outcome.stopped
    row = pooled(run)
    assert (row["n"], row["n_failed"], row["n_judge_failed"]) == (3, 3, 3)
    good = [j["scores"] for j in judgements(run) if j["scores"]]
    reference, candidate = sum(p[0] for p in good), sum(p[1] for p in good)
    assert row["value"] == pytest.approx(100 * candidate / reference)
    assert row["score_if_failed_best"] == pytest.approx(100 * (candidate + 30) / (reference + 3))
    assert row["score_if_failed_worst"] == pytest.approx(100 * (candidate + 3) / (reference + 30))
    # what the server now answers takes the place of the failures
    judge_run(run, open_judge(server.spec, QUICK))
    assert pooled(run)["n_failed"] == 0
    assert len(judgements(run)) == 9 and len(server.asked()) == 9


def test_one_failed_judgement_leaves_the_score_of_the_others_unchanged(
    run: Path, start_server: StartServer
) -> None:
    judge_run(run, open_judge(start_server("ok").spec, QUICK))
    lines = judgements(run)
    lines[0] |= {"scores": None, "error": "HTTP 500"}
    path = run / "boats" / "judgements.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    row = pooled(run)
    reference, candidate = (sum(line["scores"][i] for line in lines[1:]) for i in (0, 1))
    assert row["value"] == pytest.approx(100 * candidate / reference) and row["n_failed"] == 1


def test_a_failed_judgement_fails_in_the_items_too(run: Path, start_server: StartServer) -> None:
    server = start_server("unparsable", "ok")
    judge_run(run, open_judge(server.spec, Patience(concurrency=1)))
    score_run(run)
    cell = read_items(run / "boats" / "items.parquet").cell("relative_score", "en")
    assert (len(cell.items), len(cell.failed)) == (5, 1)
    assert cell.statistics.shape == (5, 2)


def test_a_failed_prediction_is_not_judged_and_counts_as_failed(
    task: Task, make_run: MakeRun, start_server: StartServer
) -> None:
    failed = Prediction("2", "en", "?", error="corrupt picture")
    run = make_run(task, {("2", "en"): failed})
    server = start_server()
    judge_run(run, open_judge(server.spec, QUICK))
    assert len(server.asked()) == 5
    row = pooled(run)
    assert (row["n"], row["n_failed"], row["n_judge_failed"]) == (5, 1, 0)


def test_another_answer_is_judged_anew(
    task: Task, make_run: MakeRun, start_server: StartServer
) -> None:
    server = start_server()
    judge_run(make_run(task), open_judge(server.spec, QUICK))
    changed = make_run(task, {("2", "en"): "Nobody knows."})
    assert pooled(changed)["n_failed"] == 1  # the judgement was of another answer
    judge_run(changed, open_judge(server.spec, QUICK))
    assert len(server.asked()) == 7 and pooled(changed)["n_failed"] == 0


def test_robust_mode_asks_both_orders_and_measures_the_judge(
    run: Path, start_server: StartServer
) -> None:
    server = start_server()
    judge = open_judge(server.spec, QUICK)
    (outcome,) = judge_run(run, judge, mode="robust", repeats=2)
    assert len(server.asked()) == 24
    assert outcome.quality["order_swap"]["num_samples"] == 6
    assert outcome.quality["repeats_of_one_request"]["mean_variance"] == 0.0
    (row,) = [s for s in score_run(run)[0]["scores"] if s["subset"] == ""]
    assert "mode:robust|temperature:0|orders:2|repeats:2" in row["signature"]
    judge_run(run, judge, mode="robust", repeats=3)
    assert len(server.asked()) == 36  # only the third repeat is new


def test_two_modes_are_never_mixed(run: Path, start_server: StartServer) -> None:
    judge = open_judge(start_server().spec, QUICK)
    judge_run(run, judge)
    with pytest.raises(UserError, match=r"mode was 'llava', is 'robust'"):
        judge_run(run, judge, mode="robust")


def test_a_result_names_its_judge(run: Path, start_server: StartServer) -> None:
    server = start_server()
    judge_run(run, open_judge(server.spec, QUICK))
    score_run(run)
    result = load_result(run / "boats" / "result.json")
    assert result.judging["judge"] == "openai:tiny" and result.judging["mode"] == "llava"
    assert result.judging["settings"] == {"base_url": f"http://127.0.0.1:{server.port}/v1"}
    assert len(result.judging["judgements_sha256"]) == 64
    assert result.scores[0].signature.startswith(
        "relative_score|ratio:of-sums|judge:openai:tiny|mode:llava|temperature:0.2|orders:1|"
    )


def test_scoring_what_nobody_judged_says_how_to_judge_it(run: Path) -> None:
    with pytest.raises(UserError, match=r"not judged yet.*mpm-eval judge .* --judge embedded"):
        score_run(run)


def test_a_run_without_a_judged_task_is_an_error(
    make_task: Any, make_run: MakeRun, start_server: StartServer
) -> None:
    run = make_run(make_task())
    with pytest.raises(UserError, match=r"no task in it needs a judge"):
        judge_run(run, open_judge(start_server().spec))
    with pytest.raises(UserError, match=r"unknown task 'boots'; .*known: animals"):
        judge_run(run, open_judge(start_server().spec), tasks=["boots"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "strict"}, "unknown mode 'strict'"),
        ({"repeats": 2}, "--repeats: 2 does not go with --mode llava"),
        ({"mode": "robust", "repeats": 0}, "--repeats: 0"),
    ],
)
def test_options_that_do_not_fit_are_errors(
    run: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        judge_run(run, open_judge("embedded"), **options)


@pytest.mark.slow
def test_relative_scores_of_two_languages_get_no_transfer_gap(
    tmp_path: Path, task: Task, make_run: MakeRun
) -> None:
    write_llava(tmp_path / "boats", "zh")
    path = Path(task.path)
    text = path.read_text(encoding="utf-8").replace('["en"]', '["en", "zh"]')
    path.write_text(text + 'zh = "{question}"\n', encoding="utf-8")
    run = make_run(load_task(path))
    judge_run(run, open_judge("embedded"))
    (result,) = score_run(run)
    assert "transfer_gap" not in {s["metric"] for s in result["scores"]}
    (skipped,) = [s for s in result["skipped"] if s["metric"] == "transfer_gap"]
    assert skipped["language"] == "zh" and "their own language" in skipped["reason"]


def test_the_bounds_hold_any_outcome_of_the_failed_ones() -> None:
    pairs, failed = [(9.0, 7.0), (8.0, 8.0)], [(1.0, 10.0), (10.0, 1.0), (6.0, 5.0)]
    found = bounds(pairs, len(failed))
    value = 100 * sum(p[1] for p in pairs + failed) / sum(p[0] for p in pairs + failed)
    assert found["score_if_failed_worst"] < value < found["score_if_failed_best"]


def test_the_number_of_llava_s_script_keeps_its_failures_and_roundings() -> None:
    # means of (8, -1, 9) and (7, -1, 9), rounded to 3 digits: 5.333 and 5.0
    assert llava_parser_score(["8 7", "8, 7", "9 9"]) == round(5.0 / 5.333 * 100, 1) == 93.8
    assert llava_parser_score(["nan 5"]) is None
    assert llava_parser_score([]) is None


def test_it_is_a_note_and_never_the_score(run: Path, start_server: StartServer) -> None:
    server = start_server("unparsable", "ok")
    judge_run(run, open_judge(server.spec, Patience(concurrency=1)))
    row = pooled(run)
    found = judgements(run)
    reference, candidate = (
        round(sum((j["scores"] or (-1, -1))[i] for j in found) / 6, 3) for i in (0, 1)
    )
    assert row["llava_parser_score"] == round(candidate / reference * 100, 1)
    assert row["value"] != pytest.approx(row["llava_parser_score"], abs=0.05)


# --- the command, as a user runs it


@pytest.mark.slow
def test_the_command_judges_scores_and_reports_the_judge(
    run: Path, start_server: StartServer, mpm_eval: Command, tmp_path: Path
) -> None:
    human = tmp_path / "human.jsonl"
    rows = [{"id": str(i), "language": "en", "score": i} for i in range(6)]
    human.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    done = mpm_eval("judge", run, "--judge", start_server().spec, "--human", human)
    assert done.returncode == 0, done.stderr
    assert "relative_score" in done.stdout and "openai:tiny" in done.stdout
    quality = json.loads((run / "boats" / "judge_quality.json").read_text(encoding="utf-8"))
    assert quality["agreement"]["num_samples"] == 6
    assert quality["answered_by"] == {"tiny-0314": 6}
    again = mpm_eval("judge", run, "--judge", start_server().spec, "--json")
    content = json.loads(again.stdout)
    assert content["results"][0]["task"]["name"] == "boats"
    assert content["quality"][0]["num_judged"] == 6


@pytest.mark.slow
def test_a_key_that_the_server_echoes_is_in_no_file_and_on_no_stream(
    run: Path, start_server: StartServer, mpm_eval: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server = start_server("echo-400", "echo-reply", "echo-400", "echo-reply", "echo-401")
    done = mpm_eval("judge", run, "--judge", server.spec, "--concurrency", "1")
    assert done.returncode == 2 and "refuses the key" in done.stderr
    texts = [done.stdout, done.stderr]
    texts += [p.read_text("utf-8", "replace") for p in run.rglob("*") if p.is_file()]
    assert len(judgements(run)) == 4
    assert not any(KEY in text or KEY[3:] in text for text in texts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--judge", "openai:http://u:hunter2@h/v1#m"), "the URL holds a user"),
        (("--max-cost", "1"), "--max-cost: needs --price-in and --price-out"),
        (("--judge", "gpt-4"), "unknown judge 'gpt-4'"),
        (("--human", "nowhere.jsonl"), "nowhere.jsonl: no such file"),
        (("--task", "boots"), "unknown task 'boots'"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(
    run: Path, mpm_eval: Command, options: tuple[str, ...], message: str
) -> None:
    done = mpm_eval("judge", run, *options)
    assert done.returncode == 2 and not done.stdout
    assert message in done.stderr and done.stderr.count("\n") == 1
    assert "hunter2" not in done.stderr


def start(run: Path, spec: str, *options: str) -> "subprocess.Popen[str]":
    arguments = ("judge", run, "--judge", spec, "--concurrency", "2", *options)
    return subprocess.Popen(
        command(arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )


def wait_for_lines(run: Path, number: int) -> None:
    path = run / "boats" / "judgements.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if path.is_file() and path.read_bytes().count(b"\n") >= number:
            return
        time.sleep(0.005)
    raise AssertionError(f"{path} never reached {number} lines")


@pytest.mark.slow
def test_server_and_judge_killed_in_the_middle_end_as_an_uninterrupted_run(
    task: Task, make_run: MakeRun, own_server: StartServer
) -> None:
    options = ("--mode", "robust", "--repeats", "4", "--tries", "2")  # 48 requests
    server = own_server("slow")
    whole, killed = make_run(task, run="whole"), make_run(task, run="killed")
    done = start(whole, server.spec, *options)
    _, errors = done.communicate(timeout=60)
    assert done.returncode == 0, errors

    process = start(killed, server.spec, *options)
    wait_for_lines(killed, 5)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    path = killed / "boats" / "judgements.jsonl"
    with path.open("ab") as file:
        file.write(b'{"id": "half a li')  # as a kill in the middle of a write leaves it

    process = start(killed, server.spec, *options)
    before = path.read_bytes().count(b"\n")
    wait_for_lines(killed, before + 5)
    server.kill()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "cannot be reached" in errors and "run the same command to continue" in errors
    assert "Traceback" not in errors
    unfinished = load_result(killed / "boats" / "result.json")
    assert unfinished.scores[0].n < 6 and unfinished.scores[0].n_failed > 0

    own_server("slow", port=server.port)
    process = start(killed, server.spec, *options)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    good = Counter(j["request_sha256"] for j in judgements(killed) if not j["error"])
    assert len(good) == 48 and set(good.values()) == {1}
    results = [(r / "boats" / "result.json").read_bytes() for r in (whole, killed)]
    assert results[0] == results[1]


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_judged_and_does_not_wait_for_the_server(
    run: Path, start_server: StartServer
) -> None:
    server = start_server("ok", "ok", "hang")
    process = start(run, server.spec)
    wait_for_lines(run, 2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors.splitlines()[-1].startswith("boats: stopped; every judgement so far is in")
    assert len(judgements(run)) == 2


def test_the_protocol_s_defaults_are_the_paper_s() -> None:
    judging = Judging("j", {}, "llava", 1)
    assert (judging.max_reply_tokens, judging.repeats) == (1024, 1)
    assert os.sep not in judging.signature
