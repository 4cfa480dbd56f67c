"""Properties that every registered metric must have; a new metric is tested on arrival."""

import dataclasses
import math

import numpy as np
import pytest

from mpm_eval.errors import UserError
from mpm_eval.metrics import METRICS, Item, Metric, load_metric
from mpm_eval.schema import KINDS, OptionScore

TEXTS = {
    "en": (
        "a brown dog runs on the grass",
        "two children are playing in the water",
        "the old man reads a newspaper at home",
        "there is a red bus in front of the house",
    ),
    "de": (
        "ein brauner Hund läuft über die Wiese",
        "zwei Kinder spielen zusammen im Wasser",
        "der alte Mann liest zu Hause eine Zeitung",
        "vor dem Haus steht ein roter Bus",
    ),
    "zh": (
        "一只棕色的狗在草地上奔跑",
        "两个孩子正在水里玩耍",
        "老人在家里看报纸",
        "房子前面有一辆红色的公共汽车",
    ),
}
WORST = ("xyz", "", "??? !!!", "the the the the the the the the")
SCORES = (OptionScore(-1.0, 2), OptionScore(-4.0, 2), OptionScore(-9.0, 3))


def perfect_items(metric: Metric, language: str) -> list[Item]:
    items = [
        Item(
            text,
            (text,),
            language,
            option_scores=SCORES,
            answer=0,
            judgement=(8.0, 8.0),
            ranking=(text, "x", "y"),
            cluster=text,
        )
        for text in TEXTS[language]
    ]
    return [i if metric.applies(i) else dataclasses.replace(i, closed=False) for i in items]


def mixed_items(metric: Metric, language: str) -> list[Item]:
    perfect = perfect_items(metric, language)
    failing = [
        dataclasses.replace(item, output=output, answer=2, ranking=("x", "y"))
        for item, output in zip(perfect, WORST, strict=True)
    ]
    swapped = [
        dataclasses.replace(item, output=other.output, references=(*item.references, "x"))
        for item, other in zip(perfect, reversed(perfect), strict=True)
    ]
    return perfect + failing + swapped


@pytest.fixture(params=sorted(METRICS))
def metric(request: pytest.FixtureRequest) -> Metric:
    return load_metric(request.param)


def value(metric: Metric, items: list[Item], language: str) -> float:
    return float(metric.aggregate(metric.statistics(items, language).sum(axis=0)))


@pytest.mark.parametrize("language", TEXTS)
def test_an_output_equal_to_its_reference_gets_the_best_value(
    metric: Metric, language: str
) -> None:
    best = metric.range[1] if metric.higher_is_better else metric.range[0]
    if getattr(metric, "judged", False):
        best = 100.0  # equal scores; a judge may like an answer better than the reference
    assert value(metric, perfect_items(metric, language), language) == pytest.approx(best, abs=1e-4)


@pytest.mark.parametrize("language", TEXTS)
def test_values_stay_within_the_stated_range(metric: Metric, language: str) -> None:
    low, high = metric.range
    items = mixed_items(metric, language)
    statistics = metric.statistics(items, language)
    # a row of zeros is an item without weight: alone it has no value
    values = metric.aggregate(statistics[statistics.any(axis=1)])
    assert np.isfinite(values).all()
    assert (values >= low).all() and (values <= high).all()
    assert low <= value(metric, items, language) < high


def test_the_order_of_samples_does_not_matter(metric: Metric) -> None:
    items = mixed_items(metric, "en")
    there = metric.statistics(items, "en")
    back = metric.statistics(items[::-1], "en")
    np.testing.assert_allclose(there, back[::-1], rtol=0, atol=1e-4)


def test_an_empty_set_raises(metric: Metric) -> None:
    with pytest.raises(ValueError, match=r"no items"):
        metric.statistics([], "en")


def test_statistics_are_one_finite_row_of_doubles_per_item(metric: Metric) -> None:
    items = mixed_items(metric, "en")
    statistics = metric.statistics(items, "en")
    assert statistics.dtype == np.float64
    assert statistics.ndim == 2 and len(statistics) == len(items)
    assert np.isfinite(statistics).all()


def test_aggregate_keeps_leading_dimensions_and_equals_one_at_a_time(metric: Metric) -> None:
    statistics = metric.statistics(mixed_items(metric, "en"), "en")
    weights = np.random.default_rng(0).multinomial(12, [1 / 12] * 12, size=(3, 5))
    totals = weights @ statistics
    values = metric.aggregate(totals)
    assert values.shape == (3, 5)
    single = [[float(metric.aggregate(row)) for row in rows] for rows in totals]
    np.testing.assert_allclose(values, single, rtol=1e-12)


def test_aggregate_of_nothing_is_undefined_not_zero(metric: Metric) -> None:
    statistics = metric.statistics(perfect_items(metric, "en"), "en")
    assert math.isnan(float(metric.aggregate(np.zeros(statistics.shape[1]))))


def test_aggregate_does_not_change_its_argument(metric: Metric) -> None:
    totals = metric.statistics(mixed_items(metric, "en"), "en").sum(axis=0)
    before = totals.copy()
    metric.aggregate(totals)
    np.testing.assert_array_equal(totals, before)


@pytest.mark.parametrize("language", ["en", "zh", "ja", "ko", "ar"])
def test_a_signature_names_the_metric_and_has_no_spaces(metric: Metric, language: str) -> None:
    signature = metric.signature(language)
    assert signature.split("|")[0] == metric.name
    assert not any(char.isspace() for char in signature)
    assert all(":" in part for part in signature.split("|")[1:])


def test_the_table_names_each_metric_as_it_names_itself() -> None:
    for name in METRICS:
        metric = load_metric(name)
        assert metric.name == name
        assert metric.kinds <= set(KINDS)
        assert metric.__doc__ and metric.__doc__.strip()


def test_an_unknown_metric_names_the_nearest_one() -> None:
    with pytest.raises(UserError, match=r"did you mean 'chrf'"):
        load_metric("chrff")
