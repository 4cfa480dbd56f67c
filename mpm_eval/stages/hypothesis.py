"""The hypothesis of the pivot method, tested: do better aligned languages transfer better?

One point per target language; the correlation over them with an exact permutation test.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING

from mpm_eval.errors import UserError, unknown
from mpm_eval.schema import Score
from mpm_eval.stages.result_schema import Result, load_result

if TYPE_CHECKING:
    import numpy as np

MIN_LANGUAGES = 4
MAX_EXACT = 8  # languages whose orders are all tried: 40,320
NUM_ORDERS = 20_000  # tried at random for more languages
_ROUNDING = 1e-9  # correlations that differ by less are equal


@dataclass(frozen=True, slots=True)
class Point:
    """One target language."""

    language: str
    x: float
    y: float
    x_ci95: tuple[float, float] | None
    y_ci95: tuple[float, float] | None
    label: str  # of y: how the model came to the language


@dataclass(frozen=True, slots=True)
class Correlation:
    """Two scores over languages. The p-values are two-sided, of no relation whatever."""

    model: str
    x: str  # task:metric:subset
    y: str
    points: tuple[Point, ...]
    left_out: tuple[str, ...]  # languages that only one of the two has a value for
    pearson: float | None  # None: all values of x or y are alike
    pearson_p: float | None
    spearman: float | None
    spearman_p: float | None
    test: str  # "all 24 orders" or "20000 random orders"
    notes: tuple[str, ...]  # what the reader must know of the results
    smallest_p: float  # of a perfect rank correlation over so many languages


def correlate(run: Path, x: str, y: str) -> Correlation:
    """Return the correlation of two scores of a run over its target languages.

    `x` and `y` are task:metric or task:metric:subset, by default the task's main subset. The pivot
    is left out: it does not transfer. Raises UserError for an unknown task, metric or subset, and
    for fewer than 4 languages, which cannot say anything.
    """
    x_result, x_scores, x_name = _scores(run, x, "--x")
    y_result, y_scores, y_name = _scores(run, y, "--y")
    pivots = {x_result.task.pivot, y_result.task.pivot}
    points, left_out = [], []
    for language in sorted({*x_scores, *y_scores} - pivots):
        point = _point(language, x_scores.get(language), y_scores.get(language))
        if point is None:
            left_out.append(language)
        else:
            points.append(point)
    if len(points) < MIN_LANGUAGES:
        raise UserError(
            f"{run}: cannot say: {len(points)} target languages have both {x_name} and {y_name}, "
            f"at least {MIN_LANGUAGES} are needed; run both tasks in more languages"
        )
    import numpy as np
    from scipy.stats import rankdata

    xs, ys = (np.array([getattr(p, name) for p in points]) for name in ("x", "y"))
    pearson, pearson_p, test = _permutation_test(xs, ys)
    spearman, spearman_p, _ = _permutation_test(rankdata(xs), rankdata(ys))
    n = len(points)
    exact = n <= MAX_EXACT
    return Correlation(
        model=y_result.model.name,
        x=x_name,
        y=y_name,
        points=tuple(sorted(points, key=lambda p: (-p.x, p.language))),
        left_out=tuple(left_out),
        pearson=pearson,
        pearson_p=pearson_p,
        spearman=spearman,
        spearman_p=spearman_p,
        test=test,
        notes=tuple(
            f"{result.task.name}: limited to {result.limit} samples per language"
            for result in {x_result.task.name: x_result, y_result.task.name: y_result}.values()
            if result.limit is not None
        ),
        # the best order and its reverse
        smallest_p=2 / math.factorial(n) if exact else 1 / (NUM_ORDERS + 1),
    )


def _scores(run: Path, spec: str, option: str) -> tuple[Result, Mapping[str, Score], str]:
    """Return the result, its scores of one metric and subset by language, and their full name."""
    task, _, rest = spec.partition(":")
    metric, _, subset = rest.partition(":")
    if not task or not metric:
        raise UserError(f"{option} '{spec}': write task:metric, e.g. alignment:retrieval_p1")
    found = {path.parent.name: path for path in run.glob("*/result.json")}
    if not found:
        raise UserError(f"{run}: no task in it is scored; make one with: mpm-eval run")
    if task not in found:
        raise unknown("task", task, found, f"{option}: {run}")
    result = load_result(found[task])
    subset = subset or result.task.main_subset
    metrics = {score.metric for score in result.scores}
    if metric not in metrics:
        raise unknown("metric", metric, metrics, f"{option}: {task}")
    rows = [score for score in result.scores if score.metric == metric]
    if subset not in {score.subset for score in rows}:
        raise unknown("subset", subset, {score.subset for score in rows}, f"{option}: {task}")
    name = ":".join([task, metric, *([subset] if subset else [])])
    return result, {score.language: score for score in rows if score.subset == subset}, name


def _point(language: str, x: Score | None, y: Score | None) -> Point | None:
    if x is None or y is None or x.value is None or y.value is None:
        return None
    return Point(language, x.value, y.value, x.ci95, y.ci95, y.label)


def _permutation_test(xs: "np.ndarray", ys: "np.ndarray") -> tuple[float | None, float | None, str]:
    """Return Pearson's r, its two-sided p and the orders that were tried.

    p: the share of orders of y whose |r| is at least as large (Fisher 1935, The Design of
    Experiments, section 21). Of random orders, with the real one counted among them.
    """
    import numpy as np

    n = len(xs)
    if n <= MAX_EXACT:
        order_RN = np.array(list(permutations(range(n))))
        test = f"all {len(order_RN)} orders"
    else:
        rng = np.random.Generator(np.random.PCG64(0))
        random_RN = [rng.permutation(n) for _ in range(NUM_ORDERS)]
        order_RN = np.stack([np.arange(n), *random_RN])
        test = f"{NUM_ORDERS} random orders"
    x_N, y_N = xs - xs.mean(), ys - ys.mean()
    norm = float(np.sqrt((x_N @ x_N) * (y_N @ y_N)))
    if not norm > 0:
        return None, None, test
    r_R = y_N[order_RN] @ x_N / norm
    r = float(x_N @ y_N / norm)
    return r, float((np.abs(r_R) >= abs(r) - _ROUNDING).mean()), test
