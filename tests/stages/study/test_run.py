"""A study, trained and measured for real with a recipe of a few steps."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mpm_eval.errors import UserError
from mpm_eval.stages.result_schema import load_result
from mpm_eval.stages.study import (
    Folders,
    Study,
    Timings,
    describe_plan,
    load_study,
    plan_study,
    run_study,
    write_study,
)
from mpm_eval.stages.study.folders import read_outcome
from mpm_eval.stages.study.plan import steps_left
from mpm_eval.stages.study.run import values_of
from tests.conftest import write_task
from tests.stages.study.conftest import write_study as write_definition
from tests.training.conftest import SMALL

pytestmark = pytest.mark.slow  # models are trained

REPOSITORY = Path(__file__).resolve().parents[3]
POINTS = [
    {"name": "english", "x": 0},
    {"name": "half", "x": 50, "overrides": ["pretrain.native_share=0.5"]},
    {"name": "again", "x": 0},  # the recipe of english
]


Finished = tuple[Study, Folders, list[list[str]]]


def write_small(folder: Path, **fields: Any) -> Path:
    """Write a study on a task of twelve pictures, and return its file."""
    task = str(write_task(folder / "task"))
    measures = [
        {"task": task, "metric": "exact_match", "title": "Exact"},
        {"task": task, "metric": "content", "title": "Content"},
    ]
    overrides = [*SMALL, "instruct.translated_pairs=0"]
    content = {"overrides": overrides, "points": POINTS, "seeds": [0], "measures": measures}
    return write_definition(folder, **{**content, **fields})


def finish(study: Study, folders: Folders, **chosen: Any) -> list[str]:
    """Run what is left of a study; return the stages that were trained, one name per step."""
    steps: list[str] = []
    run_study(
        study, plan_study(study, folders, **chosen), folders, lambda stage, *_: steps.append(stage)
    )
    return steps


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A study with its folders, and what was trained when: english, the rest, nothing. Read only."""
    folder = tmp_path_factory.mktemp("study")
    study = load_study(str(write_small(folder)))
    folders = Folders(folder / "studies", study.name)
    steps = [finish(study, folders, points=["english"]), finish(study, folders)]
    return study, folders, [*steps, finish(study, folders)]


def test_every_point_and_seed_leaves_an_outcome_with_all_its_values(
    finished: Finished,
) -> None:
    _, folders, _ = finished
    for point in ("english", "half"):
        outcome = read_outcome(folders.outcome(point, 0))
        assert outcome is not None
        assert {(v.metric, v.language) for v in outcome.values} == {
            (metric, tag) for metric in ("exact_match", "content") for tag in ("en", "de")
        }
        assert all(value.n > 0 for value in outcome.values)


def test_labels_follow_from_what_was_seen(finished: Finished) -> None:
    _, folders, _ = finished
    english, half = (read_outcome(folders.outcome(name, 0)) for name in ("english", "half"))
    assert english is not None and half is not None
    assert english.zero_shot["de"].label == "zero-shot"
    assert half.zero_shot["de"].label == "supervised"
    counts = next(s for s in half.record.stages if s.name == "pretrain").multimodal_samples
    assert counts["de"] > 0 and counts["en"] > 0


def test_what_is_done_is_not_done_again(finished: Finished) -> None:
    study, folders, steps = finished
    assert steps[2] == []
    planned = plan_study(study, folders)
    assert describe_plan(planned, Timings(folders))[-1] == "nothing is left to do"


def test_the_text_stage_is_shared_by_points_that_differ_later(finished: Finished) -> None:
    _, _, (english, rest, _) = finished
    assert (english.count("align"), english.count("pretrain")) == (12, 8)
    assert "align" not in rest and "features" not in rest and rest.count("pretrain") == 8


def test_a_plan_counts_shared_stages_once(finished: Finished, tmp_path: Path) -> None:
    study, _, _ = finished
    left = steps_left(plan_study(study, Folders(tmp_path, study.name)))
    assert left == {"align": 12, "pretrain": 16, "instruct": 12, "evaluate": 3}


def test_two_points_of_one_recipe_have_one_checkpoint(finished: Finished) -> None:
    _, folders, _ = finished
    found = [read_outcome(folders.outcome(name, 0)) for name in ("english", "again")]
    assert len({one.checkpoint_sha256 for one in found if one}) == 1
    assert len(list((folders.root / "work" / "checkpoints").iterdir())) == 2


