"""The shipped emoji data: concepts, names and keywords in 16 languages, four vendors' pictures."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpm_eval.errors import CorruptImage, UserError, unknown
from mpm_eval.languages import EMOJI_LANGUAGES
from mpm_eval.resources import shipped
from mpm_eval.strict import canonical_sha256, file_sha256

if TYPE_CHECKING:
    from PIL.Image import Image

VENDORS = ("noto", "twemoji", "openmoji", "fluent")
SPLITS = ("train", "validation", "test")
IMAGE_SIZE = 64  # pixels, both sides


@dataclass(frozen=True, slots=True)
class Concept:
    """One thing with a name; emoji that some vendor draws alike are one concept."""

    id: str  # code points of the canonical member: lower-case hexadecimal, joined by "-"
    members: tuple[str, ...]  # emoji, the canonical one first
    group: str
    subgroup: str
    split: str  # of SPLITS; whole subgroups, so near twins lie on one side
    # vendor -> emoji with distinct pictures, the canonical one first
    pictures: Mapping[str, tuple[str, ...]]


def codepoints(emoji: str) -> str:
    """Return the code points of `emoji`: lower-case hexadecimal, joined by "-"."""
    return "-".join(f"{ord(char):x}" for char in emoji)


def distinct(texts: Sequence[str]) -> tuple[str, ...]:
    """Return the non-empty texts, each once, in order."""
    return tuple(dict.fromkeys(text for text in texts if text))


def stable_hash(*parts: str) -> int:
    """Return 64 bits that depend on `parts` only: the source of every deterministic choice here."""
    digest = hashlib.sha256("\x1f".join(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big")


class EmojiData:
    """The emoji data in one folder, read on first use; get the shipped one from `emoji_data()`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def _splits(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self._file("splits.json").read_text("utf-8"))
        return content

    @cached_property
    def _rows(self) -> dict[str, dict[str, Any]]:
        import pyarrow.parquet as pq

        rows = pq.read_table(self._file("labels.parquet")).to_pylist()
        return {row["emoji"]: row for row in rows}

    @cached_property
    def concepts(self) -> tuple[Concept, ...]:
        """All concepts, in the order of splits.json."""
        return tuple(
            Concept(
                id=row["concept"],
                members=tuple(row["members"]),
                group=row["group"],
                subgroup=row["subgroup"],
                split=row["split"],
                pictures={v: tuple(found) for v, found in row["pictures"].items()},
            )
            for row in self._splits["concepts"]
        )

    @cached_property
    def styles(self) -> dict[str, tuple[str, ...]]:
        """The vendors of each split."""
        return {split: tuple(vendors) for split, vendors in self._splits["styles"].items()}

    @cached_property
    def sha256(self) -> str:
        """Hash over the hashes of labels, pictures, splits and the question templates."""
        images = sorted(f"images/{vendor}.parquet" for vendor in VENDORS)
        names = [*images, "labels.parquet", "qa.toml", "splits.json"]
        return canonical_sha256({name: file_sha256(self._file(name)) for name in names})

    def names(self, concept: Concept, language: str) -> tuple[str, ...]:
        """Return the distinct names of all members, the canonical one's first.

        Empty when no member has a name: the concept is then missing in that language (some names
        in Swahili and Hindi are).
        """
        self._require(language)
        return distinct([self._rows[emoji][language] or "" for emoji in concept.members])

    def name(self, concept: Concept, language: str) -> str:
        """Return the first of `names`, or "" when the concept is missing in that language."""
        return next(iter(self.names(concept, language)), "")

    def keywords(self, concept: Concept, language: str) -> tuple[str, ...]:
        """Return the distinct keywords of all members, the canonical one's first."""
        self._require(language)
        column = f"keywords_{language}"
        return distinct([k for emoji in concept.members for k in self._rows[emoji][column] or ()])

    def references(self, concept: Concept, language: str) -> tuple[str, ...]:
        """Return names, then keywords, distinct; empty when the concept has no name."""
        names = self.names(concept, language)
        return distinct([*names, *self.keywords(concept, language)]) if names else ()

    def pictures(self, split: str) -> tuple[tuple[str, Concept], ...]:
        """Return (picture key, concept) for the canonical pictures in the styles of `split`.

        One picture per concept and vendor, vendor by vendor, concepts in file order. All concepts
        are returned, whatever their own split.
        """
        if split not in self.styles:
            raise unknown("split", split, self.styles, "emoji")
        return tuple(
            (f"{vendor}/{codepoints(concept.pictures[vendor][0])}", concept)
            for vendor in self.styles[split]
            for concept in self.concepts
            if vendor in concept.pictures
        )

    @cached_property
    def _bytes(self) -> dict[str, dict[str, bytes]]:
        return {}

    def _vendor(self, vendor: str) -> dict[str, bytes]:
        if vendor not in VENDORS:
            raise unknown("vendor", vendor, VENDORS, "emoji")
        if vendor not in self._bytes:
            import pyarrow.parquet as pq

            table = pq.read_table(self._file(f"images/{vendor}.parquet"))
            emoji, images = table["emoji"].to_pylist(), table["image"].to_pylist()
            self._bytes[vendor] = {
                codepoints(one): image for one, image in zip(emoji, images, strict=True)
            }
        return self._bytes[vendor]

    def image_bytes(self, vendor: str, emoji: str) -> bytes:
        """Return the encoded picture (WebP) of `emoji`; raises KeyError if the vendor has none."""
        return self._vendor(vendor)[codepoints(emoji)]

    def load_image(self, key: str) -> "Image":
        """Return the RGB picture, 64x64, of a key "vendor/code points".

        Raises CorruptImage when there is no such picture or it cannot be decoded.
        """
        import io

        from PIL import Image

        vendor, _, emoji = key.partition("/")
        if vendor not in VENDORS or emoji not in self._vendor(vendor):
            raise CorruptImage(f"emoji: no picture '{key}'")
        try:
            picture = Image.open(io.BytesIO(self._vendor(vendor)[emoji])).convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise CorruptImage(f"emoji: picture '{key}' cannot be decoded: {error}") from error
        if picture.size != (IMAGE_SIZE, IMAGE_SIZE):
            # One Fluent drawing is 63 wide; white is the background of all.
            square = Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), "white")
            square.paste(picture, (0, 0))
            return square
        return picture

    def _file(self, name: str) -> Path:
        path = self.folder / name
        if not path.is_file():
            raise UserError(f"{path}: missing; the shipped emoji data is incomplete, install again")
        return path

    @staticmethod
    def _require(language: str) -> None:
        if language not in EMOJI_LANGUAGES:
            raise unknown("language", language, EMOJI_LANGUAGES, "emoji")


@lru_cache(maxsize=1)
def emoji_data() -> EmojiData:
    """Return the shipped emoji data, loaded once in a process."""
    return EmojiData(shipped("tasks") / "data" / "emoji")
