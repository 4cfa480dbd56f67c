"""The gate as it is used: the workflows' own commands, and regressions planted in real runs."""

import json
import os
import random
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from mpm_eval.cards import open_model
from mpm_eval.cli import app
from mpm_eval.resources import shipped
from mpm_eval.stages.baselines import load_baseline
from mpm_eval.stages.gate import gate
from mpm_eval.stages.gate_rules import load_rules
from mpm_eval.stages.generate import run_tasks
from mpm_eval.stages.score import score_run
from mpm_eval.tasks import load_task
from tests.conftest import environment

REPOSITORY = Path(__file__).resolve().parents[1]
CHECKPOINT = shipped("model_cards") / "mpm-tiny"
LIMIT = 200  # as in the workflows
Line = dict[str, Any]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder where the set-up commands of docs/ci.md were run as they stand."""
    folder = tmp_path_factory.mktemp("project")
    text = (REPOSITORY / "docs" / "ci.md").read_text(encoding="utf-8")
    shell(text.split("```sh\n")[1].split("```")[0], folder)
    yield folder


def shell(script: str, folder: Path, **env: str) -> "subprocess.CompletedProcess[str]":
    """Run a script as Actions does, with the programs of this environment."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        env={**environment(), "PATH": path, **env},
    )


def judge(folder: Path, candidate: Path, *options: str) -> tuple[int, str]:
    """Return exit code and output of the gate against the project's baseline."""
    baseline = str(folder / "results" / "baselines" / "main.json")
    arguments = ["gate", "--baseline", baseline, "--candidate", str(candidate), *options]
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, result.output


def answer(checkpoint: Path, out: Path) -> Path:
    model = open_model(str(checkpoint))
    task = load_task("transfer_de")
    run = run_tasks([task], model, model_spec="m", languages=["de"], limit=LIMIT, out=out)
    score_run(run)
    return run


def altered(project: Path, out: Path, change: Callable[[int, Line], Line]) -> Path:
    """Return a copy of the project's run with each line of its predictions changed."""
    run = Path(shutil.copytree(project / "runs" / "main", out))
    path = run / "transfer_de" / "predictions.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    text = "".join(json.dumps(change(i, line)) + "\n" for i, line in enumerate(lines))
    path.write_text(text, encoding="utf-8")
    score_run(run)
    return run


def swapped(index: int, line: Line) -> Line:
    scores = line["option_scores"]
    return {**line, "option_scores": [*scores[1:], scores[0]]}


def other_processor(index: int, line: Line) -> Line:
    """Every log-probability in its last digits, and two answers in two hundred."""
    scores = [{**s, "logprob": s["logprob"] * (1 + 1e-7)} for s in line["option_scores"]]
    if index in (20, 120):
        scores = [*scores[1:], scores[0]]
    return {**line, "option_scores": scores}


def test_this_project_s_rules_select_its_baseline_and_its_tasks_are_those_of_today() -> None:
    sides = load_baseline(REPOSITORY / "results" / "baselines" / "mpm-tiny-limit150.json")
    report = gate(sides, sides, load_rules(REPOSITORY / ".ci" / "gate.toml"))
    assert (report.exit_code, len(report.verdicts), report.warnings) == (0, 15, ())
    for name, side in sides.items():
        assert side.result.task.sha256 == load_task(name).sha256, "save the baseline again"


def test_what_runs_in_ci_gates_this_project() -> None:
    assert "make gate" in (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8")
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    recipe = makefile.split("\ngate:")[1].split("\n\n")[0]
    assert "--baseline results/baselines/mpm-tiny-limit150.json" in recipe
    assert "--rules .ci/gate.toml" in recipe
    assert recipe.index("rm -rf results/gate") < recipe.index("mpm-eval run")  # never old answers


@pytest.mark.slow
def test_the_actions_workflow_s_commands_run_as_they_stand(project: Path) -> None:
    workflow = yaml.safe_load((REPOSITORY / "docs/ci/github.yml").read_text(encoding="utf-8"))
    steps = [step for step in workflow["jobs"]["gate"]["steps"] if "run" in step]
    assert [step["name"] for step in steps] == ["Install", "Answer the task", "Gate"]
    env = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(project / "summary.md")}
    for step in steps[1:]:
        done = shell(step["run"], project, **env)
    assert "gate: passed (1 passed; candidate against main)" in done.stdout
    assert "::error" not in done.stdout
    assert (project / "summary.md").read_text(encoding="utf-8").startswith("## ✅ gate: passed")
    assert ET.parse(project / "gate.xml").getroot().get("tests") == "1"


