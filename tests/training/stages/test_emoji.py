"""Stages on the emoji data: the evidence they leave, and what they may draw."""

from collections.abc import Callable

import pytest

from mpm_eval.errors import UserError
from training.stages import open_stage
from training.stages.base import Context, losses
from training.tokenizer import Example

pytestmark = pytest.mark.slow  # torch is loaded

STAGES = ("align", "spell", "pretrain", "instruct")
OneContext = Callable[..., Context]


def drawn(context: Context, stage: str) -> list[Example]:
    opened = open_stage(stage, context)
    return [e for step in range(opened.config.steps) for e in opened.examples(step)]


@pytest.mark.parametrize("stage", STAGES)
def test_a_record_counts_the_distinct_samples_of_each_language(
    context_of: OneContext, stage: str
) -> None:
    context = context_of("instruct.translated_pairs=5", "instruct.translated_share=0.5")
    examples = drawn(context, stage)
    record = open_stage(stage, context).record([4.0, 2.0], 1.5)
    for multimodal, counts in ((True, record.multimodal_samples), (False, record.text_samples)):
        kept = [e for e in examples if (e.image >= 0) is multimodal]
        assert dict(counts) == {
            language: len(
                {(e.image, e.source, e.question, e.answer) for e in kept if e.language == language}
            )
            for language in sorted({e.language for e in kept})
        }
    assert record.samples_seen == len(examples) and record.steps == len(examples) // 8
    seen = {e.image for e in examples if e.image >= 0}
    assert sum(record.images.values()) == len(seen)
    assert record.images == {
        vendor: sum(context.pictures[i].vendor == vendor for i in seen)
        for vendor in {context.pictures[i].vendor for i in seen}
    }
    assert (record.name, record.losses["validation"]) == (stage, 1.5)


@pytest.mark.parametrize(
    ("stage", "multimodal", "text", "trained"),
    [
        ("align", set(), {"de", "en"}, ("lm",)),
        ("spell", {"en"}, set(), ("bridge",)),
        ("pretrain", {"en"}, set(), ("bridge",)),
        ("instruct", {"en"}, set(), ("bridge",)),
    ],
)
def test_without_translated_pairs_pictures_come_with_the_pivot_alone(
    context_of: OneContext,
    stage: str,
    multimodal: set[str],
    text: set[str],
    trained: tuple[str, ...],
) -> None:
    context = context_of("instruct.translated_pairs=0", "instruct.steps=20")
    record = open_stage(stage, context).record([1.0], 1.0)
    assert set(record.multimodal_samples) == multimodal and set(record.text_samples) == text
    assert record.trained == trained


def test_k_translated_pairs_are_at_most_k_samples_of_each_target_language(
    context_of: OneContext,
) -> None:
    context = context_of(
        "instruct.translated_pairs=2", "instruct.steps=40", "instruct.translated_share=0.5"
    )
    record = open_stage("instruct", context).record([1.0], 1.0)
    assert record.multimodal_samples["de"] == 2 < record.multimodal_samples["en"]


def test_more_translated_pairs_than_pictures_are_told(context_of: OneContext) -> None:
    context = context_of("instruct.translated_pairs=25")
    with pytest.raises(
        UserError, match=r"translated_pairs: 25 pairs per language, but 24 training"
    ):
        open_stage("instruct", context).examples(0)


def test_instruct_trains_the_language_model_only_when_asked(context_of: OneContext) -> None:
    context = context_of("instruct.train_language_model=true")
    assert open_stage("instruct", context).record([1.0], 1.0).trained == ("bridge", "lm")


@pytest.mark.parametrize("stage", STAGES)
def test_a_step_draws_the_same_examples_whatever_came_before(
    context_of: OneContext, stage: str
) -> None:
    context = context_of()
    forwards = [open_stage(stage, context).examples(step) for step in (0, 1, 17)]
    opened = open_stage(stage, context)
    backwards = [opened.examples(step) for step in (17, 1, 0)]
    assert forwards == backwards[::-1]
    assert forwards[0] != forwards[1]


@pytest.mark.parametrize("stage", STAGES)
def test_every_answer_that_a_stage_draws_is_among_the_words_of_the_data(
    context_of: OneContext, stage: str
) -> None:
    """Else the restricted softmax would have no place for a label."""
    context = context_of("engine.data_vocabulary=true")
    tokenizer, words = context.model.tokenizer, context.words
    assert words is not None and len(words.ids_V) < tokenizer.vocab_size
    known = set(words.ids_V.tolist())
    opened = open_stage(stage, context)
    for step in range(40):
        for example in opened.examples(step):
            row = tokenizer.example(example)
            assert known.issuperset(id for turn in row.answers for id in row.ids[turn])


def test_the_losses_of_a_record_are_means_of_a_twentieth() -> None:
    curve = [float(value) for value in range(40)]
    assert losses(curve, 7.0) == {"first": 0.5, "last": 38.5, "validation": 7.0}
    assert losses([3.0, 1.0], 2.0) == {"first": 3.0, "last": 1.0, "validation": 2.0}
