"""What a judge is asked, in LLaVA's frame, and how its replies make one pair of scores a sample."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Protocol

from mpm_eval.errors import UserError
from mpm_eval.judging.parse import PARSER_VERSION, on_scale, parse_scores
from mpm_eval.schema import Judgement, Sample
from mpm_eval.strict import canonical_sha256

REFERENCE_FIRST, CANDIDATE_FIRST = "reference-first", "candidate-first"
MAX_REPLY_TOKENS = 1024  # as LLaVA

# llava/eval/eval_gpt_review_visual.py of haotian-liu/LLaVA, to the letter
SYSTEM = "You are a helpful and precise assistant for checking the quality of the answer."
FRAME = (
    "[Context]\n{context}\n\n"
    "[Question]\n{question}\n\n"
    "[{role} 1]\n{first}\n\n[End of {role} 1]\n\n"
    "[{role} 2]\n{second}\n\n[End of {role} 2]\n\n"
    "[System]\n{rule}\n\n"
)


@dataclass(frozen=True, slots=True)
class Mode:
    """A protocol: how often, in which order and at what temperature a judge is asked."""

    temperature: float
    orders: tuple[str, ...]
    repeatable: bool


MODES = {
    # the reference always first: its position bias is part of the published numbers
    "llava": Mode(0.2, (REFERENCE_FIRST,), repeatable=False),
    "robust": Mode(0.0, (REFERENCE_FIRST, CANDIDATE_FIRST), repeatable=True),
}


@dataclass(frozen=True, slots=True)
class Judging:
    """judge.json: the judge and the protocol that all judgements of a task folder share."""

    judge: str  # name, e.g. openai:gpt-4-0314
    settings: Mapping[str, Any]  # of the judge: base_url, weights; never a key
    mode: str  # one of MODES
    repeats: int
    max_reply_tokens: int = MAX_REPLY_TOKENS
    prompts_sha256: str = field(default_factory=lambda: canonical_sha256([SYSTEM, FRAME]))
    parser_version: int = PARSER_VERSION
    schema_version: int = 1

    @property
    def signature(self) -> str:
        """Return judge, mode and versions as the parts of a metric's signature."""
        mode = MODES[self.mode]
        judge = "_".join(self.judge.replace("|", "_").split())
        return (
            f"judge:{judge}|mode:{self.mode}|temperature:{mode.temperature:g}"
            f"|orders:{len(mode.orders)}|repeats:{self.repeats}"
            f"|frame:{self.prompts_sha256[:8]}|parser:{self.parser_version}"
        )


@dataclass(frozen=True, slots=True)
class JudgeRequest:
    """One question to a judge."""

    id: str
    language: str
    order: str
    repeat: int
    system: str
    prompt: str
    temperature: float
    max_reply_tokens: int
    reference: str  # for judges that compare texts without a prompt
    candidate: str
    sha256: str  # over everything that can change the reply


@dataclass(frozen=True, slots=True)
class Reply:
    """What a judge returned: a text, or why there is none."""

    text: str = ""
    error: str = ""
    answered_by: str = ""
    num_prompt_tokens: int = 0
    num_reply_tokens: int = 0


class Judge(Protocol):
    """A judge that can be asked."""

    name: str  # shown in signatures; equal names are equal judges
    settings: Mapping[str, Any]  # written to judge.json; must not hold a secret

    def answers(self, requests: Sequence[JudgeRequest]) -> Iterator[tuple[JudgeRequest, Reply]]:
        """Yield the reply to each request as it comes, in any order.

        Raises JudgeStopped when the rest cannot be asked, UserError when nothing can.
        """
        ...


class JudgeStopped(Exception):
    """No further request makes sense: a dead server, a refused key, a spent budget."""


def judge_requests(judging: Judging, sample: Sample, output: str) -> list[JudgeRequest]:
    """Return what a judge is asked about one output: every order, every repeat.

    Raises UserError for a sample without a brief.
    """
    mode = MODES[judging.mode]
    return [
        _request(judging, sample, output, order, repeat)
        for order in mode.orders
        for repeat in range(judging.repeats)
    ]


def _request(
    judging: Judging, sample: Sample, output: str, order: str, repeat: int
) -> JudgeRequest:
    if sample.brief is None:
        raise UserError(
            f"sample '{sample.id}' ({sample.language}): holds nothing for a judge to read; "
            'judged tasks need data with captions and rules, e.g. source = "llava"'
        )
    reference, brief = sample.references[0], sample.brief
    answers = [reference, output] if order == REFERENCE_FIRST else [output, reference]
    values = {
        "context": brief.context,
        "question": sample.question,
        "role": brief.role,
        "first": answers[0],
        "second": answers[1],
        "rule": brief.rule,
    }
    prompt = FRAME.format_map(values)  # fills one time: braces in the texts stay as they are
    temperature = MODES[judging.mode].temperature
    matters = {
        "id": [sample.id, sample.language],
        "judge": judging.judge,
        "mode": judging.mode,
        "order": order,
        "repeat": repeat,
        "system": SYSTEM,
        "prompt": prompt,
        "temperature": temperature,
        "max_reply_tokens": judging.max_reply_tokens,
    }
    return JudgeRequest(
        id=sample.id,
        language=sample.language,
        order=order,
        repeat=repeat,
        system=SYSTEM,
        prompt=prompt,
        temperature=temperature,
        max_reply_tokens=judging.max_reply_tokens,
        reference=reference,
        candidate=output,
        sha256=canonical_sha256(matters),
    )


def judgement_of(judging: Judging, request: JudgeRequest, reply: Reply) -> Judgement:
    """Return the reply as a judgement: parsed, or failed with the reason."""
    scores, error = None, reply.error
    if not error:
        scores = on_scale(parse_scores(reply.text, judging.mode))
        if scores is None:
            error = "no two scores from 0 to 10 in the reply"
        elif request.order == CANDIDATE_FIRST:
            scores = (scores[1], scores[0])
    return Judgement(
        id=request.id,
        language=request.language,
        judge=judging.judge,
        mode=judging.mode,
        order=request.order,
        repeat=request.repeat,
        request_sha256=request.sha256,
        reply=reply.text,
        scores=scores,
        error=error,
        answered_by=reply.answered_by,
        num_prompt_tokens=reply.num_prompt_tokens,
        num_reply_tokens=reply.num_reply_tokens,
    )


def combine(judging: Judging, judgements: Sequence[Judgement]) -> tuple[float, float] | None:
    """Return (reference, candidate) of one sample: the mean over repeats, then over orders.

    None, a failure, unless every order of the mode has a parsed judgement: one order alone would
    bring back its position bias.
    """
    means = []
    for order in MODES[judging.mode].orders:
        pairs = [j.scores for j in judgements if j.order == order and j.scores is not None]
        if not pairs:
            return None
        means.append((fmean(p[0] for p in pairs), fmean(p[1] for p in pairs)))
    return fmean(m[0] for m in means), fmean(m[1] for m in means)
