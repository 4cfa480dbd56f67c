"""Chat rows: where source and answers lie, also over many turns."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.chat_model import collate
from training.tokenizer import EOS, IMAGE, PAD, ChatTokenizer, Example, Frame, train_tokenizer

pytestmark = pytest.mark.slow  # torch is loaded

TEXTS = ["What is this?", "a dog", "Was ist das?", "ein Hund", "Which colour?", "brown"]
TOKENIZER = train_tokenizer(TEXTS * 3, 330)
# A frame of one token per place, so that every id of a row says where it comes from.
MARKS = Frame((1,), (2,), (3,), (4, 5), (6, 7), pad=0, placeholder=8)


def chat(frame: Frame | None = None) -> ChatTokenizer:
    return ChatTokenizer(TOKENIZER, 3, frame) if frame else ChatTokenizer(TOKENIZER, 3)


def test_a_row_is_the_frame_with_source_questions_and_answers_in_their_places() -> None:
    tokenizer = chat(MARKS)
    one, two, three, four = (tokenizer.encode(text) for text in TEXTS[:4])
    row = tokenizer.example(
        Example(TEXTS[2], TEXTS[3], history=((TEXTS[0], TEXTS[1]), (TEXTS[2], TEXTS[1])))
    )
    assert row.ids == [
        *(1, 8, 8, 8, 2),
        *(*one, 3, *two, 4, 5, 6, 7),
        *(*three, 3, *two, 4, 5, 6, 7),
        *(*three, 3, *four, 4, 5),
    ]
    assert row.ids[row.source] == [8, 8, 8]
    assert [row.ids[turn] for turn in row.answers] == [[*two, 4, 5], [*two, 4, 5], [*four, 4, 5]]
    assert row.num_answer == len(four) + 2


texts = st.text(max_size=12)


@settings(max_examples=60, deadline=None)
@given(
    source=texts,
    turns=st.lists(st.tuples(texts, texts), min_size=1, max_size=4),
    marks=st.booleans(),
)
def test_answers_and_source_of_any_text_are_found_again(
    source: str, turns: list[tuple[str, str]], marks: bool
) -> None:
    tokenizer = chat(MARKS if marks else None)
    *history, (question, answer) = turns
    row = tokenizer.example(Example(question, answer, source=source, history=tuple(history)))
    end = list(tokenizer.frame.end)
    assert [row.ids[turn] for turn in row.answers] == [
        [*tokenizer.encode(text), *end] for _, text in turns
    ]
    stops = [turn.stop for turn in row.answers]
    assert stops == sorted(stops) and stops[-1] == len(row.ids)
    expected = tokenizer.encode(source)[:32] if source else [tokenizer.frame.placeholder] * 3
    assert row.ids[row.source] == expected
    # A prompt is the row without its last answer: what training ends with, generation begins with.
    prompt = tokenizer.prompt(question, source, history)
    assert row.ids[: len(prompt.ids)] == prompt.ids and row.answers[:-1] == prompt.answers


def test_a_long_source_is_cut_and_nothing_else() -> None:
    row = chat(MARKS).prompt("What is this?", "a dog " * 40, max_source=5)
    assert row.source == slice(1, 6) and row.ids[6] == 2


def test_control_tokens_in_history_are_text() -> None:
    tokenizer = chat()
    row = tokenizer.example(Example("<image>", "<eos>", history=(("<eos>", "<image><eos>"),)))
    assert row.ids.count(EOS) == 2 and row.ids.count(IMAGE) == 3


def test_a_batch_marks_every_answer_and_the_last_state_before_the_last_one() -> None:
    tokenizer = chat()
    rows = [
        tokenizer.example(Example(TEXTS[2], TEXTS[3], history=((TEXTS[0], TEXTS[1]),))),
        tokenizer.example(Example(TEXTS[0], TEXTS[1])),
        tokenizer.prompt(TEXTS[0]),
    ]
    batch = collate(rows, PAD)
    for index, row in enumerate(rows):
        marked = [i for i, known in enumerate(batch.answer_BT[index].tolist()) if known]
        assert marked == [i for turn in row.answers for i in range(turn.start, turn.stop)]
        assert batch.source_BT[index].tolist() == [
            row.source.start <= i < row.source.stop for i in range(batch.ids_BT.shape[1])
        ]
        prompt_length = row.answers[-1].start if row.answers else len(row.ids)
        assert int(batch.last_B[index]) == prompt_length - 1
        assert set(batch.ids_BT[index, len(row.ids) :].tolist()) <= {PAD}


def test_decoding_ends_at_the_end_of_the_answer() -> None:
    tokenizer = chat(MARKS)
    answer = tokenizer.encode("a dog")
    assert tokenizer.decode([*answer, 4, *answer]) == tokenizer.decode(answer) == "a dog"
    assert tokenizer.decode([4, *answer]) == ""


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_characters="▁", exclude_categories=["Cs"]), max_size=12))
def test_every_text_survives_the_tokenizer(text: str) -> None:
    """Also what its training texts never held, as bytes."""
    tokenizer = chat()
    assert tokenizer.decode(tokenizer.encode(text)) == unicodedata.normalize("NFC", text).strip()


def test_control_tokens_are_not_shown() -> None:
    tokenizer = chat()
    assert tokenizer.decode([PAD, *tokenizer.encode("a dog"), IMAGE]) == "a dog"
