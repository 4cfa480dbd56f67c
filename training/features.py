"""Features of pictures under a frozen eye: computed once per training folder, kept with a hash."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mpm_eval.data._emoji_data import EmojiData
from mpm_eval.strict import canonical_sha256
from training.augment import augment
from training.chat_model import ChatModel
from training.checkpoint import read_tensors, write_tensors

_BATCH = 64


def load_pictures(data: EmojiData, keys: Sequence[str]) -> Tensor:
    """Return x_NCHW in 0..1."""
    stack = np.stack([np.asarray(data.load_image(key)) for key in keys])
    return torch.from_numpy(stack).permute(0, 3, 1, 2).float() / 255


@torch.inference_mode()
def picture_features(
    model: ChatModel,
    data: EmojiData,
    keys: Sequence[str],
    views: int,
    seed: int,
    cache: Path,
    report: Callable[[int, int], None],
) -> Tensor:
    """Return z_ANPC in half precision: the plain view first, then views - 1 augmented ones.

    `report(done, total)` is called batch by batch. The cache is used again only when pictures,
    weights of the eye, number of views and seed are the same.
    """
    eye = {name: _digest(value) for name, value in model.vision.state_dict().items()}
    decided = [data.sha256, list(keys), views, seed, model.image_size, eye]
    identity = canonical_sha256([*decided, getattr(model.vision, "settings", "")])
    if cache.is_file():
        tensors, state = read_tensors(cache)
        if state.get("identity") == identity:
            return tensors["features"]
    pictures = load_pictures(data, keys)
    generator = torch.Generator().manual_seed(seed)
    rows: list[Tensor] = []
    for view in range(views):
        for start in range(0, len(keys), _BATCH):
            x = pictures[start : start + _BATCH]
            x = augment(x, generator) if view else x
            rows.append(model.image_features(x.to(model.device)).half().cpu())
            report(view * len(keys) + start + len(x), views * len(keys))
    features = torch.cat(rows).unflatten(0, (views, len(keys)))
    write_tensors(cache, {"features": features}, {"identity": identity})
    return features


def _digest(value: Tensor) -> str:
    import hashlib

    # As bytes: numpy has no bfloat16.
    raw = value.cpu().contiguous().flatten().view(torch.uint8)
    return hashlib.sha256(raw.numpy().tobytes()).hexdigest()
