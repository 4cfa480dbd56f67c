"""How often 95 % intervals cover the truth: every method on simulated data, as a Markdown table.

    OMP_NUM_THREADS=1 python benchmarks/coverage.py [--simulations 1000] [--out FILE]

Cost: about 2 minutes on one core. Expected: 93 to 97 % for shares, means and differences from 30
clusters on, clustered or not; less below 100 clusters where values are very skewed, and more
where few items differ.

Shapes: N items, S statistics, C clusters.
"""

import argparse
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mpm_eval.metrics.overlap import Bleu
from mpm_eval.stats import (
    Aggregate,
    bca,
    bootstrap,
    clopper_pearson,
    cluster_sums,
    difference,
    estimate,
    fieller,
    interval,
    ratio_of_means,
    studentised,
    wilson,
)

REPOSITORY = Path(__file__).resolve().parents[1]
NUM_RESAMPLES = 2000
BLEU = Bleu().aggregate


@dataclass(frozen=True, slots=True)
class Data:
    """One simulated set of items."""

    a_NS: np.ndarray
    b_NS: np.ndarray | None  # the other run, where there are two
    clusters: Sequence[Hashable]


Draw = Callable[[np.random.Generator, int], Data]
Ends = tuple[float, float] | None
Method = Callable[[Data, Aggregate], Ends]


@dataclass(frozen=True, slots=True)
class Family:
    """Simulated data, its true value and the methods tried on it."""

    name: str
    draw: Draw  # of so many clusters
    truth: float
    aggregate: Aggregate
    methods: Mapping[str, Method]
    sizes: tuple[int, ...]  # clusters


def mean(totals: np.ndarray) -> np.ndarray:
    """Return 100 times sum over count."""
    return np.asarray(100 * totals[..., 0] / totals[..., 1])


def rows(values_N: np.ndarray) -> np.ndarray:
    """Return x_N2, each value beside a 1."""
    return np.column_stack([values_N, np.ones(len(values_N))])


# --- data


def share(rng: np.random.Generator, n: int) -> Data:
    """Right answers with a chance of 0.9."""
    return Data(rows(rng.random(n) < 0.9), None, range(n))


def skewed(rng: np.random.Generator, n: int) -> Data:
    """Values with a long right tail: gamma of shape 0.5, mean 0.5, skewness 2.8."""
    return Data(rows(rng.gamma(0.5, size=n)), None, range(n))


def clustered(rng: np.random.Generator, n: int) -> Data:
    """1 to 15 answers about each picture, intra-cluster correlation 0.4, right with 0.6."""
    sizes_C = rng.integers(1, 16, n)
    chance_C = rng.beta(0.6 * 1.5, 0.4 * 1.5, n)  # 1 / (1 + 1.5) = 0.4
    index_N = np.repeat(np.arange(n), sizes_C)
    return Data(rows(rng.random(len(index_N)) < chance_C[index_N]), None, index_N.tolist())


def captions(rng: np.random.Generator, quality_N: np.ndarray) -> np.ndarray:
    """Return BLEU's statistics x_N10 of captions whose words match with a chance of `quality`."""
    length_N = rng.integers(6, 16, len(quality_N))
    reference_N = np.maximum(length_N + rng.integers(-1, 4, len(quality_N)), 1)
    total_N4 = length_N[:, None] - np.arange(4)
    match_N4 = rng.binomial(total_N4, quality_N[:, None] ** np.arange(1, 5))
    return np.column_stack([length_N, reference_N, match_N4, total_N4]).astype(np.float64)


def corpus(rng: np.random.Generator, n: int) -> Data:
    """Captions of 6 to 15 words, quality from 0 to 1."""
    return Data(captions(rng, rng.beta(3, 3, n)), None, range(n))


def two_means(rng: np.random.Generator, n: int) -> Data:
    """Normal values, correlation 0.7, apart by 0.2 of the first run's standard deviation."""
    a_N = rng.normal(0, 1, n)
    return Data(rows(a_N), rows(a_N + rng.normal(0.2, 1, n)), range(n))


def two_skewed(rng: np.random.Generator, n: int) -> Data:
    """Differences with a long right tail: gamma of shape 0.5."""
    a_N = rng.normal(0, 1, n)
    return Data(rows(a_N), rows(a_N + rng.gamma(0.5, size=n)), range(n))


def changed(better: float, worse: float) -> Draw:
    """Answers of which a share becomes right and a share becomes wrong."""

    def draw(rng: np.random.Generator, n: int) -> Data:
        """Answers of one question per picture, half of them right in the first run."""
        chance_N = rng.random(n)
        a_N = rng.random(n) < 0.5
        a_N = np.where(chance_N < better, False, np.where(chance_N < better + worse, True, a_N))
        b_N = np.where(chance_N < better + worse, ~a_N, a_N)
        return Data(rows(a_N), rows(b_N), range(n))

    return draw


