"""From a raw row to a sample: strict about texts, distrustful of pictures."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpm_eval.data._rows import decode as decode_picture
from mpm_eval.data._rows import inside
from mpm_eval.errors import CorruptImage, UserError
from training.streams.config import LANGUAGE_TAG, StreamConfig, StreamSample

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_BYTES = 1 << 28  # of one encoded picture or text: more is a mistake or an attack
_PLACEHOLDER = re.compile(r"\s*<image>\s*")


class BadSample(Exception):
    """A row that cannot be trained on; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row as the source has it; nothing is decoded."""

    shard: str
    key: str
    columns: Mapping[str, Any]  # a picture is bytes, a path, or what `datasets` makes of it
    problem: str = ""  # why it could not be read
    ends_shard: bool = False  # the problem is of the shard: what follows in it is lost


def parse_object(text: bytes) -> dict[str, Any]:
    """Return a JSON object; raises BadSample. Fields that no one reads may hold NaN."""
    try:
        value = json.loads(text.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise BadSample("not UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise BadSample(f"not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadSample("not a JSON object")
    return value


def to_sample(row: Row, config: StreamConfig, folders: Sequence[Path]) -> StreamSample:
    """Return the sample of a row, its picture decoded; raises BadSample with the reason.

    Pictures given by name are looked for in `folders`, and nowhere else.
    """
    if row.problem:
        raise BadSample(row.problem)
    for name in config.columns.values():
        if row.columns.get(name) is None:
            raise BadSample(f"no {name}")
    language = config.language
    if config.language_column:
        language = _text(row.columns[config.language_column], config.language_column)
        if not LANGUAGE_TAG.fullmatch(language):
            raise BadSample(f"{config.language_column}: '{language}' is no BCP 47 tag")
    if config.conversations_column:
        turns = _turns(row.columns[config.conversations_column], config.conversations_column)
    else:
        turns = (("", _text(row.columns[config.caption_column], config.caption_column)),)
    key = _text(f"{row.shard}:{row.key}", "key")
    image = decode(_encoded(row.columns[config.image_column], folders))
    return StreamSample(key, image, turns, language)


def _text(value: Any, column: str) -> str:
    if not isinstance(value, str):
        raise BadSample(f"{column}: not a text, but {type(value).__name__}")
    text = value.strip()
    if not text:
        raise BadSample(f"{column}: is empty")
    try:
        text.encode()
    except UnicodeEncodeError:  # JSON can say what no tokenizer takes
        raise BadSample(f"{column}: half of a surrogate pair") from None
    return text


def _turns(value: Any, column: str) -> tuple[tuple[str, str], ...]:
    """Return LLaVA's list of turns as (question, answer) pairs."""
    if not isinstance(value, list) or not value or len(value) % 2:
        raise BadSample(f"{column}: not a list of pairs of turns, human and gpt")
    texts = []
    for number, turn in enumerate(value):
        speaker = ("human", "gpt")[number % 2]
        if not isinstance(turn, Mapping) or turn.get("from") != speaker:
            raise BadSample(f"{column}: turn {number} is not of '{speaker}'")
        texts.append(_text(turn.get("value"), f"{column}: turn {number}"))
    num_pictures = sum(len(_PLACEHOLDER.findall(text)) for text in texts)
    if num_pictures > 1:
        raise BadSample(f"{column}: speaks of {num_pictures} pictures")
    texts = [_PLACEHOLDER.sub(" ", text).strip() for text in texts]
    if not all(texts[1::2]):
        raise BadSample(f"{column}: an answer is empty")
    return tuple(zip(texts[::2], texts[1::2], strict=True))


def _encoded(value: Any, folders: Sequence[Path]) -> bytes:
    """Return a picture's bytes from bytes, a path, or {"bytes", "path"}."""
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str) or not value:
        raise BadSample(f"the picture is neither bytes nor a path, but {type(value).__name__}")
    if not folders:
        raise BadSample(f"the picture is not in the data, only its name '{value}'")
    for folder in folders:
        try:
            path = inside(folder, value, "picture")
            if path.is_file():
                if path.stat().st_size > MAX_BYTES:
                    raise BadSample(f"the picture has more than {MAX_BYTES} bytes")
                return path.read_bytes()
        except UserError as error:
            raise BadSample(str(error)) from None
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            raise BadSample(f"the picture cannot be read: {error}") from None
    raise BadSample(f"no picture '{value}' in {' or '.join(f.name for f in folders)}")


def decode(content: bytes) -> "Image":
    """Return an encoded picture as evaluation decodes it; raises BadSample."""
    try:
        return decode_picture(content, "the picture")
    except CorruptImage as error:
        raise BadSample(str(error)) from None
