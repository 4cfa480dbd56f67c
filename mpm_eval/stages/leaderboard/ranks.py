"""Ranks: an interval for each model's rank from paired differences on the same clusters.

A model's rank lies between 1 + the number of models that are significantly better and K - the
number that are significantly worse, K being the number of models. Where Holm's correction keeps
every false difference out, with a chance of 95 %, all of these intervals hold the true ranks at
once (Mogstad, Romano, Shaikh & Wilhelm 2024, Review of Economic Studies 91).

Shapes: K models, C clusters, L languages, S statistics.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

import numpy as np

from mpm_eval.stats import (
    ALPHA,
    NUM_RESAMPLES,
    Aggregate,
    Pair,
    bootstrap,
    differences,
    holm,
    interval,
    minimum_detectable,
)

Rank = tuple[int, int]  # first and last rank that cannot be excluded, from 1


@dataclass(frozen=True, slots=True)
class Ranking:
    """The ranks of K models and how small a difference their comparison could have seen."""

    ranks: tuple[Rank, ...]
    detectable: float | None  # None: no pair has a standard error


def rank(sums: Sequence[np.ndarray], aggregate: Aggregate, higher_is_better: bool) -> Ranking:
    """Return the ranks of models from sums_KCS, their statistics summed per shared cluster.

    All K (K - 1) / 2 pairs are compared by `stats.differences` with 2,000 resamples of the
    clusters, the same for all pairs, and Holm's correction over the pairs at 0.05. `detectable` is
    the median over the pairs of the difference found with a chance of 80 % at 0.05, of one
    comparison alone. With one model it takes two of its standard errors, as if another model
    like it had answered other items: pairing usually sees smaller differences.
    """
    clusters = range(len(sums[0]))
    pairs = list(combinations(range(len(sums)), 2))
    found = differences(
        (Pair(sums[i], sums[j], clusters, aggregate) for i, j in pairs), num_resamples=NUM_RESAMPLES
    )
    wins = []
    for (i, j), difference, p in zip(pairs, found, holm([d.p_value for d in found]), strict=True):
        if p is not None and p < ALPHA and difference.value is not None:
            j_wins = (difference.value > 0) == higher_is_better
            wins.append((j, i) if j_wins else (i, j))
    errors = [d.standard_error for d in found if d.standard_error]
    if len(sums) == 1:
        errors = [2**0.5 * error for error in [spread(sums[0], aggregate)] if error]
    detectable = minimum_detectable(median(errors)) if errors else None
    return Ranking(tuple(rank_intervals(len(sums), wins)), detectable)


def rank_intervals(num_models: int, wins: Iterable[tuple[int, int]]) -> list[Rank]:
    """Return the rank interval of each model from (better, worse) pairs that are significant."""
    better, worse = [0] * num_models, [0] * num_models
    for winner, loser in wins:
        worse[winner] += 1
        better[loser] += 1
    return [(1 + up, num_models - down) for up, down in zip(better, worse, strict=True)]


def spread(sums_CS: np.ndarray, aggregate: Aggregate) -> float | None:
    """Return the bootstrap's standard error of one model's value; None where it cannot be had."""
    if len(sums_CS) < 2:
        return None
    values_B = bootstrap(sums_CS, aggregate)
    return None if interval(values_B) is None else float(np.nanstd(values_B))


def ci95(sums_CS: np.ndarray, aggregate: Aggregate) -> tuple[float, float] | None:
    """Return the percentile interval of one model's value; None where it would have no width."""
    if len(sums_CS) < 2:
        return None
    ends = interval(bootstrap(sums_CS, aggregate))
    return None if ends is None or ends[0] == ends[1] else ends


def over_languages(
    aggregate: Aggregate, num_languages: int, reduce: Callable[..., np.ndarray]
) -> Aggregate:
    """Return the aggregate of L * S statistics, language by language, as one value per row.

    `reduce` is np.mean, or np.min or np.max for the worst language.
    """

    def combined(totals: np.ndarray) -> np.ndarray:
        totals_LS = totals.reshape(*totals.shape[:-1], num_languages, -1)
        return reduce(np.asarray(aggregate(totals_LS), dtype=np.float64), axis=-1)

    return combined