def test_another_measure_is_measured_without_training(finished: Finished, tmp_path: Path) -> None:
    study, folders, _ = finished
    changed = replace(study, limit=4, seeds=(0,))
    planned = plan_study(changed, folders)
    assert {run.state for run in planned} == {"trained"}
    assert steps_left(planned) == {"evaluate": 3}


def test_a_study_killed_at_random_points_ends_as_an_uninterrupted_one(
    finished: Finished, tmp_path: Path
) -> None:
    path = write_small(tmp_path, points=POINTS[1:2])
    code = (
        "import sys; from pathlib import Path\n"
        "from mpm_eval.stages.study import *\n"
        "study = load_study(sys.argv[1]); folders = Folders(Path(sys.argv[2]), study.name)\n"
        "told = lambda *parts: print(*parts, flush=True)\n"
        "run_study(study, plan_study(study, folders), folders, told, told)"
    )
    command = [sys.executable, "-c", code, str(path), str(tmp_path / "studies")]
    rng, kills = random.Random(3), 0
    for _ in range(2):
        process = subprocess.Popen(
            command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, env=os.environ
        )
        assert process.stdout is not None
        for _ in range(rng.randint(5, 30)):
            if not process.stdout.readline():
                break
        time.sleep(rng.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)
    assert kills
    found, whole = (
        read_outcome(folders.outcome("half", 0))
        for folders in (Folders(tmp_path / "studies", "small"), finished[1])
    )
    assert found is not None and whole is not None
    # the tasks lie in different folders, all else is equal
    assert [v.value for v in found.values] == [v.value for v in whole.values]
    assert found.checkpoint_sha256 == whole.checkpoint_sha256 and found.record == whole.record


def test_the_files_of_a_study_are_the_same_twice_and_name_what_is_missing(
    finished: Finished,
) -> None:
    study, folders, _ = finished
    paths = write_study(study, plan_study(study, folders), folders, "small")
    names = [path.relative_to(folders.own).as_posix() for path in paths]
    assert names[:4] == ["table.md", "table.csv", "plot.svg", "study.json"]
    assert names[4:] == ["cards/english.md", "cards/half.md", "cards/again.md"]
    before = [path.read_bytes() for path in paths]
    write_study(study, plan_study(study, folders), folders, "small")
    assert [path.read_bytes() for path in paths] == before
    assert "| de | supervised |" in paths[5].read_text()
    assert json.loads(paths[3].read_text())["missing"] == []
    longer = replace(study, seeds=(0, 1))
    write_study(longer, plan_study(longer, folders), folders, "small")
    assert json.loads(paths[3].read_text())["missing"] == [
        "english-seed1",
        "half-seed1",
        "again-seed1",
    ]


def test_without_an_outcome_nothing_is_written(finished: Finished, tmp_path: Path) -> None:
    study, _, _ = finished
    folders = Folders(tmp_path, study.name)
    assert write_study(study, plan_study(study, folders), folders, "small") == []
    assert not folders.own.exists()


def test_a_measure_that_no_result_has_is_an_error(finished: Finished) -> None:
    study, folders, _ = finished
    task_folder = next(folders.root.glob("work/runs/*/small"))
    measure = replace(study.measures[0], subset="cell=nowhere")
    with pytest.raises(UserError, match="no exact_match in cell=nowhere; correct the"):
        values_of(measure, load_result(task_folder / "result.json"), task_folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seeds", "x"], "error: --seeds: 'x' is not a number; write e.g. 0,1,2"),
        (["--seeds", "5"], "error: --seeds: study 'small' has no seed 5; it has 0"),
        (["--points", "halv"], "did you mean 'half'?"),
        (["--points", ","], "error: --points: nothing is given; write names joined by commas"),
    ],
)
def test_a_wrong_option_is_one_clear_line(
    options: Sequence[str], message: str, mpm_eval: Any, tmp_path: Path
) -> None:
    path = write_small(tmp_path)
    found = mpm_eval("study", path, "--dry-run", *options)
    assert found.returncode == 2 and message in found.stderr and found.stderr.count("\n") == 1


def test_a_dry_run_writes_nothing(mpm_eval: Any, tmp_path: Path) -> None:
    path = write_small(tmp_path)
    found = mpm_eval("study", path, "--dry-run")
    assert found.returncode == 0, found.stderr
    assert "half-seed0     to be trained and evaluated" in found.stdout
    assert (
        "left: 12 steps of align, 16 steps of pretrain, 12 steps of instruct, 3 eval"
        in found.stdout
    )
    assert not (tmp_path / "results").exists()
