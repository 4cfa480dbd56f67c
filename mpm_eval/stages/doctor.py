"""Doctor: whether a model is called right: batches, order, determinism, image used, language."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mpm_eval.backends import Backend
from mpm_eval.data import Dataset, open_dataset
from mpm_eval.errors import UserError
from mpm_eval.schema import Prediction, Sample, Task
from mpm_eval.stages.answer import Pictures, answer_batch

if TYPE_CHECKING:
    from mpm_eval.metrics import Item

NUM_SAMPLES = 16  # per language
MAX_NATS = 1e-2  # log-probabilities of one input may differ by rounding
MIN_OBEYED = 0.5  # of the fidelity that references themselves would get
KINDS = ("choose", "generate")  # of tasks whose answers are compared
VERDICTS = ("ok", "fails", "cannot tell")
_LONG = 12  # times a question is repeated to make a long prompt


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was tried, and what came of it."""

    name: str
    verdict: str  # one of VERDICTS
    detail: str


@dataclass(frozen=True, slots=True)
class Patient:
    """A model with the samples it is asked, all languages of one id together."""

    backend: Backend
    task: Task
    dataset: Dataset
    samples: tuple[Sample, ...]

    def answers(
        self, samples: Sequence[Sample] | None = None, batch_size: int | None = None
    ) -> list[Prediction]:
        """Return one prediction per sample, asked in batches of a size."""
        asked = self.samples if samples is None else samples
        size = batch_size or len(asked)
        pictures = Pictures(self.dataset)
        found: list[Prediction] = []
        for start in range(0, len(asked), size):
            found += answer_batch(self.task, self.backend, asked[start : start + size], pictures)
        return found


def examine(
    backend: Backend,
    task: Task,
    languages: Sequence[str] | None = None,
    num_samples: int = NUM_SAMPLES,
) -> list[Check]:
    """Return every check of a model on the first samples of a task.

    Raises UserError for a task of another kind, a capability the model lacks, and a language the
    task lacks.
    """
    if task.kind not in KINDS:
        raise UserError(
            f"task '{task.name}' is of kind '{task.kind}'; the doctor asks tasks of kind "
            f"{' or '.join(KINDS)}: give another --task"
        )
    if task.kind not in backend.capabilities:
        raise UserError(
            f"task '{task.name}' is of kind '{task.kind}'; '{backend.name}' can "
            f"{', '.join(sorted(backend.capabilities))}: give another --task"
        )
    tags = [tag for tag in task.languages if languages is None or tag in languages]
    if not tags:
        raise UserError(f"task '{task.name}': none of the languages asked for")
    dataset = open_dataset(task)
    first = [dataset.samples(tag)[:num_samples] for tag in tags]
    samples = tuple(sample for row in zip(*first, strict=False) for sample in row)
    patient = Patient(backend, task, dataset, samples)
    base = patient.answers()
    failed = [p for p in base if p.error]
    if len(failed) == len(base):
        detail = f"all {len(base)} failed: {failed[0].error}"
        return [Check("answers", "fails", detail)]
    verdict = "fails" if failed else "ok"
    checks = [Check("answers", verdict, f"{len(base) - len(failed)} of {len(base)} samples")]
    return checks + [check(patient, base) for check in _CHECKS]


def _repeated(patient: Patient, base: Sequence[Prediction]) -> Check:
    return _same("same answer twice", base, patient.answers())


def _one_by_one(patient: Patient, base: Sequence[Prediction]) -> Check:
    return _same("batch of one equals batch of many", base, patient.answers(batch_size=1))


def _reversed(patient: Patient, base: Sequence[Prediction]) -> Check:
    there = patient.answers(patient.samples[::-1])
    return _same("order of samples and pictures does not matter", base, there[::-1])


def _padded(patient: Patient, base: Sequence[Prediction]) -> Check:
    """A long prompt in the batch pads all others; a model that pads on the wrong side breaks."""
    first = patient.samples[0]
    template = first.prompt or patient.task.prompts[first.language]
    long = replace(first, id=f"{first.id} long", prompt=" ".join([template] * _LONG))
    return _same("padding changes nothing", base, patient.answers([*patient.samples, long])[:-1])


