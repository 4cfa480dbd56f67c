"""Zero-shot labels from training records."""

import pytest

from mpm_eval.schema import LABELS, StageRecord, TrainingRecord
from mpm_eval.zero_shot import evidence, label


def stage(
    name: str, multimodal: dict[str, int] | None = None, text: dict[str, int] | None = None
) -> StageRecord:
    return StageRecord(name, {"emoji": "0" * 64}, multimodal or {}, text or {}, steps=1, seed=0)


def record(*stages: StageRecord) -> TrainingRecord:
    return TrainingRecord("r.toml", "en", stages, {})


PIVOT_ONLY = stage("pretrain", {"en": 1000})

CASES = [
    ("nothing", [PIVOT_ONLY], "zero-shot"),
    ("text in align is the premise", [stage("align", text={"zh": 900}), PIVOT_ONLY], "zero-shot"),
    ("text in pretrain", [stage("pretrain", {"en": 1000}, {"zh": 1})], "quasi-zero-shot"),
    ("text in instruct", [PIVOT_ONLY, stage("instruct", text={"zh": 5000})], "quasi-zero-shot"),
    ("text in a stage of another name", [PIVOT_ONLY, stage("paint", text={"zh": 1})],
     "quasi-zero-shot"),
    ("a handful", [stage("pretrain", {"en": 1000, "zh": 10})], "quasi-zero-shot"),
    ("one more than a handful", [stage("pretrain", {"en": 1000, "zh": 11})], "supervised"),
    ("handfuls add up over stages",
     [stage("pretrain", {"en": 500, "zh": 6}), stage("instruct", {"en": 500, "zh": 6})],
     "supervised"),
    ("pictures in align", [stage("align", {"zh": 500}), PIVOT_ONLY], "supervised"),
    ("another script of the language", [stage("pretrain", {"en": 1000, "zh-Hant": 500})],
     "supervised"),
    ("no pivot pairs at all", [stage("pretrain", {"zh": 1})], "supervised"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "stages", "expected"), CASES, ids=[c[0] for c in CASES])
def test_the_label_follows_the_samples_of_the_record(
    what: str, stages: list[StageRecord], expected: str
) -> None:
    assert label(record(*stages), "zh") == expected
    assert expected in LABELS


def test_without_a_record_the_label_is_unknown_even_for_the_pivot() -> None:
    assert label(None, "en") == label(None, "zh") == "unknown"
    assert "no training record" in evidence(None, "zh")


def test_the_pivot_of_the_record_is_labelled_pivot() -> None:
    assert label(record(PIVOT_ONLY), "en") == "pivot"
    assert (
        label(TrainingRecord("r", "de", (stage("pretrain", {"de": 9}),), {}), "en") == "zero-shot"
    )


def test_a_language_never_seen_is_zero_shot_and_the_evidence_says_so() -> None:
    seen = record(stage("align", text={"zh": 900}), PIVOT_ONLY)
    assert label(seen, "sw") == "zero-shot"
    assert "not seen in any stage" in evidence(seen, "sw")
    assert "not seen in any stage" not in evidence(seen, "zh")


def test_the_evidence_gives_the_counts_in_one_line() -> None:
    line = evidence(
        record(stage("align", text={"zh": 900}), stage("pretrain", {"en": 1000, "zh": 7})), "zh"
    )
    assert line == (
        "multimodal samples: 7 (en: 1000); text-only samples in pretrain: 0; "
        "text-only samples in align: 900"
    )
