"""What a stream is told, and what it gives: its configuration and its samples."""

import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from mpm_eval.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

LANGUAGE_TAG = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")


@dataclass(frozen=True)
class StreamConfig:
    """Where training data comes from and how its rows are read.

    In tars a column is the ending of a member or a field of the sample's .json; there `image` is
    the picture whatever its ending, and `caption` the .txt, or without one the field of that name.
    """

    # A hub id (owner/name, or owner/name:config), a folder of parquet files or of save_to_disk, a
    # .jsonl file beside its pictures, or tars: shards/{00000..00009}.tar or shards/*.tar
    source: str
    revision: str = ""  # of a hub data set: its commit, 40 hexadecimal digits
    split: str = "train"  # of a hub data set or a folder; "": all parquet files of a folder
    image_column: str = "image"
    caption_column: str = "caption"
    conversations_column: str = ""  # of {"from", "value"} turns, as LLaVA's; instead of captions
    language: str = "en"  # of all samples, or:
    language_column: str = ""
    shuffle_buffer: int = 1000  # samples held encoded in memory and given in random order; 1: none
    max_bad: float = 0.01  # share of an epoch's samples that may be broken before training stops

    @property
    def columns(self) -> dict[str, str]:
        """The columns that every sample must have, by the key that names them."""
        text = "conversations_column" if self.conversations_column else "caption_column"
        keys = ("image_column", text, *(("language_column",) if self.language_column else ()))
        return {key: getattr(self, key) for key in keys}

    def check(self) -> None:
        """Raise UserError for a value that no stream can work with."""
        for key, name in self.columns.items():
            if not name:
                raise UserError(f"{self.source}: {key}: is empty; give the name of a column")
        if self.shuffle_buffer < 1:
            raise UserError(
                f"{self.source}: shuffle_buffer: must be at least 1 (no shuffling), "
                f"got {self.shuffle_buffer}"
            )
        if not 0 <= self.max_bad <= 1:
            raise UserError(
                f"{self.source}: max_bad: must be a share from 0 to 1, got {self.max_bad}"
            )
        if not LANGUAGE_TAG.fullmatch(self.language):
            raise UserError(
                f"{self.source}: language: '{self.language}' is no BCP 47 tag such as en or zh-Hant"
            )


# What changes neither order nor content: moved data and a raised limit may be resumed.
FREE_ON_RESUME = ("source", "max_bad")
BINDING = tuple(f.name for f in fields(StreamConfig) if f.name not in FREE_ON_RESUME)


@dataclass(frozen=True)
class StreamSample:
    """One picture with what is said about it."""

    key: str  # "shard:key", unique in the data
    image: "Image"  # RGB, decoded, upright
    turns: tuple[tuple[str, str], ...]  # (question, answer); a caption answers the question ""
    language: str
