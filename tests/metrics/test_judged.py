"""The relative score: a ratio of sums of judged scores."""

import numpy as np
import pytest

from mpm_eval.metrics import Item, load_metric
from mpm_eval.metrics.judged import RelativeScore


def item(reference: float, candidate: float) -> Item:
    return Item("answer", ("reference",), "en", judgement=(reference, candidate))


def value(*items: Item) -> float:
    metric = RelativeScore()
    return float(metric.aggregate(metric.statistics(items, "en").sum(axis=0)))


def test_it_is_the_ratio_of_sums_not_the_mean_of_ratios() -> None:
    # (2 + 9) / (4 + 10); the mean of 2 / 4 and 9 / 10 would be 70
    assert value(item(4, 2), item(10, 9)) == pytest.approx(1100 / 14)


def test_the_pooled_ratio_is_not_the_mean_of_its_categories() -> None:
    conv, detail = [item(10, 8)] * 3, [item(5, 1)] * 3
    mean = (value(*conv) + value(*detail)) / 2
    assert value(*conv, *detail) == pytest.approx(60.0) and mean == pytest.approx(50.0)


def test_it_exceeds_100_where_the_answers_are_liked_better() -> None:
    assert value(item(7, 8)) == pytest.approx(800 / 7)


def test_references_that_all_got_0_have_no_ratio() -> None:
    assert np.isnan(value(item(0, 5)))


def test_an_item_without_a_judgement_is_never_a_number() -> None:
    with pytest.raises(ValueError, match="no judgement"):
        RelativeScore().statistics([Item("a", ("b",), "en")], "en")


def test_the_signature_names_the_judge() -> None:
    metric = load_metric("relative_score")
    assert isinstance(metric, RelativeScore)
    assert metric.signature("zh") == "relative_score|ratio:of-sums|judge:none|v:1"
    judged = metric.judged_by("judge:openai:m|mode:llava")
    assert judged.signature("zh") == "relative_score|ratio:of-sums|judge:openai:m|mode:llava|v:1"
