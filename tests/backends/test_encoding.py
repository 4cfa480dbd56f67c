"""Batches are padded in their text alone, and a picture is processed once."""

from typing import Any

import pytest
import torch
from PIL import Image
from transformers import BatchFeature

from mpm_eval.backends.encoding import _OncePerPicture, collate, together


def row(num_tokens: int, *picture: int) -> dict[str, torch.Tensor]:
    text = torch.arange(5, 5 + num_tokens)[None]
    found = {"input_ids": text, "attention_mask": torch.ones_like(text)}
    return {**found, "pixel_values": torch.zeros(1, *picture)} if picture else found


def test_pictures_of_one_shape_go_together_and_those_of_another_do_not() -> None:
    rows = [row(4, 3, 8, 8), row(9, 3, 8, 8), row(4, 3, 8, 6), row(4), row(7), row(5, 3, 8, 6)]
    assert together(rows) == [[0, 1], [2, 5], [3, 4]]


@pytest.mark.parametrize(
    ("side", "ids", "mask"),
    [
        ("left", [[9, 9, 5, 6], [5, 6, 7, 8]], [[0, 0, 1, 1], [1, 1, 1, 1]]),
        ("right", [[5, 6, 9, 9], [5, 6, 7, 8]], [[1, 1, 0, 0], [1, 1, 1, 1]]),
    ],
)
def test_text_is_padded_on_the_side_asked_for_and_pictures_follow_the_model(
    side: str, ids: list[list[int]], mask: list[list[int]]
) -> None:
    model = torch.zeros(1, dtype=torch.bfloat16)
    batch = collate([row(2, 3, 8, 8), row(4, 3, 8, 8)], side, 9, model)
    assert batch["input_ids"].tolist() == ids and batch["attention_mask"].tolist() == mask
    assert batch["input_ids"].dtype == torch.long
    assert batch["pixel_values"].shape == (2, 3, 8, 8)
    assert batch["pixel_values"].dtype == torch.bfloat16


class Counter:
    """An image processor that counts its calls."""

    num_calls = 0
    merge_size = 2

    def __call__(self, images: Any) -> BatchFeature:
        self.num_calls += 1
        return BatchFeature({"pixel_values": images, "rows": [1]})


def test_what_a_processor_takes_out_is_there_for_the_next_text() -> None:
    counter = Counter()
    once = _OncePerPicture(counter)
    once.current = Image.new("RGB", (2, 2))
    once("picture").pop("rows")
    assert dict(once("picture")) == {"pixel_values": "picture", "rows": [1]}
    assert counter.num_calls == 1 and once.merge_size == 2


def test_only_the_last_pictures_are_kept() -> None:
    counter = Counter()
    once = _OncePerPicture(counter)
    pictures = [Image.new("RGB", (2, 2)) for _ in range(40)]
    for picture in pictures:
        once.current = picture
        once("picture")
    assert len(once._made) == 16
    once.current = pictures[-1]
    once("picture")
    assert counter.num_calls == 40
    once.current = pictures[0]
    once("picture")
    assert counter.num_calls == 41
