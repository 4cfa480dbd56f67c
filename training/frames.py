"""Chat frames of pretrained language models: lines without a word, or the model's own template."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from mpm_eval.errors import UserError
from mpm_eval.strict import read_json
from training.provenance import one_line
from training.tokenizer import Frame

TEMPLATES = ("lines", "chat")
_SOURCE, _QUESTION, _ANSWER, _NEXT = "⟦source⟧", "⟦question⟧", "⟦answer⟧", "⟦next⟧"


def frame_of(folder: Path, tokenizer: Tokenizer, template: str) -> Frame:
    """Return the frame of the language model in `folder`.

    "lines" puts source, question and answer on lines of their own, which any base model can read;
    "chat" is the chat template that came with the model. Raises UserError for a model that has
    none, or whose config names no end of text.
    """
    config = read_json(folder / "config.json")
    end = _first(config.get("eos_token_id"))
    if end is None:
        raise UserError(f"{folder / 'config.json'}: eos_token_id is missing")
    pad = _first(config.get("pad_token_id"))
    if template == "chat":
        return _chat(folder, tokenizer, end if pad is None else pad)
    if template != "lines":
        raise UserError(
            f"language_model.template: expected one of {', '.join(TEMPLATES)}, got '{template}'"
        )
    begin = _first(config.get("bos_token_id"))
    line = tuple(tokenizer.encode("\n", add_special_tokens=False).ids)
    head = () if begin is None else (begin,)
    filler = line[0] if pad is None else pad
    return Frame(head, line, line, (end,), line, pad=filler, placeholder=filler)


def _first(value: Any) -> int | None:
    """Return a token id; configs hold one, a list of them, or null."""
    if isinstance(value, list):
        value = value[0] if value else None
    return value if isinstance(value, int) else None


def _chat(folder: Path, tokenizer: Tokenizer, pad: int) -> Frame:
    from transformers import AutoTokenizer

    owner = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if not owner.chat_template:
        raise UserError(f'{folder}: the model has no chat template; set template = "lines"')
    turns = [
        {"role": "user", "content": f"{_SOURCE}\n{_QUESTION}"},
        {"role": "assistant", "content": _ANSWER},
        {"role": "user", "content": _NEXT},
    ]
    pieces = _cut(_rendered(owner, turns, folder), (_SOURCE, _QUESTION, _ANSWER, _NEXT), folder)
    tail = _rendered(owner, turns[:1], folder, ask=True).partition(_QUESTION)[2]
    # Between an answer and the next question stand the end of a turn and the start of another; a
    # blank in front of them (Llama 2) would stop an answer at its first space.
    between_turns = pieces[3].lstrip(" ")
    tokenizer.encode_special_tokens = False
    ids = [
        tuple(tokenizer.encode(p, add_special_tokens=False).ids)
        for p in (*pieces[:2], tail, between_turns)
    ]
    tokenizer.encode_special_tokens = True
    head, middle, tail_ids, between = ids
    return Frame(head, middle, tail_ids, between[:1], between[1:], pad=pad, placeholder=pad)


def _rendered(owner: Any, turns: Sequence[Any], folder: Path, ask: bool = False) -> str:
    try:
        text = owner.apply_chat_template(turns, tokenize=False, add_generation_prompt=ask)
    except Exception as error:  # a template is a program and raises what it likes
        raise UserError(
            f'{folder}: its chat template fails ({one_line(error)}); set template = "lines"'
        ) from None
    return str(text)


def _cut(text: str, marks: Sequence[str], folder: Path) -> list[str]:
    """Return what stands before each mark."""
    pieces = []
    for mark in marks:
        before, found, text = text.partition(mark)
        if not found:
            raise UserError(f"{folder}: its chat template leaves out part of a message")
        pieces.append(before)
    return pieces