@pytest.mark.slow
def test_the_gitlab_job_s_commands_run_as_they_stand(project: Path, tmp_path: Path) -> None:
    job = yaml.safe_load((REPOSITORY / "docs/ci/gitlab.yml").read_text(encoding="utf-8"))["gate"]
    workflow = yaml.safe_load((REPOSITORY / "docs/ci/github.yml").read_text(encoding="utf-8"))
    answering, judging = job["script"]
    # the same command as in the other workflow, where it runs: answering takes most of the time
    assert answering in [step.get("run") for step in workflow["jobs"]["gate"]["steps"]]
    shutil.copytree(project / "results", tmp_path / "results")
    shutil.copytree(project / "runs" / "main", tmp_path / "runs" / "candidate")
    assert "gate: passed (1 passed" in shell(judging, tmp_path).stdout
    assert (tmp_path / job["artifacts"]["reports"]["junit"]).is_file()


@pytest.mark.slow
def test_a_wrong_tokenizer_turns_the_gate_red(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(CHECKPOINT, tmp_path / "checkpoint"))
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    special = {token["content"] for token in content["added_tokens"]}
    words = [word for word in content["model"]["vocab"] if word not in special]
    ids = [content["model"]["vocab"][word] for word in words]
    random.Random(0).shuffle(ids)
    content["model"]["vocab"].update(zip(words, ids, strict=True))
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    run = answer(folder, tmp_path / "run")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    for seed in range(3):
        code, output = judge(project, run, "--seed", str(seed))
        assert code == 1 and "::error title=REGRESSION%3A transfer_de" in output


@pytest.mark.slow
def test_swapped_options_turn_the_gate_red(project: Path, tmp_path: Path) -> None:
    run = altered(project, tmp_path / "run", swapped)
    for seed in range(3):
        code, output = judge(project, run, "--seed", str(seed), "--junit", str(tmp_path / "j.xml"))
        assert code == 1 and "gate: REGRESSION" in output
    assert ET.parse(tmp_path / "j.xml").getroot().find(".//failure") is not None


@pytest.mark.slow
def test_a_checkpoint_whose_bridge_was_not_trained_turns_the_gate_red(
    project: Path, tmp_path: Path
) -> None:
    import torch

    from training.checkpoint import read_tensors, write_tensors

    folder = Path(shutil.copytree(CHECKPOINT, tmp_path / "checkpoint"))
    tensors, state = read_tensors(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    for name, value in tensors.items():  # as after the stage align, which trains the LM alone
        if name.startswith("resampler.") and name.endswith("weight") and value.dim() > 1:
            tensors[name] = torch.randn(value.shape, generator=generator).half() * 0.02
    write_tensors(folder / "model.safetensors", tensors, state)
    code, output = judge(project, answer(folder, tmp_path / "run"))
    assert code == 1 and "gate: REGRESSION" in output


@pytest.mark.slow
def test_another_processor_s_last_digits_pass_with_any_seed(project: Path, tmp_path: Path) -> None:
    run = altered(project, tmp_path / "run", other_processor)
    for seed in range(5):
        code, output = judge(project, run, "--seed", str(seed))
        assert code == 0 and "gate: passed" in output and "outputs identical" not in output


@pytest.mark.slow
def test_the_report_as_json_is_all_of_it_and_other_endings_are_told_apart(
    project: Path, tmp_path: Path
) -> None:
    code, output = judge(project, project / "runs" / "main", "--json")
    report = json.loads(output)
    assert (code, report["exit_code"], report["status"]) == (0, 0, "passed")
    assert [verdict["language"] for verdict in report["verdicts"]] == ["de"]
    failing = altered(
        project, tmp_path / "failing", lambda i, line: {**line, "error": "no" * (i == 3)}
    )
    assert judge(project, failing)[0] == 3
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rule]]\ntask = "other"\nmargin = 5.0\n')
    for options in (["--rules", str(rules)], ["--rules", "none.toml"]):
        command = ["gate", "--baseline", str(project / "results" / "baselines" / "main.json"),
                   "--candidate", str(project / "runs" / "main"), *options]  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "mpm_eval", *command], capture_output=True, text=True
        )
        assert done.returncode == 2 and done.stderr.count("\n") == 1
