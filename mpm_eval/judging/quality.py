"""How far a judge can be trusted: failures, order swaps, repeats, agreement with given scores."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, variance
from typing import Any

from mpm_eval.errors import UserError
from mpm_eval.judging.protocol import CANDIDATE_FIRST, REFERENCE_FIRST, Judging, combine
from mpm_eval.schema import Judgement
from mpm_eval.strict import build, read_jsonl

Key = tuple[str, str]  # id, language


@dataclass(frozen=True, slots=True)
class HumanScore:
    """One line of a file of given scores: how good a sample's answer is, on any scale."""

    id: str
    language: str
    score: float


def judge_quality(
    judging: Judging,
    judgements: Sequence[Judgement],
    num_requests: int,
    human: Mapping[Key, float] | None = None,
) -> dict[str, Any]:
    """Return the numbers of judge_quality.json; null where they cannot be had.

    `judgements` are the last ones of each request; `num_requests` counts those never asked too.
    """
    failed = [j for j in judgements if j.error]
    return {
        "judge": judging.judge,
        "mode": judging.mode,
        "repeats": judging.repeats,
        "num_requests": num_requests,
        "num_judged": len(judgements) - len(failed),
        "num_failed": len(failed),
        "num_not_asked": num_requests - len(judgements),
        "failures": dict(sorted(Counter(j.error for j in failed).items())),
        "answered_by": dict(sorted(Counter(j.answered_by for j in judgements).items())),
        "num_prompt_tokens": sum(j.num_prompt_tokens for j in judgements),
        "num_reply_tokens": sum(j.num_reply_tokens for j in judgements),
        "order_swap": _order_swap(judgements),
        "repeats_of_one_request": _repeats(judgements),
        "agreement": _agreement(judging, judgements, human),
    }


def _order_swap(judgements: Sequence[Judgement]) -> dict[str, Any] | None:
    """Return how often the verdict survives a swap, and what coming first is worth."""
    margins: dict[Key, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for j in judgements:
        if j.scores is not None:
            margins[j.id, j.language][j.order].append(j.scores[1] - j.scores[0])
    pairs = [
        (fmean(found[REFERENCE_FIRST]), fmean(found[CANDIDATE_FIRST]))
        for found in margins.values()
        if found.keys() >= {REFERENCE_FIRST, CANDIDATE_FIRST}
    ]
    if not pairs:
        return None
    return {
        "num_samples": len(pairs),
        "same_verdict": fmean(_sign(a) == _sign(b) for a, b in pairs),  # 0 to 1
        "mean_change": fmean(abs(a - b) for a, b in pairs),  # of candidate - reference, points
        "first_place_bonus": fmean(
            (b - a) / 2 for a, b in pairs
        ),  # points; above 0: first is liked
    }


def _repeats(judgements: Sequence[Judgement]) -> dict[str, Any] | None:
    """Return how much the score of an answer changes when the same question is asked again."""
    scores: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for j in judgements:
        if j.scores is not None:
            scores[j.id, j.language, j.order].append(j.scores[1])
    repeated = [found for found in scores.values() if len(found) > 1]
    if not repeated:
        return None
    return {
        "num_requests": len(repeated),
        "all_equal": fmean(len(set(found)) == 1 for found in repeated),  # 0 to 1
        "mean_variance": fmean(variance(found) for found in repeated),  # points squared, n - 1
    }


def _agreement(
    judging: Judging, judgements: Sequence[Judgement], human: Mapping[Key, float] | None
) -> dict[str, Any] | None:
    """Return rank correlations of the judge's scores of the answers with given ones."""
    if human is None:
        return None
    by_key: dict[Key, list[Judgement]] = defaultdict(list)
    for j in judgements:
        by_key[j.id, j.language].append(j)
    missing = sorted(set(human) - set(by_key))
    if missing:
        raise UserError(
            f"--human: no judgement of id '{missing[0][0]}' in language '{missing[0][1]}' "
            f"({len(missing)} of {len(human)} have none); remove these lines"
        )
    pairs = [
        (human[key], found[1])
        for key in sorted(human)
        if (found := combine(judging, by_key[key])) is not None
    ]
    return {"num_samples": len(pairs), "num_failed": len(human) - len(pairs), **agreement(pairs)}


def agreement(pairs: Sequence[tuple[float, float]]) -> dict[str, float | None]:
    """Return Spearman's rho, Kendall's tau-b and quadratic weighted kappa of (given, judged).

    Kappa (Cohen 1968) is of scores rounded to whole points. None for fewer than three pairs, and
    where one side is constant: nothing can be ranked.
    """
    given, judged = [a for a, _ in pairs], [b for _, b in pairs]
    if len(pairs) < 3 or len(set(given)) < 2 or len(set(judged)) < 2:
        return {"spearman": None, "kendall_tau_b": None, "quadratic_weighted_kappa": None}
    from scipy.stats import kendalltau, spearmanr

    return {
        "spearman": float(spearmanr(given, judged).statistic),
        "kendall_tau_b": float(kendalltau(given, judged).statistic),
        "quadratic_weighted_kappa": _kappa([round(x) for x in given], [round(x) for x in judged]),
    }


def _kappa(given: Sequence[int], judged: Sequence[int]) -> float | None:
    # observed over expected squared difference: every pairing of the two margins is expected
    observed = fmean((a - b) ** 2 for a, b in zip(given, judged, strict=True))
    expected = fmean((a - b) ** 2 for a in given for b in judged)
    return 1 - observed / expected if expected else None


def read_human(path: Path) -> dict[Key, float]:
    """Return the scores in a JSONL file of id, language, score.

    Raises UserError with file and line for a bad line and for a sample given twice.
    """
    found: dict[Key, float] = {}
    for number, line in read_jsonl(path):
        row = build(HumanScore, line, f"{path}:{number}")
        if (row.id, row.language) in found:
            raise UserError(f"{path}:{number}: '{row.id}' in '{row.language}' is given twice")
        found[row.id, row.language] = row.score
    if not found:
        raise UserError(f"{path}: holds no scores; write lines with id, language, score")
    return found


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