def two_clustered(rng: np.random.Generator, n: int) -> Data:
    """Answers as in the clustered share; b loses 10 % of the right and gains 5 % of the wrong ones.

    How many change depends on the picture.
    """
    return both_ways(rng, n, (1.0, 9.0), (1.0, 19.0))


def two_losing(rng: np.random.Generator, n: int) -> Data:
    """b loses 10 % of the right answers, nearly all of them about a few pictures."""
    return both_ways(rng, n, (0.25, 2.25), None)


def both_ways(
    rng: np.random.Generator,
    n: int,
    lost: tuple[float, float],
    gained: tuple[float, float] | None,
) -> Data:
    """Return two runs whose answers change with a chance drawn for each picture."""
    a = clustered(rng, n)
    index_N = np.asarray(a.clusters)
    a_N = a.a_NS[:, 0] == 1
    kept_N = rng.random(len(index_N)) >= rng.beta(*lost, n)[index_N]
    b_N = a_N & kept_N
    if gained is not None:
        b_N |= ~a_N & (rng.random(len(index_N)) < rng.beta(*gained, n)[index_N])
    return Data(a.a_NS, rows(b_N), a.clusters)


def two_corpora(rng: np.random.Generator, n: int) -> Data:
    """Captions of two runs, the second a little worse on the same pictures."""
    quality_N = rng.beta(3, 3, n)
    return Data(captions(rng, quality_N), captions(rng, 0.95 * quality_N), range(n))


def scores(rng: np.random.Generator, n: int) -> Data:
    """Right in a target language (0.5) over right in the pivot language (0.625), same items."""
    ease_N = rng.beta(2, 1.2, n)
    x_N, y_N = rng.random(n) < 0.8 * ease_N, rng.random(n) < ease_N
    return Data(np.column_stack([x_N, y_N]).astype(np.float64), None, range(n))


# --- methods


def by_estimate(data: Data, aggregate: Aggregate) -> Ends:
    return estimate(data.a_NS, data.clusters, aggregate).ci95


def without_clusters(data: Data, aggregate: Aggregate) -> Ends:
    return estimate(data.a_NS, range(len(data.a_NS)), aggregate).ci95


def by_difference(data: Data, aggregate: Aggregate) -> Ends:
    assert data.b_NS is not None
    pair = (data.a_NS, data.b_NS, data.clusters, aggregate)
    return difference(*pair, num_resamples=NUM_RESAMPLES).ci95


def by_ratio(data: Data, aggregate: Aggregate) -> Ends:
    x_N, y_N = data.a_NS.T
    return percent(ratio_of_means(x_N, y_N, data.clusters, num_resamples=NUM_RESAMPLES).ci95)


def by_fieller(data: Data, aggregate: Aggregate) -> Ends:
    x_C, y_C = cluster_sums(data.a_NS, data.clusters).T
    return percent(fieller(x_C, y_C))


def by_wilson(data: Data, aggregate: Aggregate) -> Ends:
    return percent(wilson(data.a_NS[:, 0].sum(), len(data.a_NS)))


def by_clopper_pearson(data: Data, aggregate: Aggregate) -> Ends:
    return percent(clopper_pearson(int(data.a_NS[:, 0].sum()), len(data.a_NS)))


def percent(ends: Ends) -> Ends:
    return None if ends is None else (100 * ends[0], 100 * ends[1])


def by_percentile(data: Data, aggregate: Aggregate) -> Ends:
    sums_CS, of_sums = as_one(data, aggregate)
    values_B = bootstrap(sums_CS, of_sums, NUM_RESAMPLES)
    return None if np.ptp(values_B) == 0 else interval(values_B)


def by_bca(data: Data, aggregate: Aggregate) -> Ends:
    return bca(*as_one(data, aggregate), num_resamples=NUM_RESAMPLES)


def by_studentised(data: Data, aggregate: Aggregate) -> Ends:
    return studentised(*as_one(data, aggregate), num_resamples=NUM_RESAMPLES)


def as_one(data: Data, aggregate: Aggregate) -> tuple[np.ndarray, Aggregate]:
    """Return sums per cluster and the metric, of two runs their difference."""
    sums_CS = cluster_sums(data.a_NS, data.clusters)
    if data.b_NS is None:
        return sums_CS, aggregate
    S = sums_CS.shape[1]

    def gap(totals: np.ndarray) -> np.ndarray:
        return aggregate(totals[..., S:]) - aggregate(totals[..., :S])

    return np.concatenate([sums_CS, cluster_sums(data.b_NS, data.clusters)], axis=1), gap


# --- the table


def large(draw: Draw) -> float:
    """Return BLEU, or its difference, of 400,000 captions: its true value has no formula."""
    data = draw(np.random.default_rng(2**32), 400_000)
    value = float(BLEU(data.a_NS.sum(axis=0)))
    return value if data.b_NS is None else float(BLEU(data.b_NS.sum(axis=0))) - value


