"""Pictures: thumbnails as data addresses, each once, as small as the whole file needs them."""

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mpm_eval.data import Dataset
from mpm_eval.errors import CorruptImage, UserError

if TYPE_CHECKING:
    from PIL.Image import Image

# (longest side in pixels, WebP quality): the first at which all pictures fit is taken
SIZES = ((96, 70), (96, 45), (72, 45), (56, 40), (40, 35))
NONE, UNREADABLE = -1, -2


class Pictures:
    """The thumbnails of a report; the same picture of two samples is kept once."""

    def __init__(self) -> None:
        self._thumbnails: list[Image] = []
        self._places: dict[bytes, int] = {}

    def add(self, dataset: Dataset, key: str | None) -> int:
        """Return the place of a sample's picture, NONE without one, UNREADABLE for a broken one."""
        if key is None:
            return NONE
        try:
            picture = dataset.load_image(key)
        except (CorruptImage, UserError):
            return UNREADABLE
        thumbnail = _on_white(picture)
        thumbnail.thumbnail((SIZES[0][0], SIZES[0][0]))
        content = thumbnail.tobytes() + repr(thumbnail.size).encode()
        if content not in self._places:
            self._places[content] = len(self._thumbnails)
            self._thumbnails.append(thumbnail)
        return self._places[content]

    def addresses(self, max_bytes: int) -> list[str]:
        """Return a data: address for each place, together at most `max_bytes` where that can be."""
        found: list[str] = []
        for side, quality in SIZES:
            found = [_address(picture, side, quality) for picture in self._thumbnails]
            if _size(found) <= max_bytes:
                break
        return found


def _on_white(picture: "Image") -> "Image":
    from PIL import Image

    if "A" not in picture.getbands() and "transparency" not in picture.info:
        return picture.convert("RGB")
    picture = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


def _address(picture: "Image", side: int, quality: int) -> str:
    small = picture.copy()
    small.thumbnail((side, side))
    stream = io.BytesIO()
    small.save(stream, "WEBP", quality=quality, method=4)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()


def _size(addresses: Sequence[str]) -> int:
    return sum(map(len, addresses))
