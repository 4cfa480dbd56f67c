"""A recipe small enough for tests: every part of `tiny`, a few steps, 32-pixel pictures."""

from collections.abc import Sequence
from pathlib import Path

import pytest

SMALL: tuple[str, ...] = (
    "threads=1",
    'languages=["en","de"]',
    "language_model.width=32",
    "language_model.num_layers=2",
    "language_model.num_heads=2",
    "language_model.feed_forward=64",
    "language_model.vocab_size=600",
    "vision.image_size=32",
    "vision.pretrained=false",
    "vision.width=0.25",
    "resampler.num_patches=1",
    "resampler.width=32",
    "align.steps=12",
    "align.batch_size=8",
    "pretrain.steps=8",
    "pretrain.batch_size=8",
    "pretrain.max_pictures=24",
    "pretrain.augmentations=2",
    "instruct.steps=6",
    "instruct.batch_size=8",
    "instruct.translated_pairs=3",
)


def train_small(out: Path, extra: Sequence[str] = ()) -> Path:
    from training.interface import train

    return train("tiny", out, [*SMALL, *extra])


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole, if clueless, checkpoint; shared, so never write into it."""
    return train_small(tmp_path_factory.mktemp("small") / "checkpoint")