def _option_order(patient: Patient, base: Sequence[Prediction]) -> Check:
    name = "order of options does not matter"
    if patient.task.kind != "choose":
        return Check(name, "cannot tell", f"task '{patient.task.name}' has no options")
    turned = [
        replace(s, options=(*s.options[1:], s.options[0]), answer=(s.answer - 1) % len(s.options))
        for s in patient.samples
    ]
    picks = [prediction.output for prediction in patient.answers(turned)]
    different = sum(p.output != pick for p, pick in zip(base, picks, strict=True) if not p.error)
    return _verdict(name, different, len(base), "choices change when the options are rotated")


def _image_used(patient: Patient, base: Sequence[Prediction]) -> Check:
    name = "the picture is used"
    try:
        shuffled = open_dataset(patient.task, "shuffled")
    except UserError as error:
        return Check(name, "cannot tell", str(error))
    tags = {sample.language for sample in patient.samples}
    by_key = {sample.key: sample for tag in tags for sample in shuffled.samples(tag)}
    other = patient.answers([by_key[sample.key] for sample in patient.samples])
    if patient.task.kind == "choose":
        changed = sum(a.option_scores != b.option_scores for a, b in zip(base, other, strict=True))
    else:
        changed = sum(a.output != b.output for a, b in zip(base, other, strict=True))
    detail = f"{changed} of {len(base)} answers change with another sample's picture"
    return Check(name, "ok" if changed else "fails", detail)


def _language_obeyed(patient: Patient, base: Sequence[Prediction]) -> Check:
    from mpm_eval.metrics import load_metric
    from mpm_eval.metrics.fidelity import reference_error_rate
    from mpm_eval.stages.rows import Joined

    name = "the language asked for is answered in"
    if patient.task.kind != "generate":
        return Check(name, "cannot tell", "options are given, nothing is written; use a task "
                     "of kind 'generate'")  # fmt: skip
    metric = load_metric("fidelity")
    items: dict[str, list[Item]] = {}
    for sample, prediction in zip(patient.samples, base, strict=True):
        if not prediction.error and metric.supports(sample.language):
            items.setdefault(sample.language, []).append(Joined(sample, prediction).item)
    if not items:
        return Check(name, "cannot tell", "no language of the task can be identified")
    parts, obeyed = [], True
    for tag, found in items.items():
        share = float(metric.aggregate(metric.statistics(found, tag).sum(axis=0)))
        # an identifier errs on short names: judge by what right answers would get
        most = 100 - reference_error_rate({tag: [item.references[0] for item in found]})[tag]
        if not most:
            return Check(name, "cannot tell", f"no reference in '{tag}' is identified as such")
        parts.append(f"{tag} {share:.0f} % (references {most:.0f} %)")
        obeyed = obeyed and share >= MIN_OBEYED * most
    return Check(name, "ok" if obeyed else "fails", ", ".join(parts))


def _same(name: str, base: Sequence[Prediction], other: Sequence[Prediction]) -> Check:
    different = sum(_differ(a, b) for a, b in zip(base, other, strict=True))
    return _verdict(name, different, len(base), "answers differ")


def _differ(a: Prediction, b: Prediction) -> bool:
    if a.error or b.error:
        return bool(a.error) != bool(b.error)
    if not a.option_scores:
        return a.output != b.output
    pairs = zip(a.option_scores, b.option_scores, strict=True)
    # a tie within rounding may fall either way
    return any(abs(x.logprob - y.logprob) > MAX_NATS for x, y in pairs)


def _verdict(name: str, different: int, total: int, what: str) -> Check:
    return Check(name, "fails" if different else "ok", f"{different} of {total} {what}")


_CHECKS: tuple[Callable[[Patient, Sequence[Prediction]], Check], ...] = (
    _repeated,
    _one_by_one,
    _reversed,
    _padded,
    _option_order,
    _image_used,
    _language_obeyed,
)
