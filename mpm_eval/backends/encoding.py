"""From a prompt and a picture to the tensors that a Hugging Face model reads, in padded batches.

Shapes: B batch, T tokens.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

Row = Mapping[str, "torch.Tensor"]  # one prompt; every tensor has a batch dimension of its own

_REMEMBERED = 16  # pictures; all languages of one are asked together


class Encoder:
    """Renders a prompt as the model's authors do and turns it into tensors, one at a time.

    `processor` is None for a model that reads text alone; `accepted` are the names of the tensors
    that the model takes.
    """

    def __init__(self, processor: Any, tokenizer: Any, accepted: Iterable[str]) -> None:
        self.tokenizer = tokenizer
        self._processor = processor
        # a processor also returns labels and sizes that only its own code reads
        self._accepted = frozenset(accepted) - {"labels"}
        self._pictures = None
        if processor is not None:
            self._pictures = _OncePerPicture(processor.image_processor)
            processor.image_processor = self._pictures

    @property
    def template(self) -> str:
        """Return where the form of a prompt comes from: "processor", "tokenizer" or "plain"."""
        if getattr(self._processor, "chat_template", None):
            return "processor"
        return "tokenizer" if self.tokenizer.chat_template else "plain"

    def render(self, prompt: str, with_picture: bool) -> str:
        """Return the text of one user turn, up to where the answer begins."""
        if self.template == "processor":
            content = [{"type": "image"}] * with_picture
            content += [{"type": "text", "text": prompt}] if prompt else []
            return self._processor.apply_chat_template(
                [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
            )
        text = f"{self._processor.image_token}\n{prompt}" if with_picture else prompt
        if self.template == "plain":
            return text
        return self.tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, tokenize=False
        )

    def encode(self, prompt: str, picture: "Image | None", answer: str = "") -> Row:
        """Return the tensors of a prompt, and of an answer begun after it.

        Raises ValueError for what the processor refuses, e.g. a prompt that holds the model's own
        image token.
        """
        text = self.render(prompt, picture is not None)
        if answer:
            # base models write a space between two texts; a template ends where an answer begins
            text += f" {answer}" if self.template == "plain" else answer
        special = self._adds_special_tokens(text)
        if self._pictures is None:
            found = self.tokenizer(text, return_tensors="pt", add_special_tokens=special)
        else:
            self._pictures.current = picture
            images = {} if picture is None else {"images": picture.convert("RGB")}
            found = self._processor(
                text=[text], return_tensors="pt", add_special_tokens=special, **images
            )
        return {name: found[name] for name in found if name in self._accepted}

    def encode_text(self, text: str) -> "tuple[Row, torch.Tensor]":
        """Return the tensors of a bare text, and which tokens_1T are the text's own."""
        found = self.tokenizer(text, return_tensors="pt", return_special_tokens_mask=True)
        own_1T = found.pop("special_tokens_mask") == 0
        return {name: found[name] for name in found if name in self._accepted}, own_1T

    def _adds_special_tokens(self, text: str) -> bool:
        if self.template == "tokenizer":
            return False  # a tokenizer's template writes all of them itself
        bos = self.tokenizer.bos_token
        return not (self.template == "processor" and bos and text.startswith(bos))


class _OncePerPicture:
    """A processor's own image processor, which remembers what it made of the last pictures.

    A picture is known by the object itself, which is kept: names may repeat between data sets.
    """

    def __init__(self, image_processor: Any) -> None:
        self._image_processor = image_processor
        self._made: dict[int, tuple[Image, Any]] = {}
        self.current: Image | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._image_processor, name)

    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        picture = self.current
        if picture is None:
            return self._image_processor(*arguments, **settings)
        if id(picture) not in self._made:
            if len(self._made) >= _REMEMBERED:
                del self._made[next(iter(self._made))]
            self._made[id(picture)] = picture, self._image_processor(*arguments, **settings)
        # processors take entries out of what they get
        return copy.copy(self._made[id(picture)][1])


def together(rows: Sequence[Row]) -> list[list[int]]:
    """Return the indices of rows that fit into one batch, padded in their text alone.

    A picture is never padded: what a processor makes of it depends on no other picture.
    """
    groups: dict[Any, list[int]] = {}
    for index, row in enumerate(rows):
        shapes = [(n, tuple(t.shape[1:])) for n, t in row.items() if not _is_text(row, t)]
        groups.setdefault((tuple(sorted(shapes)), tuple(sorted(row))), []).append(index)
    return list(groups.values())


def collate(rows: Sequence[Row], side: str, pad: int, like: Any) -> "dict[str, torch.Tensor]":
    """Return one batch, its text padded on a side, on the device and in the dtype of a model."""
    import torch
    from torch.nn.functional import pad as padded

    width = max(row["input_ids"].shape[1] for row in rows)
    batch: dict[str, torch.Tensor] = {}
    for name, first in rows[0].items():
        parts = [row[name] for row in rows]
        if _is_text(rows[0], first):
            value = pad if name == "input_ids" else 0
            parts = [
                padded(x, (width - x.shape[1], 0) if side == "left" else (0, width - x.shape[1]),
                       value=value)
                for x in parts
            ]  # fmt: skip
        whole = torch.cat(parts)
        batch[name] = whole.to(like.device, like.dtype if whole.is_floating_point() else None)
    return batch


def _is_text(row: Row, tensor: "torch.Tensor") -> bool:
    return tensor.shape == row["input_ids"].shape
