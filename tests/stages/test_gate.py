"""The gate: passed, regression or cannot decide, and never green by accident."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mpm_eval.errors import UserError
from mpm_eval.stages.gate import gate
from mpm_eval.stages.gate_rules import Ceiling, Rule, Rules
from mpm_eval.stages.gate_verdicts import Report, Verdict
from mpm_eval.stages.pairing import Side
from tests.stages.gate_sides import hits, make_side

RULES = Rules((Rule(margin=10.0),))


def decide(a: Side, b: Side | None, rules: Rules = RULES, seed: int = 0) -> Report:
    candidate = {"animals": b} if b else {"other": replace(a)}
    return gate({"animals": a}, candidate, rules, seed=seed)


def only(report: Report) -> Verdict:
    (verdict,) = report.verdicts
    return verdict


def test_identical_outputs_pass() -> None:
    a = make_side({"de": hits(60, 100)})
    report = decide(a, make_side({"de": hits(60, 100)}))
    verdict = only(report)
    assert (report.exit_code, verdict.reason) == (0, "outputs identical")
    assert (verdict.change, verdict.n, verdict.num_clusters) == (0.0, 100, 100)


def test_a_large_drop_is_a_regression() -> None:
    report = decide(make_side({"de": hits(60, 100)}), make_side({"de": hits(30, 100)}))
    verdict = only(report)
    assert (report.exit_code, report.status, verdict.status) == (1, "regression", "regression")
    assert verdict.change == pytest.approx(-30) and "a drop of 30.0" in verdict.reason


def test_a_significant_drop_that_is_shown_to_be_within_the_margin_passes() -> None:
    report = decide(make_side({"de": hits(1200, 2000)}), make_side({"de": hits(1160, 2000)}))
    verdict = only(report)
    assert report.exit_code == 0 and verdict.p_value is not None and verdict.p_value < 0.001
    assert verdict.change == pytest.approx(-2)
    assert verdict.lower is not None and -3 < verdict.lower < -2


def test_too_few_samples_for_the_margin_cannot_be_decided_and_say_how_many_are_needed() -> None:
    a = [1.0, 0.0] * 20
    b = [0.0, 1.0] * 5 + a[10:]  # as good, but ten answers changed
    report = decide(make_side({"de": a}), make_side({"de": b}))
    verdict = only(report)
    assert (report.exit_code, verdict.change) == (3, 0.0)
    assert "needs about" in verdict.reason and verdict.reason.endswith("has 40")


def test_more_of_the_same_samples_decide_what_few_could_not() -> None:
    a = [1.0, 0.0] * 20
    b = [0.0, 1.0] * 5 + a[10:]
    assert decide(make_side({"de": a * 8}), make_side({"de": b * 8})).exit_code == 0


@pytest.mark.parametrize(("n", "exit_code"), [(40, 0), (25, 3)])
def test_where_only_wordings_changed_the_rule_of_three_is_the_bound(n: int, exit_code: int) -> None:
    # 1 - 0.05 ** (1 / n) is 7.2 % at 40 and 11.3 % at 25, on both sides of a margin of 10
    a = make_side({"de": hits(n // 2, n)}, outputs="a")
    report = decide(
        a, make_side({"de": hits(n // 2, n)}, outputs="b"), Rules((Rule(margin=10.0, min_n=20),))
    )
    assert report.exit_code == exit_code
    assert only(report).lower == pytest.approx(-100 * (1 - 0.05 ** (1 / n)))


def test_above_chance_the_bound_reaches_down_to_no_hit_at_all() -> None:
    def side(outputs: str) -> Side:
        made = make_side({"de": hits(50, 100)}, metric="accuracy_above_chance", outputs=outputs)
        assert made.items is not None
        rows = [
            (row[0], 0.25, 1.0) for row in made.items.statistics["accuracy_above_chance"] if row
        ]
        return replace(made, items=replace(made.items, statistics={"accuracy_above_chance": rows}))

    verdict = only(decide(side("a"), side("b")))
    assert verdict.lower == pytest.approx(-100 / 0.75 * (1 - 0.05**0.01))


def test_another_seed_of_the_bootstrap_gives_the_same_verdicts() -> None:
    rng = np.random.default_rng(0)
    a = [float(hit) for hit in rng.integers(0, 2, 400)]
    b = [hit if rng.random() > 0.1 else 1 - hit for hit in a]
    sides = make_side({"de": a, "zh": a}), make_side({"de": b, "zh": hits(100, 400)})
    reports = [decide(*sides, seed=seed) for seed in range(8)]
    assert {tuple(v.status for v in r.verdicts) for r in reports} == {("passed", "regression")}
    assert len({r.verdicts[0].lower for r in reports}) == 8


def test_a_metric_whose_lower_values_are_better_drops_upwards() -> None:
    rules = Rules((Rule(margin=10.0, direction="lower"),))
    good, bad = make_side({"de": hits(20, 100)}), make_side({"de": hits(60, 100)})
    assert decide(good, bad, rules).exit_code == 1
    assert only(decide(good, bad, rules)).change == pytest.approx(-40)
    assert decide(bad, good, rules).exit_code == 0


def test_counting_the_errors_and_wanting_fewer_gives_the_same_verdict() -> None:
    a, b = [1.0, 0.0] * 40, [0.0, 1.0] * 8 + [0.0] * 6 + [1.0, 0.0] * 29
    right = only(decide(make_side({"de": a}), make_side({"de": b})))
    errors = [make_side({"de": [1 - hit for hit in answers]}) for answers in (a, b)]
    wrong = only(decide(*errors, Rules((Rule(margin=10.0, direction="lower"),))))
    for key in ("status", "change", "lower", "p_value"):
        one, other = getattr(right, key), getattr(wrong, key)
        assert one == other if key == "status" else one == pytest.approx(other, rel=1e-6), key


def test_a_relative_margin_is_a_share_of_the_baseline() -> None:
    rules = Rules((Rule(relative_margin=0.5),))
    a = make_side({"de": hits(80, 200)})
    passed = decide(a, make_side({"de": hits(70, 200)}), rules)
    assert (passed.exit_code, only(passed).margin) == (0, pytest.approx(20))
    assert decide(a, make_side({"de": hits(30, 200)}), rules).exit_code == 1
    nothing = decide(make_side({"de": hits(0, 200)}), make_side({"de": hits(3, 200)}), rules)
    assert nothing.exit_code == 3 and "baseline of 0" in only(nothing).reason


def test_a_false_alarm_is_as_rare_in_many_cells_as_in_one() -> None:
    # alone the drop is significant (p 0.02); among forty cells it is not
    a = make_side({"de": hits(60, 100)})
    drop = [0.0] * 8 + [1.0] * 52 + [1.0] * 2 + [0.0] * 38
    assert decide(a, make_side({"de": drop}), Rules((Rule(margin=5.0),))).exit_code == 1
    labels = {f"x{i}": "zero-shot" for i in range(40)}
    many_a = make_side(dict.fromkeys(labels, hits(60, 100)), labels=labels)
    many_b = make_side({**dict.fromkeys(labels, hits(60, 100)), "x0": drop}, labels=labels)
    report = decide(many_a, many_b, Rules((Rule(margin=5.0),)))
    assert (report.num_cells, report.exit_code) == (40, 3)


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        (None, "the candidate does not have the task"),
        (make_side({"en": hits(60, 100)}), "the candidate does not have the language"),
        (make_side({"de": hits(60, 100)}, version=2), "different task version: 1 and 2"),
        (make_side({"de": hits(60, 100)}, data="e" * 64), "different data: sha256 ddd"),
        (make_side({"de": hits(60, 100)}, limit=100), "different limit: none and 100"),
        (make_side({"de": hits(60, 100)}, control="blank"), "different control: none and blank"),
        (make_side({"de": hits(60, 100)}, signature="exact_match|v:2"), "different metric exact"),
        (make_side({"de": hits(60, 100)}, failed=range(100)), "the candidate has no value"),
        (make_side({"de": hits(60, 100)}, failed=[4]), "1 samples of the candidate failed, max_f"),
        (make_side({"de": hits(60, 99)}), "items differ: 1 samples are only in the baseline"),
        (make_side({"de": hits(60, 101)}), "items differ: 1 samples are only in the candidate"),
        (make_side({"de": hits(60, 100)}, inputs="f" * 16), "items differ: 100 samples have anot"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_cannot_be_decided(candidate: Side | None, reason: str) -> None:
    report = decide(make_side({"de": hits(60, 100)}, inputs="e" * 16), candidate)
    assert report.exit_code == 3 and only(report).reason.startswith(reason)


def test_failures_within_the_rule_s_limit_are_left_out_and_not_scored() -> None:
    a = make_side({"de": hits(60, 100)})
    b = make_side({"de": hits(60, 100)}, failed=[0, 99])
    verdict = only(decide(a, b, Rules((Rule(margin=10.0, max_failed=2),))))
    assert (verdict.status, verdict.n) == ("passed", 98)
    assert decide(a, b, Rules((Rule(margin=10.0, max_failed=1),))).exit_code == 3
    assert decide(b, a, Rules((Rule(margin=10.0, max_failed=1),))).exit_code == 3


@pytest.mark.parametrize("n", [0, 5, 29])
def test_fewer_samples_than_the_rule_s_minimum_do_not_pass_even_when_identical(n: int) -> None:
    side = make_side({"de": hits(n // 2, n)})
    assert decide(side, side).exit_code == 3


@pytest.mark.parametrize("label", ["quasi-zero-shot", "supervised", "unknown"])
def test_what_is_no_longer_zero_shot_is_a_regression_however_good(label: str) -> None:
    a = make_side({"de": hits(60, 100)})
    b = make_side({"de": hits(90, 100)}, labels={"de": label})
    report = decide(a, b)
    assert report.exit_code == 1
    assert only(report).reason == f"no longer zero-shot: {label}"
    assert decide(a, b, Rules((Rule(margin=10.0, keep_label=False),))).exit_code == 0
    assert decide(b, a).exit_code == 1  # from 90 to 60, whatever the labels


def test_one_regression_outweighs_what_cannot_be_decided() -> None:
    a = make_side({"de": hits(60, 100), "zh": hits(60, 100)})
    b = make_side({"de": hits(20, 100)})
    report = decide(a, b)
    assert {v.status for v in report.verdicts} == {"regression", "undecided"}
    assert report.exit_code == 1


def test_a_probe_compares_values_and_only_with_a_margin_for_probes() -> None:
    a = make_side({"de": [60.0]}, metric="retrieval_p1", kind="probe")
    b = make_side({"de": [52.0]}, metric="retrieval_p1", kind="probe")
    assert "probe_margin" in only(decide(a, b)).reason and decide(a, b).exit_code == 3
    rules = Rules((Rule(probe_margin=5.0),))
    assert decide(a, b, rules).exit_code == 1 and only(decide(a, b, rules)).change == -8
    assert decide(b, a, rules).exit_code == 0
    answers = make_side({"de": hits(60, 100)}, outputs="a")
    assert decide(answers, make_side({"de": hits(60, 100)}), rules).exit_code == 3


def test_items_without_outputs_are_never_called_identical() -> None:
    def probe(answers: list[float]) -> Side:
        side = make_side({"de": answers}, metric="retrieval_p1")
        assert side.items is not None
        items = replace(
            side.items, items=tuple(replace(i, output_sha256="") for i in side.items.items)
        )
        task = replace(side.result.task, kind="probe")
        return Side(replace(side.result, task=task), items, side.where)

    same = only(decide(probe(hits(60, 100)), probe(hits(60, 100))))
    assert same.status == "passed" and same.reason.startswith("lower 95 % bound -3.0")
    assert decide(probe(hits(60, 100)), probe(hits(20, 100))).exit_code == 1


def test_the_same_outputs_that_count_differently_are_compared() -> None:
    # as when a judge scores the same answers again
    a, b = make_side({"de": hits(60, 100)}), make_side({"de": hits(20, 100)})
    assert a.items is not None and b.items is not None
    judged = Side(b.result, replace(a.items, statistics=b.items.statistics), b.where)
    assert decide(a, judged).exit_code == 1


def test_rules_that_select_nothing_are_an_error_and_unused_ones_a_warning() -> None:
    side = make_side({"de": hits(60, 100)})
    with pytest.raises(
        UserError, match=r"the rules select no score of baseline \(tasks: animals\)"
    ):
        decide(side, side, Rules((Rule(task="emoji_*", margin=5.0),)))
    rules = Rules((Rule(margin=5.0), Rule(language="zh", margin=5.0)))
    assert decide(side, side, rules).warnings == (
        "rule[1] is the rule of no score; correct or remove it",
    )


def test_what_the_candidate_has_more_is_named() -> None:
    side = make_side({"de": hits(60, 100)})
    report = gate({"animals": side}, {"animals": side, "beasts": side}, RULES)
    assert report.warnings == ("beasts: not in the baseline, not gated",)


SESSIONS = [
    {"num_new": 30, "duration_s": 6.0, "peak_memory_mib": 400.0},
    {"num_new": 10, "duration_s": 2.0, "peak_memory_mib": 700.0},
]


@pytest.mark.parametrize(
    ("ceiling", "sessions", "exit_code"),
    [
        (Ceiling(max_seconds_per_sample=0.2), SESSIONS, 0),
        (Ceiling(max_seconds_per_sample=0.19), SESSIONS, 1),
        (Ceiling(max_memory_mib=700), SESSIONS, 0),
        (Ceiling(max_memory_mib=699), SESSIONS, 1),
        (Ceiling(max_seconds_per_sample=0.2, max_memory_mib=699), SESSIONS, 1),
        (Ceiling(max_memory_mib=900), [{"num_new": 3, "duration_s": 1}, *SESSIONS], 3),
        (Ceiling(max_seconds_per_sample=9), [], 3),
        (Ceiling(max_seconds_per_sample=9), [{"num_new": 0, "duration_s": 1.0}], 3),
        (Ceiling(max_seconds_per_sample=9), None, 3),
    ],
)
def test_a_run_must_cost_no_more_than_its_ceiling(
    tmp_path: Path, ceiling: Ceiling, sessions: list[dict[str, float]] | None, exit_code: int
) -> None:
    if sessions is not None:
        (tmp_path / "animals").mkdir()
        content = json.dumps({"schema_version": 1, "sessions": sessions})
        (tmp_path / "animals" / "environment.json").write_text(content)
    side = make_side({"de": hits(60, 100)})
    rules = Rules(RULES.rule, (ceiling,))
    report = gate({"animals": side}, {"animals": side}, rules, run=tmp_path)
    assert report.exit_code == exit_code


def test_a_damaged_environment_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "animals").mkdir()
    path = tmp_path / "animals" / "environment.json"
    side = make_side({"de": hits(60, 100)})
    rules = Rules(RULES.rule, (Ceiling(max_memory_mib=1),))
    for content in (
        "[]",
        '{"sessions": 3}',
        '{"sessions": [{"num_new": "x", "duration_s": 1}]}',
        "{",
    ):
        path.write_text(content)
        with pytest.raises(UserError, match=r"environment\.json"):
            gate({"animals": side}, {"animals": side}, rules, run=tmp_path)


@pytest.mark.slow
def test_unchanged_models_seldom_raise_an_alarm_and_worse_ones_mostly_do() -> None:
    rng = np.random.default_rng(1)

    def alarms(drop: float) -> float:
        found = 0
        for _ in range(120):
            a = (rng.random(200) < 0.6).astype(float)
            redrawn = (rng.random(200) < 0.6 - drop / 0.3).astype(float)
            b = np.where(rng.random(200) < 0.3, redrawn, a)  # 30 % of the answers anew
            report = decide(make_side({"de": list(a)}), make_side({"de": list(b)}))
            found += report.status == "regression"
        return found / 120

    assert alarms(0.0) <= 0.05
    assert alarms(0.14) >= 0.8


def test_a_margin_made_for_another_scale_decides_nothing() -> None:
    # another program's metric from 0 to 1: five points would allow any drop
    a = make_side({"en": [1.0] * 400}, metric="mean:acc")
    b = make_side({"en": [0.0] * 400}, metric="mean:acc", outputs="b")
    found = gate({"task": a}, {"task": b}, Rules(rule=(Rule(margin=5.0),)))
    assert found.exit_code == 3
    assert "a margin of 5 is too much where no drop can exceed 1" in found.verdicts[0].reason
    relative = gate({"task": a}, {"task": b}, Rules(rule=(Rule(relative_margin=0.05),)))
    assert relative.exit_code == 1
