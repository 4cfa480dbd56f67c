"""The tokenizer of a from-scratch language model, and the language-neutral chat template."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

PAD, BOS, EOS, UNK, SOURCE, USER, ASSISTANT, IMAGE = range(8)
_SPECIAL = ["<pad>", "<bos>", "<eos>", "<unk>", "<source>", "<user>", "<assistant>", "<image>"]


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Return a BPE tokenizer with byte fallback: no text is out of its vocabulary."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(), decoders.Fuse()]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=_SPECIAL + [f"<0x{byte:02X}>" for byte in range(256)],
        show_progress=False,
        min_frequency=2,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


@dataclass(frozen=True, slots=True)
class Example:
    """One training example: a source (text or picture), a question about it and the answer."""

    question: str
    answer: str
    source: str = ""  # text in the place of the picture
    image: int = -1  # index of a picture's features; -1: the source is text
    language: str = ""  # of question and answer


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of one example; the source's slot is ids[2 : 2 + num_source]."""

    ids: list[int]
    num_source: int
    num_answer: int  # answer tokens at the end, the closing <eos> included


class ChatTokenizer:
    """Renders `<bos><source>…<user>question<assistant>answer<eos>`.

    The source slot holds either words or the placeholders that visual tokens overwrite: a picture
    stands where a text stood when the language model was trained. The template has no word of any
    language; only the question says which language is asked for.
    """

    def __init__(self, tokenizer: Tokenizer, num_visual: int):
        self.tokenizer, self.num_visual = tokenizer, num_visual
        self._cache: dict[str, list[int]] = {}

    @property
    def vocab_size(self) -> int:
        return int(self.tokenizer.get_vocab_size())

    def encode(self, text: str) -> list[int]:
        """Return the ids of plain text; special tokens in it are text, never control."""
        ids = self._cache.get(text)
        if ids is None:
            # A model's or user's "<eos>" must not end the prompt.
            plain = text.replace("<", "‹") if "<" in text else text
            ids = self._cache[text] = self.tokenizer.encode(plain, add_special_tokens=False).ids
        return ids

    def prompt(self, question: str, source: str = "", max_source: int = 32) -> Encoded:
        """Return the ids up to <assistant>; an empty `source` means a picture's placeholders."""
        slot = self.encode(source)[:max_source] if source else [IMAGE] * self.num_visual
        ids = [BOS, SOURCE, *slot, USER, *self.encode(question), ASSISTANT]
        return Encoded(ids, len(slot), 0)

    def example(self, example: Example) -> Encoded:
        """Return the ids of a whole example."""
        prompt = self.prompt(example.question, example.source)
        answer = [*self.encode(example.answer), EOS]
        return Encoded(prompt.ids + answer, prompt.num_source, len(answer))

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text up to the first <eos>."""
        kept = list(ids)
        if EOS in kept:
            kept = kept[: kept.index(EOS)]
        return str(self.tokenizer.decode(kept)).strip()