def families() -> list[Family]:
    """Return the sections of the table."""
    resampled: dict[str, Method] = {
        "percentile": by_percentile,
        "BCa": by_bca,
        "studentised": by_studentised,
    }
    single: dict[str, Method] = {"**estimate**": by_estimate}
    shares: dict[str, Method] = {"Wilson": by_wilson, "Clopper-Pearson": by_clopper_pearson}
    paired: dict[str, Method] = {"**difference**": by_difference}
    ratios = {"**ratio_of_means**": by_ratio, "Fieller": by_fieller, "percentile": by_percentile}
    forgotten = {**single, "clusters ignored": without_clusters}
    percentile: dict[str, Method] = {"percentile": by_percentile}
    return [
        Family("Share of 90", share, 90, mean, single | shares | resampled, (10, 30, 100)),
        Family("Mean, skewness 2.8", skewed, 50, mean, single | resampled, (10, 30, 100)),
        Family("Share, clustered", clustered, 60, mean, forgotten, (30, 100, 300)),
        Family("BLEU", corpus, large(corpus), BLEU, single | {"BCa": by_bca}, (30, 100, 300)),
        Family("Difference of means", two_means, 20, mean, paired | resampled, (10, 30, 100)),
        Family("Difference, skewness 2.8", two_skewed, 50, mean, paired | resampled, (30, 100)),
        Family(
            "Difference of shares, 10 % better, 10 % worse",
            changed(0.1, 0.1),
            0,
            mean,
            paired | resampled,
            (10, 30, 100, 300),
        ),
        Family(
            "Difference of shares, 5 % better, 1 % worse",
            changed(0.05, 0.01),
            4,
            mean,
            paired | resampled,
            (30, 100, 300),
        ),
        Family(
            "Difference of shares, clustered",
            two_clustered,
            -4,
            mean,
            paired | percentile,
            (10, 30, 100, 300),
        ),
        Family(
            "Difference of shares, losses in a few clusters",
            two_losing,
            -6,
            mean,
            paired | resampled,
            (30, 100, 300),
        ),
        Family(
            "Difference of BLEU",
            two_corpora,
            large(two_corpora),
            BLEU,
            paired | percentile,
            (10, 30, 100),
        ),
        Family("Ratio of shares", scores, 80, mean, ratios, (20, 30, 100)),
    ]


def rows_of(family: Family, size: int, num_simulations: int) -> list[str]:
    """Return a row per method: coverage, misses and mean width of the intervals that there are."""
    ends_M2: dict[str, list[tuple[float, float]]] = {name: [] for name in family.methods}
    with np.errstate(divide="ignore", invalid="ignore"):
        for simulation in range(num_simulations):
            data = family.draw(np.random.default_rng([simulation, size]), size)
            for name, method in family.methods.items():
                ends_M2[name].append(method(data, family.aggregate) or (np.nan, np.nan))
    lines = []
    for name, found in ends_M2.items():
        low, high = np.array(found).T
        given = np.isfinite(low)
        missing = 100 * (1 - given.mean())
        if not given.any():
            lines.append(f"| {size} | {name} | – | – | – | – | {missing:.1f} |")
            continue
        low, high = low[given], high[given]
        below, above = 100 * (high < family.truth).mean(), 100 * (low > family.truth).mean()
        lines.append(
            f"| {size} | {name} | {100 - below - above:.1f} | {below:.1f} | {above:.1f} "
            f"| {(high - low).mean():.1f} | {missing:.1f} |"
        )
    return lines


def about(draw: Draw) -> str:
    return " ".join((draw.__doc__ or "").split())


def report(num_simulations: int) -> str:
    """Return the whole Markdown file."""
    error = 100 * 1.96 * np.sqrt(0.95 * 0.05 / num_simulations)
    lines = [
        "# Coverage of the 95 % intervals",
        "",
        f"    python benchmarks/coverage.py --simulations {num_simulations}",
        "",
        f"{num_simulations} simulated sets of items a row, {NUM_RESAMPLES} resamples a set; the "
        f"coverage itself is known to ± {error:.1f}. Bold: what the harness uses. Too low, too "
        "high: per cent of the intervals that end below the truth or begin above it (2.5 each is "
        "right). Width: mean, on the metric's scale. No interval: per cent of the sets, left out "
        "of the other columns.",
    ]
    for family in families():
        lines += ["", f"## {family.name}", "", about(family.draw), ""]
        lines.append(
            "| clusters | interval | coverage | too low | too high | width | no interval |"
        )
        lines.append("|--:|---|--:|--:|--:|--:|--:|")
        for size in family.sizes:
            lines += rows_of(family, size, num_simulations)
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the table and say where."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--simulations", type=int, default=1000, help="sets of items a row")
    parser.add_argument(
        "--out", type=Path, default=REPOSITORY / "results" / "statistics" / "coverage.md"
    )
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(report(arguments.simulations), encoding="utf-8")
    print(arguments.out)


if __name__ == "__main__":
    main()
