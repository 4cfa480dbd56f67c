"""Groups and gaps: pictures of a cluster stay together, and what is paired cancels."""

import numpy as np
import pytest

from mpm_eval.images.frechet import estimate_frechet
from mpm_eval.images.jackknife import deviation, groups, paired_gap
from mpm_eval.images.kernel import kernel_distance
from mpm_eval.images.statistics import FeatureStatistics


def test_groups_are_of_equal_size_and_keep_clusters_together() -> None:
    clusters = [f"c{index // 3}" for index in range(300)]
    group_N = groups(300, clusters)
    assert np.bincount(group_N).tolist() == [6] * 50
    for name in set(clusters):
        assert len({group_N[i] for i in range(300) if clusters[i] == name}) == 1


def test_there_are_no_more_groups_than_clusters() -> None:
    assert set(groups(30, [index % 7 for index in range(30)])) == set(range(7))
    assert set(groups(3)) == {0, 1, 2}
    with pytest.raises(ValueError, match="3 pictures and 2 clusters"):
        groups(3, ["a", "b"])


def test_the_standard_error_of_a_mean_is_the_textbook_one() -> None:
    x_N = np.random.default_rng(0).normal(size=40)
    without_N = (x_N.sum() - x_N) / 39
    assert deviation(without_N) == pytest.approx(x_N.std(ddof=1) / np.sqrt(40), rel=1e-12)
    assert deviation([1.0]) is None


def test_a_gap_of_paired_pictures_is_narrower_than_the_distances() -> None:
    rng = np.random.default_rng(0)
    reference_NC = rng.normal(size=(500, 4))
    a_NC = rng.normal(size=(200, 4)) + 0.5
    b_NC = a_NC + 0.1 + rng.normal(size=(200, 4)) * 0.05
    reference = FeatureStatistics.of(reference_NC)
    for a, b in (
        (estimate_frechet(a_NC, reference), estimate_frechet(b_NC, reference)),
        (kernel_distance(a_NC, reference_NC, 5, 50), kernel_distance(b_NC, reference_NC, 5, 50)),
    ):
        gap, ci95 = paired_gap(b, a)
        assert a.value is not None and b.value is not None and a.ci95 and ci95 and gap
        assert gap == b.value - a.value
        assert ci95[1] - ci95[0] < 0.7 * (a.ci95[1] - a.ci95[0])
        assert ci95[0] > 0


def test_a_gap_needs_pairs_and_values() -> None:
    rng = np.random.default_rng(0)
    reference = FeatureStatistics.of(rng.normal(size=(500, 4)))
    a = estimate_frechet(rng.normal(size=(200, 4)), reference)
    other = estimate_frechet(rng.normal(size=(200, 4)), reference, seed=1)
    with pytest.raises(ValueError, match="not paired"):
        paired_gap(a, other)
    few = estimate_frechet(rng.normal(size=(3, 4)), reference)
    assert paired_gap(a, few) == (None, None)
    unkept = estimate_frechet(FeatureStatistics.of(rng.normal(size=(200, 4))), reference)
    assert paired_gap(a, unkept)[1] is None


def test_one_cluster_has_no_interval() -> None:
    rng = np.random.default_rng(0)
    x_NC, reference_NC = rng.normal(size=(60, 4)), rng.normal(size=(60, 4))
    clusters = ["one"] * 60
    found = estimate_frechet(x_NC, FeatureStatistics.of(reference_NC), clusters=clusters)
    assert found.value is not None and found.ci95 is None
    assert kernel_distance(x_NC, reference_NC, 3, 20, clusters=clusters).ci95 is None


def test_groups_that_leave_one_picture_have_no_interval() -> None:
    rng = np.random.default_rng(0)
    x_NC, reference_NC = rng.normal(size=(3, 2)), rng.normal(size=(60, 2))
    clusters = ["a", "a", "b"]
    by_kernel = kernel_distance(x_NC, reference_NC, 3, 20, clusters=clusters)
    by_frechet = estimate_frechet(x_NC, FeatureStatistics.of(reference_NC), clusters=clusters)
    assert by_kernel.value is not None and by_frechet.value is not None
    assert by_kernel.left_out == by_frechet.left_out == ()
    assert by_kernel.ci95 is by_frechet.ci95 is None
