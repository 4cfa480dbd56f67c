"""Every shipped recipe builds from shrunken backbones of the same classes and takes two steps."""

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from mpm_eval.errors import UserError
from mpm_eval.resources import shipped
from mpm_eval.zero_shot import label
from tests.training.small_recipes import picture, small_recipes
from training.interface import load_checkpoint, plan, train
from training.state import State

pytestmark = pytest.mark.slow  # models are trained

SHIPPED = {path.stem for path in shipped("recipes").glob("*.toml")}


@pytest.fixture(scope="module")
def settings(
    lm_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[str]]:
    """Return the overrides that shrink each shipped chat recipe."""
    return small_recipes(tmp_path_factory.mktemp("small"), lm_folder)


def test_every_shipped_chat_recipe_is_tried(settings: dict[str, list[str]]) -> None:
    painting = {name for name in SHIPPED if name.endswith("_paint")}
    assert settings.keys() == SHIPPED - painting


@pytest.mark.parametrize("name", sorted(n for n in SHIPPED if not n.endswith("_paint")))
def test_a_recipe_takes_two_steps_and_answers(
    name: str, settings: dict[str, list[str]], tmp_path: Path
) -> None:
    planned = plan(name, settings[name])
    folder = train(name, tmp_path / "out", settings[name])
    model, record = load_checkpoint(folder)
    assert record is not None
    assert [stage.name for stage in record.stages] == [stage.name for stage in planned.stages]
    for stage, expected in zip(record.stages, planned.stages, strict=True):
        assert set(stage.trained) == set(expected.trained)
        if expected.multimodal_samples is not None:
            assert stage.multimodal_samples == expected.multimodal_samples
    visual = model.encode_pictures([picture(1), picture(2)])
    answers = model.generate(["What is this?", "Was?"], visual, 4)
    assert len(answers) == 2
    again = load_checkpoint(folder)[0].generate(["What is this?", "Was?"], visual, 4)
    assert again == answers


def test_a_stream_counts_its_languages_and_its_broken_pictures(
    settings: dict[str, list[str]], tmp_path: Path
) -> None:
    longer = [*settings["viscpm"], "stream_pretrain.steps=8", "stream_instruct.steps=8"]
    _, record = load_checkpoint(train("viscpm", tmp_path / "out", longer))
    assert record is not None
    pretrain, instruct = record.stages
    assert pretrain.multimodal_samples == {"en": 32} and pretrain.num_skipped >= 1
    assert set(instruct.multimodal_samples) == {"en", "zh"}
    assert instruct.trained == ("bridge", "lm") and pretrain.trained == ("bridge",)
    assert label(record, "zh") != "zero-shot"


@pytest.mark.parametrize(("recipe", "dtype"), [("siglip2_qwen", "float32"), ("viscpm", "bfloat16")])
def test_a_streamed_run_that_was_stopped_ends_as_one_that_was_not(
    settings: dict[str, list[str]], tmp_path: Path, recipe: str, dtype: str
) -> None:
    longer = [
        *settings[recipe],
        f"language_model.dtype={dtype}",
        "stream_instruct.steps=5",
        "save_every_s=0.0",
    ]

    def stop(stage: str, done: int, *_: float) -> None:
        if (stage, done) == ("instruct", 3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "stopped", longer, stop)
    stopped = train(recipe, tmp_path / "stopped", longer)
    whole = train(recipe, tmp_path / "whole", longer)
    for name in ("model.safetensors", "training.json"):
        assert (stopped / name).read_bytes() == (whole / name).read_bytes()


def test_as_many_processes_as_saved_a_stream_have_to_take_it_up(
    settings: dict[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(stage: str, done: int, *_: float) -> None:
        if (stage, done) == ("instruct", 2):
            raise KeyboardInterrupt

    load = State.load

    def of_two(self: State, model: Any) -> Any:
        progress, *rest = load(self, model)
        return replace(progress, stream=progress.stream * 2), *rest

    overrides = [*settings["siglip2_qwen"], "save_every_s=0.0"]
    with pytest.raises(KeyboardInterrupt):
        train("siglip2_qwen", tmp_path / "out", overrides, stop)
    monkeypatch.setattr(State, "load", of_two)
    with pytest.raises(UserError, match=r"instruct: 2 processes saved .* launch 2 again$"):
        train("siglip2_qwen", tmp_path / "out", overrides)


def test_a_language_model_opened_in_half_precision_learns_in_float32(
    settings: dict[str, list[str]], tmp_path: Path
) -> None:
    """At the paper's rate, 1e-5, bfloat16 would round every update away."""
    overrides = [
        *settings["viscpm"],
        "language_model.dtype=bfloat16",
        "stream_instruct.steps=4",
        "stream_instruct.learning_rate=1e-5",
        "stream_instruct.warmup_steps=1",
        "save_every_s=0.0",
    ]
    states: dict[int, dict[str, Any]] = {}

    def look(stage: str, done: int, *_: float) -> None:
        if stage == "instruct" and done in (2, 4):
            states[done] = load_file(tmp_path / "out" / "work" / "state.safetensors")

    train("viscpm", tmp_path / "out", overrides, look)
    names = [name for name in states[2] if name.startswith("model|lm.") and "layers" in name]
    assert {str(states[4][name].dtype) for name in names} == {"torch.float32"}
    assert all(bool((states[4][name] != states[2][name]).any()) for name in names)


def test_too_many_broken_pictures_stop_training(
    settings: dict[str, list[str]], tmp_path: Path
) -> None:
    strict = [*settings["viscpm"], "stream_pretrain.data.max_bad=0.0", "stream_pretrain.steps=8"]
    with pytest.raises(UserError, match=r"captions-1\.tar:005") as caught:
        train("viscpm", tmp_path / "out", strict)
    assert "\n" not in str(caught.value)


def test_a_dry_run_says_what_training_would_come_to_and_trains_nothing(
    settings: dict[str, list[str]],
    mpm_eval: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
) -> None:
    overrides = [part for line in settings["siglip2_qwen"] for part in ("--set", line)]
    done = mpm_eval("train", "siglip2_qwen", "--dry-run", *overrides)
    assert done.returncode == 0, done.stderr
    assert "memory (estimate)" in done.stdout and "streamed" in done.stdout
    assert not list(tmp_path.iterdir())


def test_planned_parameters_are_those_of_the_model(settings: dict[str, list[str]]) -> None:
    from training.interface import _context
    from training.recipe import load_recipe

    planned = plan("emoji_gemma", settings["emoji_gemma"])
    context, _ = _context(load_recipe("emoji_gemma", settings["emoji_gemma"]))
    for part, count in planned.parameters.items():
        assert count == sum(p.numel() for p in getattr(context.model, part).parameters())
