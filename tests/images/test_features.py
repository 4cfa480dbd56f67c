"""Features in batches: order kept, corrupt pictures counted, memory constant."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mpm_eval.errors import CorruptImage, UserError
from mpm_eval.images.features import extract, pictures_sha256


class Colours:
    """The mean colour: three dimensions."""

    name = "colours"
    distance = "FD-colours"
    dim = 3
    sha256 = "0" * 64
    signature = "colours|resize:none"

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, images: Sequence[Image.Image]) -> np.ndarray:
        self.batches.append(len(images))
        return np.stack([np.asarray(image).mean(axis=(0, 1)) for image in images]).astype("f4")


def picture(key: str) -> Image.Image:
    if key.startswith("bad"):
        raise CorruptImage(f"{key}: cannot be decoded")
    number = int(key)
    return Image.new("RGB", (4 + number % 2, 4), (number, 2 * number, 255 - number))


KEYS = ["0", "1", "bad1", "2", "3", "bad2", "4"]


def test_corrupt_pictures_are_counted_and_the_rest_keeps_its_order() -> None:
    found = extract(KEYS, Colours(), load=picture)
    assert found.keys == ("0", "1", "2", "3", "4")
    assert found.features_NC is not None
    assert found.features_NC[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert found.failures == {
        "bad1": "bad1: cannot be decoded",
        "bad2": "bad2: cannot be decoded",
    }
    assert found.statistics.n == 5
    assert found.sizes == {"4x4": 3, "5x4": 2}
    assert found.signature == "colours|resize:none"


def test_batches_change_nothing() -> None:
    colours = Colours()
    small = extract(KEYS, colours, load=picture, batch_size=2)
    whole = extract(KEYS, Colours(), load=picture)
    assert colours.batches == [2, 2, 1]
    assert small.sha256 == whole.sha256
    np.testing.assert_allclose(small.statistics.covariance_CC, whole.statistics.covariance_CC)


def test_features_need_not_be_kept() -> None:
    found = extract(KEYS, Colours(), load=picture, keep=False)
    assert found.features_NC is None
    assert found.statistics.n == 5


def test_no_more_than_a_batch_is_asked_for_ahead() -> None:
    asked: list[str] = []

    def load(key: str) -> Image.Image:
        asked.append(key)
        return picture(key)

    seen: list[tuple[int, int]] = []
    extract(
        map(str, range(10)), Colours(), load=load, keep=False, batch_size=3,
        report=lambda done: seen.append((done, len(asked))),
    )  # fmt: skip
    assert seen == [(3, 3), (6, 6), (9, 9), (10, 10)]


def test_the_identity_of_a_set_does_not_depend_on_order_or_encoding(tmp_path: Path) -> None:
    for name in ("0", "1"):
        picture(name).save(tmp_path / f"{name}.png")
        picture(name).save(tmp_path / f"{name}.bmp")
    png = extract([str(tmp_path / "0.png"), str(tmp_path / "1.png")], Colours())
    bmp = extract([str(tmp_path / "1.bmp"), str(tmp_path / "0.bmp")], Colours())
    other = extract(["0", "2"], Colours(), load=picture)
    assert png.sha256 == bmp.sha256 == pictures_sha256([picture("0"), picture("1")])
    assert png.sha256 != other.sha256


def test_nothing_readable_is_an_error() -> None:
    with pytest.raises(UserError, match="none of 2 pictures could be read; first 'bad1'"):
        extract(["bad1", "bad2"], Colours(), load=picture)
    with pytest.raises(UserError, match="no pictures"):
        extract([], Colours())


def test_broken_weights_are_an_error() -> None:
    class Broken(Colours):
        def __call__(self, images: Sequence[Image.Image]) -> np.ndarray:
            return np.full((len(images), 3), np.nan, dtype="f4")

    with pytest.raises(UserError, match="is not finite; its weights are broken"):
        extract(["1"], Broken(), load=picture)
