"""The bridge that remembers: whitened components, names as visual tokens, its checkpoint."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch
from safetensors.torch import load_file

from mpm_eval.data._emoji_data import emoji_data
from mpm_eval.errors import UserError
from mpm_eval.zero_shot import label
from training.corpus import training_pictures
from training.interface import load_checkpoint, train
from training.memory_bridge import MemoryBridge, MemoryConfig
from training.recipe import load_recipe

WORDS_VD = torch.randn(30, 6, generator=torch.Generator().manual_seed(1))
NAMES_MK = torch.tensor([[1, 2], [3, 0], [4, 5]])
OWNER_N = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])


def features(number: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(number, 4, 5, generator=generator) * 3 + 7


@pytest.fixture
def bridge() -> MemoryBridge:
    config = MemoryConfig(num_tokens=2, width=5, num_patches=4, num_pictures=8, num_names=3)
    built = MemoryBridge(config, 5)
    built.remember(features(), OWNER_N, NAMES_MK)
    return built


def test_pictures_are_compared_in_white_components(bridge: MemoryBridge) -> None:
    c_NW = bridge.coordinates(features())
    torch.testing.assert_close(c_NW.mean(0), torch.zeros(5), rtol=0, atol=1e-5)
    covariance = c_NW.T @ c_NW / len(c_NW)
    torch.testing.assert_close(covariance, torch.eye(5), rtol=0, atol=1e-4)
    # An independent way to the same components: a singular value decomposition of the features.
    z = features()
    x = torch.nn.functional.normalize((z - z.flatten(0, 1).mean(0)).flatten(1), dim=-1)
    u, _, _ = torch.linalg.svd(x - x.mean(0), full_matrices=False)
    expected = u[:, :5] * math.sqrt(8)  # up to signs and order
    found = (expected.T @ c_NW / 8).abs()
    torch.testing.assert_close(found.max(0).values, torch.ones(5), rtol=0, atol=1e-3)


def test_a_remembered_picture_is_said_in_the_words_of_its_name(bridge: MemoryBridge) -> None:
    visual = bridge(features(), WORDS_VD[bridge.words])
    expected = WORDS_VD[NAMES_MK[OWNER_N]]
    torch.testing.assert_close(visual, expected, rtol=0, atol=1e-3)


def test_between_two_names_a_picture_is_said_in_both(bridge: MemoryBridge) -> None:
    bridge.config = replace(bridge.config, sharpness=0.0)  # all pictures are alike
    share_M = torch.tensor([3, 3, 2]) / 8
    expected = torch.einsum("m,mkd->kd", share_M, WORDS_VD[NAMES_MK])
    torch.testing.assert_close(bridge(features(1), WORDS_VD[bridge.words])[0], expected)


def test_pictures_that_are_all_equal_are_no_reason_to_fail(bridge: MemoryBridge) -> None:
    bridge.remember(torch.zeros(8, 4, 5), OWNER_N, NAMES_MK)
    assert bool(torch.isfinite(bridge(features(1), WORDS_VD[bridge.words])).all())


SMALL = (
    "threads=1",
    "language_model.dtype=float32",
    "language_model.lora_rank=2",
    "vision.image_size=64",
    "bridge.width=6",
    "align.steps=2",
    "align.batch_size=4",
    "remember.max_pictures=12",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, lm_folder: Callable[[str], Path]) -> Path:
    out = tmp_path_factory.mktemp("memory") / "checkpoint"
    return train(
        "emoji_gemma_memory", out, [*SMALL, f"language_model.source={lm_folder('gemma3')}"]
    )


@pytest.mark.slow
def test_a_checkpoint_remembers_all_training_pictures_in_english(folder: Path) -> None:
    model, record = load_checkpoint(folder)
    assert isinstance(model.bridge, MemoryBridge) and record is not None
    assert len(model.bridge.key_NW) == 12
    stage = record.stages[-1]
    assert (stage.name, dict(stage.multimodal_samples), dict(stage.text_samples)) == (
        "remember", {"en": 12}, {},
    )  # fmt: skip
    assert sum(stage.images.values()) == 12 and tuple(stage.trained) == ("bridge",)
    assert [label(record, tag) for tag in ("en", "zh")] == ["pivot", "zero-shot"]
    data = emoji_data()
    name = data.name(training_pictures(data)[3].concept, "en")
    words = model.tokenizer.encode(name)[:8]
    row = int(model.bridge.owner_N[3])
    assert model.bridge.name_MK[row, : len(words)].tolist() == words


@pytest.mark.slow
def test_a_training_drawing_becomes_the_word_vectors_of_its_name(folder: Path) -> None:
    model, _ = load_checkpoint(folder)
    bridge, data = cast(MemoryBridge, model.bridge), emoji_data()
    bridge.config = replace(bridge.config, sharpness=1e4)
    key = training_pictures(data)[3].key
    visual = model.encode_pictures([data.load_image(key)])
    words = bridge.name_MK[bridge.owner_N[3]]
    torch.testing.assert_close(visual[0], model.lm.embed(words), rtol=0, atol=1e-3)


@pytest.mark.slow
def test_words_of_names_survive_the_half_precision_of_a_checkpoint(folder: Path) -> None:
    stored = load_file(folder / "model.safetensors")
    assert stored["bridge.name_MK"].dtype == torch.int64
    assert stored["bridge.key_NW"].dtype == torch.float16


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["bridge.kind=mlp"], "unknown key 'num_tokens'"),
        (["spell.steps=3"], "spell: a memory says the names that it was given; leave [spell] out"),
        (["pretrain.steps=3"], "leave [pretrain] out"),
        (["remember.steps=3"], "remember.steps: a memory takes no step"),
        (["remember.batch_size=3"], "remember.batch_size: a memory takes no step; leave it out"),
        (["instruct.steps=3"], "set instruct.train_language_model=true"),
    ],
)
def test_a_mistake_in_a_recipe_is_one_clear_line(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        load_recipe("emoji_gemma_memory", overrides)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_memory_and_its_stage_go_together() -> None:
    with pytest.raises(UserError, match=r"'memory' and the table \[remember\] go together"):
        load_recipe("emoji_gemma", ["remember.steps=3"])


def test_more_components_than_pictures_are_refused() -> None:
    with pytest.raises(UserError, match=r"bridge\.width: .* below .* \(12\), got 12"):
        MemoryConfig(width=12, num_pictures=12).check()
