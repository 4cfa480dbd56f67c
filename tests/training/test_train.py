"""Training from a recipe: determinism, resume after kill -9, what each stage may touch."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mpm_eval.errors import UserError
from mpm_eval.zero_shot import label
from tests.training.conftest import SMALL, train_small
from training.interface import load_checkpoint, train
from training.recipe import load_recipe

pytestmark = pytest.mark.slow  # models are trained

REPOSITORY = Path(__file__).resolve().parents[2]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(
    small_checkpoint: Path, tmp_path: Path
) -> None:
    again = train_small(tmp_path / "again")
    for name in ("model.safetensors", "training.json", "config.json", "tokenizer.json"):
        assert (again / name).read_bytes() == (small_checkpoint / name).read_bytes(), name
    other = train_small(tmp_path / "other", ["seed=1"])
    assert not same(weights(other), weights(small_checkpoint))


@pytest.mark.slow
def test_a_run_killed_at_random_points_ends_as_an_uninterrupted_one(
    small_checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    code = (
        "import sys, time; from pathlib import Path; from training.interface import train\n"
        "def report(stage, done, total, loss, speed):\n"
        "    print(stage, done, flush=True)\n"
        f"train('tiny', Path({str(out)!r}), sys.argv[1:], report)"
    )
    command = [sys.executable, "-c", code, *SMALL, "save_every_s=0.0"]
    rng, kills = random.Random(7), 0
    for _ in range(3):
        process = subprocess.Popen(
            command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, env=os.environ
        )
        assert process.stdout is not None
        for _ in range(rng.randint(3, 8)):  # steps before the blow, 29 in all
            if not process.stdout.readline():
                break
        time.sleep(rng.random() * 0.01)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        assert not (out / "model.safetensors").exists() or kills < 3
    subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)
    assert kills >= 2
    assert same(weights(out), weights(small_checkpoint))
    assert (out / "training.json").read_text() == (small_checkpoint / "training.json").read_text()
    assert not (out / "work").exists()


def test_a_finished_checkpoint_is_not_trained_again(small_checkpoint: Path) -> None:
    before = (small_checkpoint / "model.safetensors").stat().st_mtime_ns
    assert train("tiny", small_checkpoint, SMALL) == small_checkpoint
    assert (small_checkpoint / "model.safetensors").stat().st_mtime_ns == before


def test_another_recipe_does_not_overwrite_a_checkpoint(small_checkpoint: Path) -> None:
    with pytest.raises(UserError, match="holds a checkpoint of another recipe; give another --out"):
        train("tiny", small_checkpoint, [*SMALL, "align.steps=13"])


def test_another_recipe_does_not_continue_an_unfinished_run(tmp_path: Path) -> None:
    def stop(stage: str, done: int, *_: float) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train("tiny", tmp_path, [*SMALL, "save_every_s=0.0"], stop)
    assert (tmp_path / "work" / "state.safetensors").is_file()
    with pytest.raises(UserError, match="unfinished run of another recipe"):
        train("tiny", tmp_path, [*SMALL, "align.steps=99"])


def test_the_training_record_proves_what_was_seen(small_checkpoint: Path) -> None:
    record = json.loads((small_checkpoint / "training.json").read_text())
    align, pretrain, instruct = record["stages"]
    assert [s["name"] for s in record["stages"]] == ["align", "pretrain", "instruct"]
    assert align["multimodal_samples"] == {} and set(align["text_samples"]) == {"de", "en"}
    assert set(pretrain["multimodal_samples"]) == {"en"} and pretrain["trained"] == ["bridge"]
    assert 1 <= instruct["multimodal_samples"]["de"] <= 3  # k = 3 pairs, some maybe not drawn
    assert set(pretrain["images"]) <= {"noto", "twemoji"}


@pytest.mark.slow
def test_without_translated_pairs_every_target_language_is_zero_shot(tmp_path: Path) -> None:
    folder = train_small(tmp_path / "k0", ["instruct.translated_pairs=0"])
    _, record = load_checkpoint(folder)
    assert label(record, "en") == "pivot"
    assert label(record, "de") == "zero-shot"


def test_pretrain_changes_the_bridge_alone(tmp_path: Path) -> None:
    from training.interface import _add_features, _context, architecture
    from training.loop import Run, open_accelerator, run_stage
    from training.stages import open_stage
    from training.state import Copies, Progress, State

    recipe = load_recipe("tiny", SMALL)
    context, _ = _context(recipe)
    _add_features(context, tmp_path, lambda *_: None)
    before = {name: value.clone() for name, value in context.model.state_dict().items()}
    state = State(tmp_path / "state.safetensors", recipe.sha256, architecture(recipe))
    accelerator = open_accelerator(recipe.engine, tmp_path)
    progress = Progress(recipe.sha256, stage=1)
    run = Run(
        context, accelerator, state, progress, Copies(), {}, lambda *_: None, lambda: context.model
    )
    run_stage(open_stage("pretrain", context), run)
    changed = {
        name.partition(".")[0]
        for name, value in context.model.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert changed == {"bridge"}


def test_without_translation_source_and_answer_share_one_language() -> None:
    from training.interface import _context
    from training.stages import open_stage

    recipe = load_recipe("tiny", [*SMALL, "align.translation=false"])
    context, _ = _context(recipe)
    data = context.corpus.data
    words = {
        language: {
            word
            for concept in data.concepts
            for text in (*data.names(concept, language), *data.keywords(concept, language))
            for word in text.split()
        }
        for language in ("en", "de")
    }
    for step in range(12):
        for example in open_stage("align", context).examples(step):
            assert set(example.source.split()) <= words[example.language]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["align.stepz=3"], "unknown key 'stepz'; did you mean 'steps'?"),
        (["align.steps=many"], "align: steps: expected an integer, got a string"),
        (["align.steps=0"], "align.steps: must be at least 1, got 0"),
        (['languages=["en","xx"]'], "unknown language 'xx'"),
        (['languages=["de","fr"]'], "pivot 'en' is not among languages"),
        (["align.steps"], "--set align.steps: write key=value"),
    ],
)
def test_a_mistake_in_a_recipe_is_one_clear_line(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        load_recipe("tiny", overrides)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_an_unknown_recipe_names_the_known_ones() -> None:
    with pytest.raises(UserError, match="unknown recipe 'tinny'; did you mean 'tiny'"):
        load_recipe("tinny")
