"""Correlation over languages: scipy and all orders as oracles, refusals, the command."""

import dataclasses
import json
from collections.abc import Mapping
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from mpm_eval.errors import UserError
from mpm_eval.schema import Score
from mpm_eval.stages.hypothesis import correlate
from mpm_eval.stages.result_schema import (
    DataIdentity,
    ModelIdentity,
    Result,
    TaskIdentity,
    ZeroShot,
)
from mpm_eval.strict import to_jsonable, write_json
from tests.conftest import Command

X = {"en": 99.0, "zh": 70.0, "de": 61.0, "fr": 63.0, "es": 62.0, "pt": 30.0}
Y = {"zh": 68.0, "de": 60.0, "fr": 62.0, "es": 69.0, "pt": 10.0}


def add(
    run: Path,
    task: str,
    metric: str,
    values: Mapping[str, float | None],
    subset: str = "",
    **changes: Any,
) -> None:
    scores = tuple(
        Score(metric, tag, value, None, 5, 0, True, metric, subset, "zero-shot")
        for tag, value in values.items()
    )
    result = Result(
        schema_version=1,
        task=TaskIdentity(task, 1, "t" * 64, "probe", metric, subset, "en"),
        model=ModelIdentity("m", "a" * 64, "m", {}),
        data=DataIdentity("d" * 64, {}),
        decoding={},
        seed=0,
        limit=None,
        languages=tuple(values),
        num_samples=5,
        num_failed=0,
        predictions_sha256="p" * 64,
        versions={},
        zero_shot={tag: ZeroShot("zero-shot", "") for tag in values},
        scores=scores,
        skipped=(),
    )
    write_json(run / task / "result.json", to_jsonable(dataclasses.replace(result, **changes)))


def make(run: Path, x: dict[str, Any] | None = None, y: dict[str, Any] | None = None) -> Path:
    add(run, "alignment", "retrieval_p1", x or X)
    add(run, "emoji_choice", "retention", y or Y, "cell=seen")
    return run


def test_both_correlations_are_those_of_scipy_without_the_pivot(tmp_path: Path) -> None:
    found = correlate(make(tmp_path), "alignment:retrieval_p1", "emoji_choice:retention")
    xs, ys = [X[tag] for tag in Y], list(Y.values())
    assert found.pearson == pytest.approx(pearsonr(xs, ys).statistic)
    assert found.spearman == pytest.approx(spearmanr(xs, ys).statistic)
    assert [p.language for p in found.points] == ["zh", "fr", "es", "de", "pt"]
    assert found.y == "emoji_choice:retention:cell=seen", "the main subset is the default"


def test_the_p_value_counts_all_orders(tmp_path: Path) -> None:
    found = correlate(make(tmp_path), "alignment:retrieval_p1", "emoji_choice:retention")
    xs, ys = [X[tag] for tag in Y], list(Y.values())
    for name, function in (("pearson", pearsonr), ("spearman", spearmanr)):
        real = abs(function(xs, ys).statistic)
        as_large = [abs(function(xs, order).statistic) >= real - 1e-9 for order in permutations(ys)]
        assert getattr(found, f"{name}_p") == pytest.approx(np.mean(as_large))
    assert found.test == "all 120 orders"


def test_a_perfect_rank_correlation_of_four_has_two_orders_of_24(tmp_path: Path) -> None:
    values = {"zh": 1.0, "de": 2.0, "fr": 3.0, "es": 4.0}
    make(tmp_path, values, {tag: value**3 for tag, value in values.items()})
    found = correlate(tmp_path, "alignment:retrieval_p1", "emoji_choice:retention")
    assert found.spearman == pytest.approx(1) and found.pearson != pytest.approx(1)
    assert found.spearman_p == pytest.approx(2 / 24) == found.smallest_p


