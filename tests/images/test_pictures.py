"""Any picture becomes RGB on white, or says why not."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mpm_eval.errors import CorruptImage, UserError
from mpm_eval.images.pictures import as_rgb, load_picture, picture_files


def palette(transparent: bool) -> Image.Image:
    picture = Image.new("P", (2, 1), 0)
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.putpixel((1, 0), 1)
    if transparent:
        picture.info["transparency"] = 1
    return picture


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (Image.new("RGB", (1, 1), (1, 2, 3)), (1, 2, 3)),
        (Image.new("L", (1, 1), 90), (90, 90, 90)),
        (Image.new("1", (1, 1), 1), (255, 255, 255)),
        (Image.new("RGBA", (1, 1), (255, 0, 0, 0)), (255, 255, 255)),
        (Image.new("RGBA", (1, 1), (255, 0, 0, 255)), (255, 0, 0)),
        (Image.new("LA", (1, 1), (0, 0)), (255, 255, 255)),
        (Image.new("CMYK", (1, 1), (0, 0, 0, 0)), (255, 255, 255)),
        (palette(False), (255, 0, 0)),
        (Image.fromarray(np.full((1, 1), 65535, dtype=np.uint16)), (255, 255, 255)),
        (Image.fromarray(np.full((1, 1), 32896, dtype=np.uint16)), (128, 128, 128)),
        (Image.fromarray(np.full((1, 1), 200, dtype=np.int32)), (200, 200, 200)),
    ],
)
def test_every_mode_becomes_rgb_on_white(
    picture: Image.Image, expected: tuple[int, int, int]
) -> None:
    found = as_rgb(picture)
    assert found.mode == "RGB"
    assert found.getpixel((0, 0)) == expected


def test_a_transparent_palette_colour_is_white() -> None:
    found = as_rgb(palette(True))
    assert [found.getpixel((x, 0)) for x in (0, 1)] == [(255, 0, 0), (255, 255, 255)]


def test_half_transparent_red_is_pink() -> None:
    assert as_rgb(Image.new("RGBA", (1, 1), (255, 0, 0, 128))).getpixel((0, 0)) == (255, 127, 127)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (Image.new("RGB", (0, 4)), "without pixels"),
        (Image.new("F", (2, 2)), "floating-point values"),
    ],
)
def test_a_picture_that_means_nothing_is_corrupt(picture: Image.Image, message: str) -> None:
    with pytest.raises(CorruptImage, match=message):
        as_rgb(picture)


def test_a_file_is_read_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("RGB", (4, 2)).save(tmp_path / "a.jpg", exif=exif)
    assert load_picture(tmp_path / "a.jpg").size == (2, 4)


@pytest.mark.parametrize("content", [b"", b"no picture", b"TRUNCATED"])
def test_a_corrupt_file_names_itself(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(
        path
    )
    path.write_bytes(path.read_bytes()[:900] if content == b"TRUNCATED" else content)
    with pytest.raises(CorruptImage, match=r"a\.png: cannot be decoded"):
        load_picture(path)
    with pytest.raises(CorruptImage, match=r"b\.png: cannot be decoded"):
        load_picture(tmp_path / "b.png")


def test_picture_files_are_found_by_name(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "c.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in picture_files(tmp_path)] == ["a.JPG", "b.png"]


def test_a_folder_without_pictures_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no pictures \(\.bmp"):
        picture_files(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        picture_files(tmp_path / "none")
