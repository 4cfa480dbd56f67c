"""Mean and covariance in a stream: equal to numpy's on the whole, whatever the chunks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpm_eval.images.statistics import FeatureStatistics


def features(n: int, dim: int, seed: int = 0, offset: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, dim)) * np.linspace(0.5, 2, dim) + offset


def test_mean_and_covariance_are_those_of_numpy() -> None:
    x_NC = features(500, 7)
    found = FeatureStatistics.of(x_NC)
    assert found.n == 500
    np.testing.assert_allclose(found.mean_C, x_NC.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(found.covariance_CC, np.cov(x_NC, rowvar=False), rtol=1e-12)


@given(st.lists(st.integers(0, 60), min_size=1, max_size=6), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_chunks_give_what_the_whole_gives(sizes: list[int], seed: int) -> None:
    whole_NC = features(sum(sizes) + 2, 3, seed)
    chunked, start = FeatureStatistics(3), 0
    for size in [*sizes, 2]:
        chunked.update(whole_NC[start : start + size])
        start += size
    whole = FeatureStatistics.of(whole_NC)
    np.testing.assert_allclose(chunked.mean_C, whole.mean_C, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(chunked.covariance_CC, whole.covariance_CC, rtol=1e-11, atol=1e-12)


def test_merging_gives_what_updating_gives() -> None:
    x_NC = features(90, 4)
    merged = FeatureStatistics.of(x_NC[:20])
    merged.merge(FeatureStatistics.of(x_NC[20:]))
    merged.merge(FeatureStatistics(4))
    np.testing.assert_allclose(merged.covariance_CC, FeatureStatistics.of(x_NC).covariance_CC)


def test_taking_a_part_out_leaves_the_rest() -> None:
    x_NC = features(90, 4, offset=3)
    rest = FeatureStatistics.of(x_NC).without(FeatureStatistics.of(x_NC[:30]))
    expected = FeatureStatistics.of(x_NC[30:])
    assert rest.n == 60
    np.testing.assert_allclose(rest.mean_C, expected.mean_C, rtol=1e-12)
    np.testing.assert_allclose(rest.covariance_CC, expected.covariance_CC, rtol=1e-10)


def test_a_large_offset_costs_few_digits() -> None:
    x_NC = np.round(features(400, 3) * 1024) / 1024  # the shift rounds no digit away
    shifted = FeatureStatistics(3)
    for start in range(0, 400, 32):
        shifted.update(x_NC[start : start + 32] + 2.0**20)
    np.testing.assert_allclose(
        shifted.covariance_CC, FeatureStatistics.of(x_NC).covariance_CC, rtol=1e-9, atol=1e-10
    )


def test_single_precision_is_summed_in_double() -> None:
    x_NC = np.full((100_000, 1), np.float32(0.1))
    assert FeatureStatistics.of(x_NC).mean_C[0] == pytest.approx(float(np.float32(0.1)), rel=1e-15)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((2, 3)), r"shape \(N, 4\) expected, got \(2, 3\)"),
        (np.zeros(4), r"shape \(N, 4\)"),
        (np.full((1, 4), np.nan), "not finite"),
        (np.full((1, 4), np.inf), "not finite"),
    ],
)
def test_bad_features_are_refused_and_change_nothing(bad: np.ndarray, message: str) -> None:
    statistics = FeatureStatistics.of(features(9, 4))
    before = statistics.covariance_CC
    with pytest.raises(ValueError, match=message):
        statistics.update(bad)
    assert statistics.n == 9
    np.testing.assert_array_equal(statistics.covariance_CC, before)


def test_too_few_have_no_mean_and_no_covariance() -> None:
    with pytest.raises(ValueError, match="mean of no features"):
        _ = FeatureStatistics(2).mean_C
    with pytest.raises(ValueError, match="covariance of 1 features; at least 2"):
        _ = FeatureStatistics.of(np.zeros((1, 2))).covariance_CC
    with pytest.raises(ValueError, match="features of 3 and of 2 dimensions"):
        FeatureStatistics(2).merge(FeatureStatistics(3))
    with pytest.raises(ValueError, match="no part"):
        FeatureStatistics(2).without(FeatureStatistics.of(np.zeros((1, 2))))
