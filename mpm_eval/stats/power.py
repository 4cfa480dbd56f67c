"""How small a difference can be seen: minimum detectable effect, power, clusters needed.

All take the standard error of a difference (`Difference.standard_error`) and the normal
distribution: with fewer than 30 clusters the truth is a few per cent worse.
"""

import math

from scipy.special import ndtr, ndtri

from mpm_eval.stats.intervals import ALPHA, check_level


def minimum_detectable(
    standard_error: float, *, alpha: float = ALPHA, power: float = 0.8, sides: int = 2
) -> float:
    """Return the smallest true difference found with a chance of `power`, in the error's unit.

    (z of 1 - alpha / sides + z of power) * standard error; 2.80 standard errors as it is (Bloom
    1995). Raises ValueError for a negative or infinite error, a level outside 0 to 1, a power
    outside alpha to 1, or sides other than 1 and 2.
    """
    _check(standard_error, alpha, sides)
    if not alpha < power < 1:
        raise ValueError(f"stats: a power of {power}, between {alpha} and 1 expected")
    return _quantiles(alpha, power, sides) * standard_error


def power_at(
    effect: float, standard_error: float, *, alpha: float = ALPHA, sides: int = 2
) -> float:
    """Return the chance, 0 to 1, that a test at level alpha finds a true difference of `effect`.

    Two-sided, either direction counts as found; one-sided, an effect below 0 is looked for in the
    wrong direction. With an error of 0 any effect is found. Raises ValueError as
    `minimum_detectable`.
    """
    _check(standard_error, alpha, sides)
    if effect == 0:
        return alpha
    shift = effect / standard_error if standard_error else math.copysign(math.inf, effect)
    z = float(ndtri(1 - alpha / sides))
    found = float(ndtr(shift - z))
    return found + float(ndtr(-shift - z)) if sides == 2 else found


def required_n(
    effect: float,
    standard_error: float,
    n: int,
    *,
    alpha: float = ALPHA,
    power: float = 0.8,
    sides: int = 2,
) -> int:
    """Return how many clusters find a true difference of `effect` with a chance of `power`.

    `standard_error` is that of a pilot with n clusters; it shrinks with the square root of their
    number. At least 2. One-sided, the effect's own direction is looked for. Raises ValueError as
    `minimum_detectable`, for an effect of 0 and for n below 1.
    """
    if effect == 0 or not math.isfinite(effect) or n < 1:
        raise ValueError(f"stats: clusters needed for an effect of {effect} from a pilot of {n}")
    detectable = minimum_detectable(standard_error, alpha=alpha, power=power, sides=sides)
    return max(2, math.ceil(n * (detectable / effect) ** 2))


def _quantiles(alpha: float, power: float, sides: int) -> float:
    return float(ndtri(1 - alpha / sides) + ndtri(power))


def _check(standard_error: float, alpha: float, sides: int) -> None:
    check_level(alpha)
    if not 0 <= standard_error < math.inf:
        raise ValueError(f"stats: a standard error of {standard_error}")
    if sides not in (1, 2):
        raise ValueError(f"stats: a test of {sides} sides, 1 or 2 expected")
