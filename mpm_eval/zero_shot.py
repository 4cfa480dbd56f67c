"""Zero-shot labels: derived from the training record of a checkpoint, never from a claim."""

from collections.abc import Iterable, Mapping

from mpm_eval.schema import TrainingRecord

# Up to this share of the pivot's multimodal samples is a counted handful: the published repair of
# the answer language uses "a small number of translated pairs" and is still called
# quasi-zero-shot; one in a hundred sets the language of an answer but cannot teach what is seen.
HANDFUL_SHARE = 0.01

# Text-only samples of this stage make the language model multilingual, which is the premise of
# the method and not supervision of the task. Text of every other stage counts.
PREMISE_STAGE = "align"


def label(record: TrainingRecord | None, language: str) -> str:
    """Return one of `schema.LABELS` for scores in `language`.

    Regional and script variants count as one language: a sample in zh-Hant is evidence against
    zero-shot Chinese. A language that no stage has seen at all is zero-shot.
    """
    if record is None:
        return "unknown"
    if _base(language) == _base(record.pivot):
        return "pivot"
    multimodal = _multimodal(record, language)
    if multimodal == 0:
        return "zero-shot" if _task_text(record, language) == 0 else "quasi-zero-shot"
    handful = HANDFUL_SHARE * _multimodal(record, record.pivot)
    return "quasi-zero-shot" if multimodal <= handful else "supervised"


def evidence(record: TrainingRecord | None, language: str) -> str:
    """Return one line with the counts behind `label(record, language)`."""
    if record is None:
        return "no training record: nothing is known of what the model has seen"
    multimodal = _multimodal(record, language)
    task_text = _task_text(record, language)
    premise_text = _text(record, language) - task_text
    parts = [
        f"multimodal samples: {multimodal}",
        f"text-only samples in {_names(record)}: {task_text}",
        f"text-only samples in {PREMISE_STAGE}: {premise_text}",
    ]
    if _base(language) != _base(record.pivot):
        parts[0] += f" ({record.pivot}: {_multimodal(record, record.pivot)})"
    if multimodal == task_text == premise_text == 0:
        parts.append("not seen in any stage of this record")
    return "; ".join(parts)


def _base(language: str) -> str:
    return language.replace("_", "-").split("-")[0].lower()


def _count(counts: Iterable[Mapping[str, int]], language: str) -> int:
    base = _base(language)
    return sum(n for by_tag in counts for tag, n in by_tag.items() if _base(tag) == base)


def _multimodal(record: TrainingRecord, language: str) -> int:
    return _count((stage.multimodal_samples for stage in record.stages), language)


def _text(record: TrainingRecord, language: str) -> int:
    return _count((stage.text_samples for stage in record.stages), language)


def _task_text(record: TrainingRecord, language: str) -> int:
    stages = (stage for stage in record.stages if stage.name != PREMISE_STAGE)
    return _count((stage.text_samples for stage in stages), language)


def _names(record: TrainingRecord) -> str:
    names = dict.fromkeys(s.name for s in record.stages if s.name != PREMISE_STAGE)
    return "/".join(names) or "later stages"
