"""Mean and covariance of features, gathered in double precision and constant memory.

Shapes: N pictures, C feature dimensions.
"""

import numpy as np

_ROWS = 2048  # rows turned into double precision at a time


class FeatureStatistics:
    """Count, mean and covariance of any number of features, without keeping them.

    Parts are merged by Chan, Golub & LeVeque 1983 (American Statistician 37:242): the scatter is
    taken about each part's own mean, so a large common offset costs no digits.
    """

    def __init__(self, dim: int) -> None:
        if dim < 1:
            raise ValueError(f"images: features of {dim} dimensions")
        self.dim = dim
        self.n = 0
        self._mean_C = np.zeros(dim)
        self._scatter_CC = np.zeros((dim, dim))

    @classmethod
    def of(cls, features_NC: np.ndarray) -> "FeatureStatistics":
        """Return the statistics of one array."""
        features_NC = np.asarray(features_NC)
        statistics = cls(features_NC.shape[-1])
        statistics.update(features_NC)
        return statistics

    def update(self, features_NC: np.ndarray) -> None:
        """Add features; raises ValueError for another shape and for values that are not finite."""
        features_NC = np.asarray(features_NC)
        if features_NC.ndim != 2 or features_NC.shape[1] != self.dim:
            raise ValueError(
                f"images: features of shape (N, {self.dim}) expected, got {features_NC.shape}"
            )
        if not np.isfinite(features_NC).all():
            raise ValueError("images: a feature is not finite")
        for start in range(0, len(features_NC), _ROWS):
            part_NC = features_NC[start : start + _ROWS].astype(np.float64)
            mean_C = part_NC.mean(axis=0)
            part_NC -= mean_C
            # one operand twice: numpy computes half the products and mirrors them
            self._add(len(part_NC), mean_C, part_NC.T @ part_NC)

    def merge(self, other: "FeatureStatistics") -> None:
        """Add what another has gathered; raises ValueError for another dimension."""
        if other.dim != self.dim:
            raise ValueError(f"images: features of {other.dim} and of {self.dim} dimensions")
        if other.n:
            self._add(other.n, other._mean_C, other._scatter_CC)

    def without(self, part: "FeatureStatistics") -> "FeatureStatistics":
        """Return the statistics of what is left when `part`, gathered before, is taken out.

        Raises ValueError for another dimension and for more than there is.
        """
        if part.dim != self.dim or part.n > self.n:
            raise ValueError(
                f"images: {part.n} features of {part.dim} dimensions are no part of {self.n} of "
                f"{self.dim}"
            )
        left = FeatureStatistics(self.dim)
        left.n = self.n - part.n
        if left.n:
            left._mean_C = (self._mean_C * self.n - part._mean_C * part.n) / left.n
            apart_C = part._mean_C - left._mean_C
            left._scatter_CC = self._scatter_CC - part._scatter_CC
            left._scatter_CC -= np.outer(apart_C, apart_C * (left.n * part.n / self.n))
        return left

    @property
    def mean_C(self) -> np.ndarray:  # noqa: N802 - the shape suffix
        """The mean; raises ValueError for no features."""
        if self.n < 1:
            raise ValueError("images: the mean of no features")
        return self._mean_C.copy()

    @property
    def covariance_CC(self) -> np.ndarray:  # noqa: N802
        """The unbiased covariance; raises ValueError for fewer than two features."""
        if self.n < 2:
            raise ValueError(f"images: the covariance of {self.n} features; at least 2 are needed")
        return self._scatter_CC / (self.n - 1)

    def _add(self, n: int, mean_C: np.ndarray, scatter_CC: np.ndarray) -> None:
        total = self.n + n
        apart_C = mean_C - self._mean_C
        self._mean_C = self._mean_C + apart_C * (n / total)
        self._scatter_CC += scatter_CC
        self._scatter_CC += np.outer(apart_C, apart_C * (self.n * n / total))
        self.n = total
