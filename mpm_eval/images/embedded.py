"""The embedded eye, EfficientNet-Lite0 on 128 pixels: features for a distance that is no FID.

Shapes: N pictures, P = 16 places of a 4 x 4 grid, C = 320 channels.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from mpm_eval.images.pictures import as_rgb

if TYPE_CHECKING:
    from PIL.Image import Image

SIZE = 128  # pixels, both sides: as the trainer
DIM = 320
_BATCH = 64
RESIZE = f"bilinear,antialias:{SIZE}"


def grids(images: "Sequence[Image]") -> np.ndarray:
    """Return z_NPC in single precision: the 320 channels before the head, on a 4 x 4 grid.

    Raises ValueError for no pictures, UserError when the weights' package is not installed.
    """
    if not images:
        raise ValueError("images: no pictures to look at")
    import torch
    from torch.nn import functional as F

    eye, _ = _eye()
    found: list[np.ndarray] = []
    with torch.inference_mode():
        for start in range(0, len(images), _BATCH):
            batch = []
            for image in images[start : start + _BATCH]:
                x_HWC = torch.from_numpy(np.array(as_rgb(image)))
                x_1CHW = x_HWC.permute(2, 0, 1)[None].float() / 255
                batch.append(
                    F.interpolate(
                        x_1CHW, (SIZE, SIZE), mode="bilinear", align_corners=False, antialias=True
                    )
                )
            found.append(eye(torch.cat(batch)).numpy())
    return np.concatenate(found)


def eye_sha256() -> str:
    """Return the SHA-256 of the weights' file."""
    return _eye()[1]


class EmbeddedExtractor:
    """The mean of the grid. It saw ImageNet photographs, as Inception did, and has 320 dimensions:
    1/6 of the pictures are enough for a covariance of full rank."""

    name = "efficientnet_lite0"
    distance = "FD-EffNetLite0"
    dim = DIM

    def __init__(self) -> None:
        import torch

        self.sha256 = eye_sha256()
        self.signature = (
            f"{self.name}|sha256:{self.sha256[:16]}|resize:{RESIZE}|pool:mean"
            f"|torch:{torch.__version__}"
        )

    def __call__(self, images: "Sequence[Image]") -> np.ndarray:
        """Return features_NC in single precision, in order."""
        return np.asarray(grids(images).mean(axis=1))


@lru_cache(maxsize=1)
def _eye() -> tuple[Any, str]:
    from training.interface import picture_encoder

    return picture_encoder()
