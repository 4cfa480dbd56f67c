"""Real processes, really killed: what is answered stays answered, once."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mpm_eval.store import read_predictions
from tests.conftest import Command, command, environment, write_task


def predictions(run: Path) -> list[str]:
    lines = (run / "small" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return sorted(lines)


def start(folder: Path, *arguments: str | Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command(arguments),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )


def wait_for_lines(path: Path, number: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if path.is_file() and path.read_bytes().count(b"\n") >= number:
            return
        time.sleep(0.005)
    raise AssertionError(f"{path} never reached {number} lines")


@pytest.mark.slow
def test_a_run_killed_at_random_points_ends_as_an_uninterrupted_one(
    tmp_path: Path, mpm_eval: Command
) -> None:
    task = write_task(tmp_path, number=40)
    whole = mpm_eval("run", "--task", task, "--model", "echo:slow", "--out", "whole")
    assert whole.returncode == 0, whole.stderr
    rng = random.Random(3)
    run = tmp_path / "killed"
    path = run / "small" / "predictions.jsonl"
    for target in sorted(rng.sample(range(8, 40), 3)):
        process = start(tmp_path, "run", "--task", task, "--model", "echo:slow", "--out", "killed")
        wait_for_lines(path, target)
        time.sleep(rng.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert len(predictions(run)) < 80
    last = mpm_eval("run", "--task", task, "--model", "echo:slow", "--out", "killed")
    assert last.returncode == 0, last.stderr
    found = read_predictions(path)  # raises for a duplicate
    assert len(found) == 80
    assert predictions(run) == predictions(tmp_path / "whole")
    for folder in (run, tmp_path / "whole"):
        assert (folder / "small" / "result.json").is_file()
    a, b = ((tmp_path / n / "small" / "result.json").read_bytes() for n in ("killed", "whole"))
    assert a == b


@pytest.mark.slow
def test_ctrl_c_says_how_to_continue(tmp_path: Path) -> None:
    task = write_task(tmp_path, number=40)
    process = start(tmp_path, "run", "--task", task, "--model", "echo:slow", "--out", "run")
    wait_for_lines(tmp_path / "run" / "small" / "predictions.jsonl", 8)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1].startswith("small: stopped at ")
    assert errors.splitlines()[-1].endswith("run the same command again to continue")
    assert not (tmp_path / "run" / "small" / "result.json").exists()


@pytest.mark.slow
def test_an_interrupted_run_is_not_scored_as_if_it_were_whole(
    tmp_path: Path, mpm_eval: Command
) -> None:
    task = write_task(tmp_path, number=40)
    process = start(tmp_path, "run", "--task", task, "--model", "echo:slow", "--out", "run")
    wait_for_lines(tmp_path / "run" / "small" / "predictions.jsonl", 8)
    process.kill()
    process.communicate()
    done = mpm_eval("score", "run")
    assert done.returncode == 2
    assert "samples have no prediction; run the same command to continue" in done.stderr


@pytest.mark.slow
def test_a_changed_task_model_or_picture_is_refused_with_the_reason(
    tmp_path: Path, mpm_eval: Command
) -> None:
    task = write_task(tmp_path)
    arguments = ("run", "--task", task, "--out", "run", "--model")
    assert mpm_eval(*arguments, "echo").returncode == 0
    before = predictions(tmp_path / "run")

    other = mpm_eval(*arguments, "echo:half")
    assert other.returncode == 2 and "holds a run of another model" in other.stderr

    task.write_text(task.read_text().replace("What is this?", "What do you see?"))
    prompt = mpm_eval(*arguments, "echo")
    assert prompt.returncode == 2 and "task.sha256 was" in prompt.stderr
    task.write_text(task.read_text().replace("What do you see?", "What is this?"))

    picture = tmp_path / "pictures" / "0.png"
    picture.write_bytes((tmp_path / "pictures" / "1.png").read_bytes())
    data = mpm_eval(*arguments, "echo")
    assert data.returncode == 2 and "data.sha256 was" in data.stderr
    assert predictions(tmp_path / "run") == before


@pytest.mark.slow
def test_an_interrupted_task_does_not_stop_another_one_in_the_same_run(
    tmp_path: Path, mpm_eval: Command
) -> None:
    first = write_task(tmp_path / "a", number=40, name="first")
    second = write_task(tmp_path / "b", number=4, name="second")
    process = start(tmp_path, "run", "--task", first, "--model", "echo:slow", "--out", "run")
    wait_for_lines(tmp_path / "run" / "first" / "predictions.jsonl", 8)
    process.kill()
    process.communicate()
    done = mpm_eval("run", "--task", second, "--model", "echo:slow", "--out", "run")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "second" / "result.json").is_file()
    assert not (tmp_path / "run" / "first" / "result.json").exists()


@pytest.mark.slow
def test_more_languages_extend_a_run(tmp_path: Path, mpm_eval: Command) -> None:
    task = write_task(tmp_path)
    first = mpm_eval("run", "--task", task, "--model", "echo", "--languages", "en", "--out", "run")
    assert first.returncode == 0 and len(predictions(tmp_path / "run")) == 12
    kept = predictions(tmp_path / "run")
    second = mpm_eval("run", "--task", task, "--model", "echo", "--out", "run")
    assert second.returncode == 0 and len(predictions(tmp_path / "run")) == 24
    assert set(kept) <= set(predictions(tmp_path / "run"))


@pytest.mark.slow
def test_a_corrupt_picture_fails_its_samples_and_no_others(
    tmp_path: Path, mpm_eval: Command
) -> None:
    task = write_task(tmp_path)
    picture = tmp_path / "pictures" / "3.png"
    picture.write_bytes(picture.read_bytes()[:40])
    done = mpm_eval("run", "--task", task, "--model", "echo", "--out", "run", "--json")
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)
    rows = [r for r in result["scores"] if r["metric"] == "exact_match" and not r["subset"]]
    assert [(r["n"], r["n_failed"], r["value"]) for r in rows] == [(11, 1, 100.0)] * 2
    failed = [p for p in read_predictions(tmp_path / "run/small/predictions.jsonl") if p.error]
    assert {p.id for p in failed} == {"s3"} and "3.png" in failed[0].error


@pytest.mark.slow
def test_a_second_process_is_turned_away_and_the_first_goes_on(
    tmp_path: Path, mpm_eval: Command
) -> None:
    task = write_task(tmp_path, number=60)
    arguments = ("run", "--task", task, "--model", "echo:slow", "--out", "run")
    first = start(tmp_path, *arguments)
    wait_for_lines(tmp_path / "run" / "small" / "predictions.jsonl", 8)
    first.send_signal(signal.SIGSTOP)  # however slow the machine is, the first is not done yet
    try:
        second = mpm_eval(*arguments)
    finally:
        first.send_signal(signal.SIGCONT)
    _, errors = first.communicate(timeout=60)
    assert second.returncode == 2 and "another process is writing here" in second.stderr
    assert first.returncode == 0, errors
    assert len(read_predictions(tmp_path / "run" / "small" / "predictions.jsonl")) == 120


@pytest.mark.slow
def test_a_full_disk_stops_the_run_and_room_lets_it_go_on(
    tmp_path: Path, mpm_eval: Command
) -> None:
    task = write_task(tmp_path, number=40)
    arguments = ("run", "--task", task, "--model", "echo", "--out", "run")
    # no file may grow beyond this: the operating system refuses the rest of a batch
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000)); "
    code = f"{limited}import sys; sys.argv[1:] = {list(map(str, arguments))!r}; "
    full = subprocess.run(
        [sys.executable, "-c", f"{code}from mpm_eval.cli import main; main()"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert full.returncode == 2
    assert full.stderr.startswith("error: run/small: cannot be written (File too large)")
    assert len(full.stderr.splitlines()) == 1
    kept = predictions(tmp_path / "run")
    assert 0 < len(kept) < 80
    assert len(read_predictions(tmp_path / "run/small/predictions.jsonl")) == len(kept)
    assert mpm_eval(*arguments).returncode == 0
    whole = predictions(tmp_path / "run")
    assert len(whole) == 80 and set(kept) < set(whole)


@pytest.mark.slow
def test_a_read_only_folder_is_named_and_left_alone(tmp_path: Path, mpm_eval: Command) -> None:
    task = write_task(tmp_path)
    arguments = ("run", "--task", task, "--model", "echo", "--languages")
    assert mpm_eval(*arguments, "en", "--out", "run").returncode == 0
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    folders = [tmp_path / "run", tmp_path / "run" / "small"]
    for folder in folders:
        folder.chmod(0o555)
    try:
        if os.access(tmp_path / "run", os.W_OK):
            pytest.skip("this user, root perhaps, may write everywhere")
        done = mpm_eval(*arguments, "de", "--out", "run")
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert done.returncode == 2 and "cannot be written (Permission denied)" in done.stderr
    assert {p: p.read_bytes() for p in before} == before


@pytest.mark.slow
def test_a_file_where_the_run_folder_should_be_is_left_alone(
    tmp_path: Path, mpm_eval: Command
) -> None:
    (tmp_path / "run").write_text("mine")
    task = write_task(tmp_path, number=2)
    done = mpm_eval("run", "--task", task, "--model", "echo", "--out", "run")
    assert done.returncode == 2 and "run/run.json: cannot be written" in done.stderr
    assert (tmp_path / "run").read_text() == "mine"
