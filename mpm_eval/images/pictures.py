"""Pictures as networks want them: RGB on white, whatever their mode, or a reason why not."""

from pathlib import Path
from typing import TYPE_CHECKING

from mpm_eval.errors import CorruptImage, UserError

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
_DEEP = ("I", "I;16", "I;16B", "I;16L")  # grey of more than 8 bits
_TRANSPARENT = ("RGBA", "LA", "PA", "RGBa", "La")


def as_rgb(picture: "Image") -> "Image":
    """Return the picture in RGB, transparent parts on white, grey and palettes spread out.

    Raises CorruptImage for a picture without pixels and for one of floating-point values, whose
    range nobody states.
    """
    from PIL import Image

    if 0 in picture.size:
        raise CorruptImage("a picture without pixels")
    if picture.mode == "F":
        raise CorruptImage("a picture of floating-point values; save it with 8 bits a channel")
    if picture.mode in _DEEP:
        return _from_deep(picture)
    if picture.mode in _TRANSPARENT or "transparency" in picture.info:
        clear = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def load_picture(path: str | Path) -> "Image":
    """Return the RGB picture of a file, upright, the first frame of an animation.

    Raises CorruptImage for a file that is missing or cannot be decoded to its end.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as picture:
            return as_rgb(ImageOps.exif_transpose(picture))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise CorruptImage(f"{path}: cannot be decoded: {error}") from error
    except CorruptImage as error:
        raise CorruptImage(f"{path}: {error}") from error


def picture_files(folder: str | Path) -> tuple[Path, ...]:
    """Return the picture files in a folder, by name; UserError when there are none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give a folder of pictures")
    found = tuple(
        sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    )  # fmt: skip
    if not found:
        raise UserError(f"{folder}: no pictures ({', '.join(sorted(SUFFIXES))})")
    return found


def _from_deep(picture: "Image") -> "Image":
    """Return 8 bits of a deep grey picture: Pillow's own conversion cuts at 255, to white."""
    import numpy as np
    from PIL import Image

    grey_HW = np.asarray(picture).astype(np.int64)
    if grey_HW.max() > 255 or picture.mode != "I":
        grey_HW = np.clip(grey_HW, 0, 65535) // 257
    return Image.fromarray(np.clip(grey_HW, 0, 255).astype(np.uint8)).convert("RGB")
