"""Fréchet and kernel distances beside other libraries': values, times, and how wide intervals are.

    OMP_NUM_THREADS=1 python benchmarks/image_metrics.py [--dim 2048] [--pictures 5000]
    OMP_NUM_THREADS=1 python benchmarks/image_metrics.py --coverage

Cost at full size: about 3 minutes of one core; seconds with --dim 256 --pictures 1000; the coverage
a minute. Expected: Fréchet distances equal to 1e-13 of each other, this project's in a tenth of the
time of a matrix square root and a third of that of other eigenvalues; kernel distances equal to
1e-13 on the same pictures, and 100 subsets with an interval in less than a third of the time of the
fastest other. A library that does not import is skipped, with the reason: pytorch-fid,
torch-fidelity and clean-fid need torchvision.

All are given the same features; the time is the processor's, statistics and drawing of subsets not
counted in the first table and counted in the second, as each library's own call has it.
"""

import argparse
import math
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg  # noqa: F401 - its import is not what is timed

from mpm_eval.images.frechet import estimate_frechet, frechet_distance, frechet_infinity
from mpm_eval.images.kernel import kernel_distance
from mpm_eval.images.statistics import FeatureStatistics

Timed = Callable[[], float]


def features(n: int, dim: int, seed: int, shift: float = 0.0) -> np.ndarray:
    """Return features_NC like Inception's: positive, correlated, of very different spreads."""
    mixing_CC = np.random.default_rng(0).normal(size=(dim, dim)) / math.sqrt(dim)
    rng = np.random.default_rng(seed)
    spread_C = np.exp(np.linspace(0, -4, dim))
    mixed_NC = (rng.normal(size=(n, dim)) * spread_C) @ mixing_CC
    return np.maximum(mixed_NC + 0.3 + shift, 0)


def frechet_ways(a_NC: np.ndarray, b_NC: np.ndarray) -> dict[str, Callable[[], Timed]]:
    """Return, by name, what imports a library and returns its Fréchet distance."""
    a, b = FeatureStatistics.of(a_NC), FeatureStatistics.of(b_NC)
    parts = (a.mean_C, a.covariance_CC, b.mean_C, b.covariance_CC)

    def scipy_root() -> Timed:
        from scipy.linalg import sqrtm

        def distance() -> float:
            apart_C = parts[0] - parts[2]
            root_CC = np.real(sqrtm(parts[1] @ parts[3]))
            return float(apart_C @ apart_C + np.trace(parts[1] + parts[3] - 2 * root_CC))

        return distance

    def pytorch_fid() -> Timed:
        from pytorch_fid.fid_score import calculate_frechet_distance

        return lambda: float(calculate_frechet_distance(*parts))

    def clean_fid() -> Timed:
        from cleanfid.fid import frechet_distance as theirs

        return lambda: float(theirs(*parts))

    def torch_fidelity() -> Timed:
        from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

        of = [{"mu": parts[i], "sigma": parts[i + 1]} for i in (0, 2)]
        return lambda: float(fid_statistics_to_metric(*of, verbose=False)[KEY_METRIC_FID])

    def torchmetrics() -> Timed:
        import torch
        from torchmetrics.image.fid import _compute_fid

        tensors = [torch.from_numpy(part) for part in parts]
        return lambda: float(_compute_fid(*tensors))

    return {
        "mpm-eval": lambda: lambda: frechet_distance(a, b),
        "scipy sqrtm": scipy_root,
        "pytorch-fid": pytorch_fid,
        "clean-fid": clean_fid,
        "torchmetrics": torchmetrics,
        "torch-fidelity": torch_fidelity,
    }


def kernel_ways(
    a_NC: np.ndarray, b_NC: np.ndarray, num_subsets: int, size: int
) -> dict[str, Callable[[], Timed]]:
    """Return, by name, what imports a library and returns its kernel distance."""

    def ours() -> float:
        value = kernel_distance(a_NC, b_NC, num_subsets, size).value
        assert value is not None
        return value

    def clean_fid() -> Timed:
        from cleanfid.fid import kernel_distance as theirs

        return lambda: float(theirs(b_NC, a_NC, num_subsets, size))

    def torch_fidelity() -> Timed:
        import torch
        from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

        both = [torch.from_numpy(x_NC) for x_NC in (a_NC, b_NC)]
        settings: dict[str, Any] = {
            "kid_subsets": num_subsets, "kid_subset_size": size, "verbose": False,
        }  # fmt: skip
        return lambda: float(kid_features_to_metric(*both, **settings)[KEY_METRIC_KID_MEAN])

    def torchmetrics() -> Timed:
        import torch
        from torchmetrics.image.kid import KernelInceptionDistance

        metric = KernelInceptionDistance(
            feature=torch.nn.Flatten(), subsets=num_subsets, subset_size=size
        )
        metric.real_features = [torch.from_numpy(b_NC)]
        metric.fake_features = [torch.from_numpy(a_NC)]
        return lambda: float(metric.compute()[0])

    return {
        "mpm-eval, with interval": lambda: ours,
        "clean-fid": clean_fid,
        "torchmetrics": torchmetrics,
        "torch-fidelity": torch_fidelity,
    }


