"""The stage cache: shared states give the same checkpoints, and nothing else is shared."""

from pathlib import Path

import pytest

from tests.training.conftest import SMALL
from training.interface import plan_recipe, train
from training.recipe import load_recipe
from training.stage_cache import stage_keys

pytestmark = pytest.mark.slow  # models are trained


def keys(*overrides: str) -> list[str]:
    return [key.sha256 for key in stage_keys(load_recipe("tiny", [*SMALL, *overrides]), "data")]


def test_a_run_that_starts_from_the_cache_ends_as_one_that_does_not(
    small_checkpoint: Path, tmp_path: Path
) -> None:
    train("tiny", tmp_path / "other", [*SMALL, "instruct.steps=2"], stages=tmp_path / "cache")
    seen: list[str] = []
    out = train(
        "tiny", tmp_path / "same", SMALL, lambda s, *_: seen.append(s), stages=tmp_path / "cache"
    )
    assert set(seen) - {"features", "validation features"} == {"instruct"}
    for name in ("model.safetensors", "training.json", "config.json", "tokenizer.json"):
        assert (out / name).read_bytes() == (small_checkpoint / name).read_bytes(), name


@pytest.mark.parametrize(
    ("override", "num_shared"),
    [
        ("name=other", 3),
        ("save_every_s=1.0", 3),
        ("instruct.steps=7", 2),
        ("pretrain.keyword_share=0.1", 1),
        ("align.steps=13", 0),
        ("seed=1", 0),
        ('languages=["en","fr"]', 0),
    ],
)
def test_stages_are_shared_up_to_the_first_setting_that_differs(
    override: str, num_shared: int
) -> None:
    same = [a == b for a, b in zip(keys(), keys(override), strict=True)]
    assert same == [True] * num_shared + [False] * (3 - num_shared)


def test_other_data_share_nothing() -> None:
    recipe = load_recipe("tiny", SMALL)
    found = {key.sha256 for data in "ab" for key in stage_keys(recipe, data)}
    assert len(found) == 6


def test_a_plan_says_what_is_cached(tmp_path: Path) -> None:
    assert plan_recipe("tiny", SMALL, tmp_path).num_cached == 0
    train("tiny", tmp_path / "out", SMALL, stages=tmp_path)
    assert plan_recipe("tiny", SMALL, tmp_path).num_cached == 2
    assert plan_recipe("tiny", [*SMALL, "pretrain.steps=9"], tmp_path).num_cached == 1
