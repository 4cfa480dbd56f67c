"""From what a probe measured in every layer to the rows of a result: values, intervals, items.

Shapes: L layers, N texts, M subsets of the texts (all of them first), P random pairings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpm_eval.errors import unknown
from mpm_eval.items import Item
from mpm_eval.metrics import PROBE_METRICS
from mpm_eval.schema import Score, Task
from mpm_eval.stages.probe_files import Rows

if TYPE_CHECKING:
    import numpy as np

POOLED = "pooled"  # the subset that is the mean over the layers, as in MEXA (arXiv 2410.05873)


@dataclass(frozen=True, slots=True)
class PerText:
    """A metric that every text has: its mean is the value."""

    share_LN: "np.ndarray"  # NaN: undefined for this text
    settings: str


@dataclass(frozen=True, slots=True)
class PerSet:
    """A metric that only a set of texts has."""

    share_LM: "np.ndarray"  # all texts, then the random halves
    settings: str
    num_texts: int


@dataclass(frozen=True, slots=True)
class Floor:
    """A metric under random pairings."""

    share_LP: "np.ndarray"
    settings: str
    num_texts: int


Measured = PerText | PerSet | Floor


@dataclass(frozen=True, slots=True)
class Probed:
    """The scores of a probe, and what comparing two runs needs: the texts in the headline layer."""

    scores: tuple[Score, ...]
    items: tuple[Item, ...]
    # metric -> per item [share, 1]; None: undefined, (): the item failed
    statistics: Mapping[str, Sequence[Sequence[float] | None]]


def headline_layer(task: Task, num_layers: int) -> int:
    """Return the layer of the task's `main_subset`, or the middle one: num_layers // 2.

    `num_layers` counts the embeddings. Raises UserError when `main_subset` names no layer.
    """
    if not task.main_subset:
        return num_layers // 2
    names = [f"layer={layer}" for layer in range(num_layers)]
    if task.main_subset not in names:
        raise unknown("layer", task.main_subset, names, f"{task.path or task.name}: main_subset")
    return names.index(task.main_subset)


def scores_of(
    metric: str,
    measured: Measured,
    rows: Rows,
    headline: int,
    label: str,
    num_failed: int = 0,
) -> list[Score]:
    """Return the scores of one metric and language: each layer, pooled, and the headline."""
    shares = _shares(measured)
    num_layers = len(shares)
    places = [(f"layer={layer}", f"layer:{layer}", [layer]) for layer in range(num_layers)]
    places.append((POOLED, "layer:mean", list(range(num_layers))))
    places.append(("", f"layer:{headline}", [headline]))
    scores = []
    for subset, place, layers in places:
        # the same texts, halves and pairings in every layer: means of layers are a sample too
        share_X = shares[layers].mean(axis=0)
        value, ci95, n, how = _value(measured, share_X, rows)
        settings = f"{measured.settings}|{place}|layers:{num_layers}|pooling:backend"
        scores.append(
            Score(
                metric=metric,
                language=rows.language,
                value=value,
                ci95=ci95,
                n=n,
                n_failed=num_failed + _num_texts(measured) - n,
                higher_is_better=PROBE_METRICS[metric].higher_is_better,
                # How texts are pooled is the backend's affair; the hash of the model stands for it.
                signature=f"{metric}|{settings}|{how}",
                subset=subset,
                label=label,
            )
        )
    return scores


def statistics_of(measured: PerText, headline: int) -> list[Sequence[float] | None]:
    """Return [share, 1] of every text in the headline layer: the value is 100 times their ratio."""
    import math

    return [None if math.isnan(share) else (float(share), 1.0)
            for share in measured.share_LN[headline]]  # fmt: skip


def items_of(rows: Rows) -> list[Item]:
    """Return the items of one language's texts."""
    return [
        Item(
            id=rows.ids[i],
            language=rows.language,
            cluster=rows.clusters[i],
            category="",
            cell="",
            error="",
            input_sha256=rows.text_sha256s[i],
            output_sha256="",
        )
        for i in range(len(rows.ids))
    ]


def percent(totals: "np.ndarray") -> "np.ndarray":
    """Return 100 times the mean share, for summed [share, 1]: (…, 2) to (…)."""
    return 100 * totals[..., 0] / totals[..., 1]


def _shares(measured: Measured) -> "np.ndarray":
    if isinstance(measured, PerText):
        return measured.share_LN
    return measured.share_LM if isinstance(measured, PerSet) else measured.share_LP


def _num_texts(measured: Measured) -> int:
    return measured.share_LN.shape[1] if isinstance(measured, PerText) else measured.num_texts


def _value(
    measured: Measured, share_X: "np.ndarray", rows: Rows
) -> tuple[float | None, tuple[float, float] | None, int, str]:
    """Return value and interval in percent, the number of texts behind them, and how."""
    import numpy as np

    from mpm_eval.stats import estimate, interval

    if isinstance(measured, PerText):
        known = np.flatnonzero(~np.isnan(share_X))
        if not len(known):
            return None, None, 0, "ci:none,undefined"
        stats_N2 = np.column_stack([share_X[known], np.ones(len(known))])
        found = estimate(stats_N2, [rows.clusters[i] for i in known], percent)
        return found.value, found.ci95, len(known), found.method
    if np.isnan(share_X[0]) or (isinstance(measured, Floor) and np.isnan(share_X).any()):
        return None, None, 0, "ci:none,undefined"
    if isinstance(measured, Floor):
        from mpm_eval.probes.vectors import QUANTILE

        value = 100 * float(np.quantile(share_X, QUANTILE))
        return (
            value,
            None,
            measured.num_texts,
            f"pairings:{len(share_X)}|quantile:{QUANTILE}|seed:0",
        )
    value, half_H = 100 * float(share_X[0]), 100 * share_X[1:]
    if np.isnan(half_H).all():
        return value, None, measured.num_texts, "ci:none,halves-undefined"
    # Half as many texts shift some measures (a rank, say): only their spread is taken.
    ci95 = interval(value + half_H - np.nanmean(half_H))
    how = f"ci:delete-half|halves:{len(half_H)}|seed:0" if ci95 else "ci:none,halves-undefined"
    return value, ci95, measured.num_texts, how