def table(title: str, ways: dict[str, Callable[[], Timed]]) -> None:
    """Print value and time of each way; the first one is what the others are compared with."""
    print(f"\n{title}\n\n| library | value | relative difference | seconds |\n|---|--:|--:|--:|")
    first = None
    for name, ready in ways.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                call = ready()
                start = time.process_time()
                value = call()
                seconds = time.process_time() - start
        except Exception as error:  # a library of others may fail in any way
            reason = " ".join(str(error).split())[:60] or type(error).__name__
            print(f"| {name} | – | skipped: {reason} | – |", flush=True)
            continue
        first = value if first is None else first
        print(f"| {name} | {value:.12g} | {value / first - 1:.1e} | {seconds:.2f} |", flush=True)


def coverage(simulations: int) -> None:
    """Print the true spread of the distance of n pictures beside what each interval says."""
    print(
        "\nStandard error of the distance of n pictures of d dimensions (simulated, and what the "
        "intervals say on average), its bias, and what the extrapolation leaves of it\n\n"
        "| d | n | pictures | distance | true | jackknife | bootstrap | bias | of infinity |\n"
        "|--:|--:|---|--:|--:|--:|--:|--:|--:|"
    )
    for dim, n in ((32, 64), (32, 96), (32, 128), (32, 400), (64, 256), (64, 1000)):
        for shift in (0.0, 0.3):
            print(coverage_row(dim, n, shift, simulations), flush=True)


def coverage_row(dim: int, n: int, shift: float, simulations: int) -> str:
    """Return one row of `coverage`."""
    rng = np.random.default_rng([dim, n])
    spread_C = np.exp(rng.normal(size=dim) * 0.5)
    truth = float((spread_C**2).sum()) * (shift**2 + 0.1**2)
    reference = FeatureStatistics.of(rng.normal(size=(50_000, dim)) * spread_C)
    values, infinity = [], []
    errors: dict[str, list[float]] = {"jackknife": [], "bootstrap": []}
    for seed in range(simulations):
        x_NC = (rng.normal(size=(n, dim)) * 1.1 + shift) * spread_C
        for interval, found in errors.items():
            estimate = estimate_frechet(
                x_NC, reference, interval=interval, num_resamples=50, seed=seed
            )
            assert estimate.ci95 is not None and estimate.biased_value is not None
            found.append((estimate.ci95[1] - estimate.biased_value) / 1.96)
        values.append(estimate.biased_value)
        if n >= 3 * dim:
            infinity.append(frechet_infinity(x_NC, reference, seed=seed))
    left = f"{np.mean(infinity) - truth:+.2f}" if infinity else "–"
    kind = "shifted" if shift else "near"
    return (
        f"| {dim} | {n} | {kind} | {np.mean(values):.2f} | {np.std(values, ddof=1):.2f} "
        f"| {np.mean(errors['jackknife']):.2f} | {np.mean(errors['bootstrap']):.2f} "
        f"| {np.mean(values) - truth:+.2f} | {left} |"
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--pictures", type=int, default=5000)
    parser.add_argument("--subsets", type=int, default=100)
    parser.add_argument("--subset-size", type=int, default=1000)
    parser.add_argument("--coverage", action="store_true", help="simulate the intervals instead")
    parser.add_argument("--simulations", type=int, default=60)
    given = parser.parse_args()
    if given.coverage:
        return coverage(given.simulations)
    a_NC = features(given.pictures, given.dim, 1, shift=0.05)
    b_NC = features(given.pictures, given.dim, 2)
    size = f"{given.pictures} pictures, {given.dim} dimensions"
    table(f"Fréchet distance, {size}", frechet_ways(a_NC, b_NC))
    subset_size = min(given.subset_size, given.pictures)
    title = f"Kernel distance, {size}, {given.subsets} subsets of {subset_size}"
    table(f"{title} (drawn by each)", kernel_ways(a_NC, b_NC, given.subsets, subset_size))
    few = a_NC[: given.pictures // 5], b_NC[: given.pictures // 5]
    one = len(few[0])
    table(f"Kernel distance, one subset of all {one}", kernel_ways(*few, 1, one))


if __name__ == "__main__":
    main()