def test_many_languages_are_tried_in_random_orders_that_repeat(tmp_path: Path) -> None:
    tags = ["zh", "de", "fr", "es", "pt", "it", "nl", "ja", "ko", "ru"]
    rng = np.random.default_rng(0)
    make(
        tmp_path,
        {tag: float(i) for i, tag in enumerate(tags)},
        {tag: float(i + 3 * rng.normal()) for i, tag in enumerate(tags)},
    )
    found, again = (
        correlate(tmp_path, "alignment:retrieval_p1", "emoji_choice:retention") for _ in range(2)
    )
    assert found == again and found.test == "20000 random orders"
    xs, ys = zip(*[(p.x, p.y) for p in found.points], strict=True)
    # scipy's p assumes normal errors, which these are
    assert found.pearson_p == pytest.approx(pearsonr(xs, ys).pvalue, abs=0.01)
    assert found.pearson_p is not None and found.pearson_p >= 1 / 20_001


def test_values_that_are_all_alike_have_no_correlation(tmp_path: Path) -> None:
    make(tmp_path, dict.fromkeys(Y, 50.0))
    found = correlate(tmp_path, "alignment:retrieval_p1", "emoji_choice:retention")
    assert (found.pearson, found.pearson_p, found.spearman, found.spearman_p) == (None,) * 4


def test_a_language_without_both_values_is_left_out_and_named(tmp_path: Path) -> None:
    make(tmp_path, {**X, "it": 1.0}, {**Y, "nl": 3.0, "ko": None})
    found = correlate(tmp_path, "alignment:retrieval_p1", "emoji_choice:retention")
    assert found.left_out == ("it", "ko", "nl") and len(found.points) == 5


def test_a_limited_result_is_named(tmp_path: Path) -> None:
    make(tmp_path)
    add(tmp_path, "emoji_choice", "retention", dict(Y), limit=7)
    found = correlate(tmp_path, "alignment:retrieval_p1", "emoji_choice:retention")
    assert found.notes == ("emoji_choice: limited to 7 samples per language",)


def test_three_languages_cannot_say(tmp_path: Path) -> None:
    make(tmp_path, X, {tag: Y[tag] for tag in ("zh", "de", "fr")})
    with pytest.raises(UserError, match="cannot say: 3 target languages have both"):
        correlate(tmp_path, "alignment:retrieval_p1", "emoji_choice:retention")


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ("alignment", "--x 'alignment': write task:metric"),
        (":mexa", "--x ':mexa': write task:metric"),
        ("alignmnt:mexa", "unknown task 'alignmnt'; did you mean 'alignment'"),
        ("alignment:retrieval_p2", "unknown metric 'retrieval_p2'; did you mean 'retrieval_p1'"),
        ("alignment:retrieval_p1:layer=9", "unknown subset 'layer=9'"),
    ],
)
def test_a_score_that_is_not_there_is_named(tmp_path: Path, x: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        correlate(make(tmp_path), x, "emoji_choice:retention")


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no task in it is scored"):
        correlate(tmp_path, "alignment:retrieval_p1", "emoji_choice:retention")


@pytest.mark.slow
def test_the_command_prints_the_table_and_what_it_cannot_say(
    mpm_eval: Command, tmp_path: Path
) -> None:
    make(tmp_path / "run", None, {tag: Y[tag] for tag in ("zh", "de", "fr", "es")})
    done = mpm_eval("correlate", "run")
    assert done.returncode == 0, done.stderr
    assert "Pearson +0.52" in done.stdout and "(4 languages, all 24 orders)" in done.stdout
    assert "a perfect rank correlation has p = 0.083" in done.stdout
    assert "left out, without both values: pt" in done.stdout
    content = json.loads(mpm_eval("correlate", "run", "--json").stdout)
    assert len(content["points"]) == 4 and content["left_out"] == ["pt"]
    done = mpm_eval("correlate", "run", "--x", "nothing")
    assert done.returncode == 2 and done.stderr.startswith("error: --x 'nothing': write")
