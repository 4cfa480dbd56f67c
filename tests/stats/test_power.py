"""Power against statsmodels, closed forms and a simulation."""

import math

import numpy as np
import pytest
from statsmodels.stats.power import NormalIndPower, TTestPower

from mpm_eval.stats import minimum_detectable, power_at, required_n

# ratio=0: one sample, here of differences
NORMAL = NormalIndPower(ddof=0)


@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize("effect", [0.0, 0.1, 0.2, 0.5])
def test_power_equals_statsmodels(effect: float, sides: int) -> None:
    oracle = NORMAL.power(
        effect, nobs1=100, alpha=0.05, ratio=0, alternative="two-sided" if sides == 2 else "larger"
    )
    assert power_at(effect, 1 / math.sqrt(100), sides=sides) == pytest.approx(oracle)


@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize("power", [0.5, 0.8, 0.95])
def test_the_minimum_detectable_difference_equals_statsmodels(power: float, sides: int) -> None:
    oracle = NORMAL.solve_power(
        nobs1=150,
        alpha=0.05,
        power=power,
        ratio=0,
        alternative="two-sided" if sides == 2 else "larger",
    )
    found = minimum_detectable(3 / math.sqrt(150), power=power, sides=sides)
    assert found == pytest.approx(3 * oracle, rel=1e-4)


def test_it_is_2_8_standard_errors() -> None:
    assert minimum_detectable(1.0) == pytest.approx(2.8016, abs=1e-4)  # Bloom 1995


@pytest.mark.parametrize("effect", [0.2, 0.35, -0.2])
def test_the_number_of_clusters_equals_statsmodels(effect: float) -> None:
    oracle = NORMAL.solve_power(effect_size=abs(effect), alpha=0.05, power=0.8, ratio=0)
    assert required_n(effect, 1 / math.sqrt(40), 40) == math.ceil(oracle)


def test_students_t_asks_for_a_few_clusters_more() -> None:
    found = required_n(0.2, 1 / math.sqrt(40), 40)
    oracle = TTestPower().solve_power(effect_size=0.2, alpha=0.05, power=0.8)
    assert found <= oracle <= 1.02 * found


def test_the_three_agree_with_each_other() -> None:
    effect = minimum_detectable(2.5, alpha=0.01, power=0.9)
    assert power_at(effect, 2.5, alpha=0.01) == pytest.approx(0.9, abs=1e-6)
    assert required_n(effect, 2.5, 70, alpha=0.01, power=0.9) in (70, 71)


def test_power_is_how_often_a_simulated_difference_is_found() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(2.0, 1.0, 100_000)
    assert power_at(2.0, 1.0) == pytest.approx((np.abs(z) > 1.96).mean(), abs=0.005)


def test_without_an_effect_power_is_alpha() -> None:
    assert power_at(0.0, 1.0, alpha=0.03) == pytest.approx(0.03)
    assert power_at(0.0, 1.0, alpha=0.03, sides=1) == pytest.approx(0.03)


@pytest.mark.parametrize(
    ("effect", "sides", "expected"), [(0.0, 2, 0.05), (1.0, 2, 1), (-1.0, 2, 1), (-1.0, 1, 0)]
)
def test_without_an_error_every_effect_is_found(effect: float, sides: int, expected: float) -> None:
    assert power_at(effect, 0.0, sides=sides) == expected
    assert minimum_detectable(0.0) == 0.0
    assert required_n(1.0, 0.0, 50) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"standard_error": -1.0}, "standard error"),
        ({"standard_error": math.nan}, "standard error"),
        ({"standard_error": math.inf}, "standard error"),
        ({"alpha": 0.0}, "level"),
        ({"alpha": 1.0}, "level"),
        ({"power": 1.0}, "power"),
        ({"power": 0.01}, "power"),
        ({"sides": 3}, "sides"),
    ],
)
def test_settings_without_a_meaning_raise(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        minimum_detectable(**({"standard_error": 1.0} | options))  # type: ignore[arg-type]


@pytest.mark.parametrize(("effect", "n"), [(0.0, 10), (math.nan, 10), (1.0, 0)])
def test_clusters_needed_for_no_effect_or_from_no_pilot_raise(effect: float, n: int) -> None:
    with pytest.raises(ValueError, match="pilot"):
        required_n(effect, 1.0, n)
