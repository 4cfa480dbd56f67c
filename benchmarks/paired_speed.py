"""Time paired bootstraps of many cells against scipy's, and of corpus metrics against scoring.

    OMP_NUM_THREADS=2 python benchmarks/paired_speed.py [--cells 50] [--items 2000]

Cost: about 20 seconds; scipy is timed on --peer-cells of them and scaled up. Expected: 10,000
paired resamples of 50 cells of 2,000 items in under 5 seconds, and 10,000 resamples of a corpus
metric in less time than scoring the texts once.
"""

import argparse
import time

import numpy as np
from scipy import stats as scipy_stats

from mpm_eval.metrics import Item
from mpm_eval.metrics.overlap import Bleu, Chrf
from mpm_eval.stats import Pair, bootstrap, differences
from mpm_eval.stats.intervals import resample_counts


def percent(totals: np.ndarray) -> np.ndarray:
    """Return 100 times sum over count."""
    return np.asarray(100 * totals[..., 0] / totals[..., 1])


def pairs_of(num_cells: int, num_items: int) -> list[Pair]:
    """Return runs of right and wrong answers of which one in ten differs."""
    rng = np.random.default_rng(0)
    ones_N, pairs = np.ones(num_items), []
    for _ in range(num_cells):
        a_N = rng.random(num_items) < 0.6
        b_N = a_N ^ (rng.random(num_items) < 0.1)
        a_N2, b_N2 = np.column_stack([a_N, ones_N]), np.column_stack([b_N, ones_N])
        pairs.append(Pair(a_N2, b_N2, range(num_items), percent))
    return pairs


def ours(pairs: list[Pair], num_resamples: int, seed: int) -> float:
    """Return the seconds of all cells; another seed draws the resamples anew."""
    began = time.perf_counter()
    differences(pairs, num_resamples=num_resamples, seed=seed)
    return time.perf_counter() - began


def scipys(pairs: list[Pair], num_resamples: int) -> float:
    """Return the seconds of scipy's percentile bootstrap of the same differences."""
    began = time.perf_counter()
    for pair in pairs:
        scipy_stats.bootstrap(
            (pair.stats_a[:, 0], pair.stats_b[:, 0]),
            lambda a, b, axis: 100 * (b.mean(axis=axis) - a.mean(axis=axis)),
            paired=True,
            n_resamples=num_resamples,
            method="percentile",
            batch=500,  # all at once would take 160 MB an array
            rng=np.random.default_rng(0),
        )
    return time.perf_counter() - began


def corpus_metrics(num_items: int, num_resamples: int, seed: int) -> list[str]:
    """Return the lines that set resampling statistics against scoring the texts."""
    rng = np.random.default_rng(0)
    words = np.array(["the", "dog", "runs", "in", "a", "green", "park", "with", "old", "man"])
    texts = [" ".join(rng.choice(words, rng.integers(8, 15))) for _ in range(2 * num_items)]
    items = [Item(o, (r,), "en") for o, r in zip(texts[::2], texts[1::2], strict=True)]
    began = time.perf_counter()
    list(resample_counts(num_items, num_resamples, seed))
    lines = [f"drawing the resamples, once for all metrics: {time.perf_counter() - began:.2f} s"]
    for metric in (Bleu(), Chrf()):
        began = time.perf_counter()
        stats_NS = metric.statistics(items, "en")
        scored = time.perf_counter()
        bootstrap(stats_NS, metric.aggregate, num_resamples, seed)
        ended = time.perf_counter()
        lines.append(
            f"{metric.name} of {num_items:,} captions: scoring {scored - began:.2f} s, "
            f"{num_resamples:,} resamples {ended - scored:.2f} s"
        )
    return lines


def main() -> None:
    """Alternate the two, so that a busy machine slows both, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cells", type=int, default=50)
    parser.add_argument("--items", type=int, default=2000)
    parser.add_argument("--resamples", type=int, default=10_000)
    parser.add_argument("--peer-cells", type=int, default=2, help="cells that scipy is timed on")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    pairs = pairs_of(arguments.cells, arguments.items)
    peer = pairs[: arguments.peer_cells]
    times = [
        (ours(pairs, arguments.resamples, seed=run), scipys(peer, arguments.resamples))
        for run in range(arguments.runs)
    ]
    mine, theirs = (float(x) for x in np.median(times, axis=0))
    theirs *= arguments.cells / len(peer)
    print(
        f"{arguments.resamples:,} paired resamples of {arguments.cells} cells of "
        f"{arguments.items:,} items: differences {mine:.2f} s, scipy.stats.bootstrap "
        f"{theirs:.1f} s (scaled from {len(peer)} cells), ratio {theirs / mine:.0f}"
    )
    print(*corpus_metrics(arguments.items, arguments.resamples, seed=arguments.runs), sep="\n")


if __name__ == "__main__":
    main()
