"""Tokens: the tokenizer of a new language model, and the frames that hold picture and question."""

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
    view: int = 0  # which of the picture's views
    language: str = ""  # of question and answer
    history: tuple[tuple[str, str], ...] = ()  # earlier questions and answers, all of them learned


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of one example with the places of source and answers."""

    ids: list[int]
    source: slice
    answers: tuple[slice, ...] = ()  # the end of each turn included

    @property
    def num_answer(self) -> int:
        """Tokens of the last answer."""
        return self.answers[-1].stop - self.answers[-1].start if self.answers else 0


@dataclass(frozen=True, slots=True)
class Frame:
    """A chat template as token ids: head SOURCE middle question tail answer end [next question …].

    `placeholder` fills the source's slot until visual tokens overwrite it; no answer may hold it.
    """

    head: tuple[int, ...]
    middle: tuple[int, ...]
    tail: tuple[int, ...]
    end: tuple[int, ...]  # its first token stops an answer
    next: tuple[int, ...]  # between the end of an answer and the next question
    pad: int
    placeholder: int


# No word of any language: only the question says which language is asked for.
NEUTRAL = Frame((BOS, SOURCE), (USER,), (ASSISTANT,), (EOS,), (USER,), PAD, IMAGE)


class ChatTokenizer:
    """Renders a source, questions and answers in the frame of a language model.

    The source slot holds either words or placeholders: a picture stands where a text stands.
    """

    def __init__(self, tokenizer: Tokenizer, num_visual: int, frame: Frame = NEUTRAL):
        self.tokenizer, self.num_visual, self.frame = tokenizer, num_visual, frame
        # A model's or user's "<eos>" must not end the prompt: in plain text it is plain text.
        self.tokenizer.encode_special_tokens = True
        # The bytes of a new tokenizer are special tokens to its library, but they are text.
        added = tokenizer.get_added_tokens_decoder()
        self._control = {
            id for id, token in added.items() if token.special and token.content[:3] != "<0x"
        }
        self._cache: dict[str, list[int]] = {}

    @property
    def vocab_size(self) -> int:
        return int(self.tokenizer.get_vocab_size())

    @property
    def stop(self) -> int:
        """The token that ends an answer."""
        return self.frame.end[0]

    def encode(self, text: str) -> list[int]:
        """Return the ids of plain text; special tokens in it are text, never control."""
        ids = self._cache.get(text)
        if ids is None:
            ids = self._cache[text] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def prompt(
        self,
        question: str,
        source: str = "",
        history: Sequence[tuple[str, str]] = (),
        max_source: int = 32,
    ) -> Encoded:
        """Return the ids up to the answer; an empty `source` means a picture's placeholders."""
        frame = self.frame
        slot = self.encode(source)[:max_source] if source else [frame.placeholder] * self.num_visual
        start = len(frame.head)
        ids = [*frame.head, *slot, *frame.middle]
        answers: list[slice] = []
        for asked, answer in history:
            ids += [*self.encode(asked), *frame.tail]
            turn = [*self.encode(answer), *frame.end]
            answers.append(slice(len(ids), len(ids) + len(turn)))
            ids += [*turn, *frame.next]
        ids += [*self.encode(question), *frame.tail]
        return Encoded(ids, slice(start, start + len(slot)), tuple(answers))

    def example(self, example: Example) -> Encoded:
        """Return the ids of a whole example."""
        prompt = self.prompt(example.question, example.source, example.history)
        return self.answered(prompt, example.answer)

    def answered(self, prompt: Encoded, answer: str) -> Encoded:
        """Return a prompt with an answer and its end."""
        ids = [*prompt.ids, *self.encode(answer), *self.frame.end]
        return Encoded(ids, prompt.source, (*prompt.answers, slice(len(prompt.ids), len(ids))))

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text up to the first end of an answer."""
        kept = list(ids)
        if self.stop in kept:
            kept = kept[: kept.index(self.stop)]
        kept = [id for id in kept if id not in self._control]
        return str(self.tokenizer.decode(kept, skip_special_tokens=False)).strip()
