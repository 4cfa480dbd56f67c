"""What turns pictures into features for a distance; `open_extractor` is the only door.

Shapes: N pictures, C feature dimensions.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from mpm_eval.errors import unknown

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

EXTRACTORS = {
    "efficientnet_lite0": "efficientnet_lite0, embedded; its distance is FD-EffNetLite0, never FID",
    "inception": "inception:FILE or inception:OWNER/NAME, the network of FID; :clean at the end "
    "resizes as clean-fid does",
    "hf": "hf:FOLDER or hf:ID@REVISION, any picture encoder of transformers; CLIP gives FD-CLIP",
}


class Extractor(Protocol):
    """A frozen network with its resizing: both decide what a distance means."""

    name: str
    distance: str  # what the Fréchet distance of its features is called: FID, FD-EffNetLite0, …
    dim: int
    sha256: str  # of the weights
    signature: str  # name, weights, resize filter and size, and what else can change a feature

    def __call__(self, images: "Sequence[Image]") -> "np.ndarray":
        """Return features_NC in single precision, in order; any sizes and modes, see
        `pictures.as_rgb`. Raises ValueError for no pictures."""
        ...


def open_extractor(spec: str) -> Extractor:
    """Return the extractor that `spec` names; raises UserError for one that cannot be had."""
    kind, _, argument = spec.partition(":")
    if kind == "inception":
        from mpm_eval.images.inception import open_inception

        return open_inception(argument)
    if kind == "hf":
        from mpm_eval.images.huggingface import open_vision_tower

        return open_vision_tower(argument)
    if spec == "efficientnet_lite0":
        from mpm_eval.images.embedded import EmbeddedExtractor

        return EmbeddedExtractor()
    raise unknown("extractor", spec if kind not in EXTRACTORS else kind, EXTRACTORS, "--extractor")
