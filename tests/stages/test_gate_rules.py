"""Rules of a gate: which one counts, and every mistake as one line."""

from pathlib import Path

import pytest

from mpm_eval.errors import UserError
from mpm_eval.stages.gate_rules import Rule, Rules, default_rules, load_rules
from mpm_eval.tasks import list_tasks


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "gates.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_shipped_rules_load_and_are_no_task() -> None:
    (rule,) = load_rules(default_rules()).rule
    assert (rule.task, rule.margin, rule.max_failed, rule.keep_label) == ("*", 5.0, 0, True)
    assert not any(task.name in ("default", "gates") for task in list_tasks())


def test_of_several_rules_that_match_the_last_one_counts_whole(tmp_path: Path) -> None:
    rules = load_rules(
        write(
            tmp_path,
            '[[rule]]\nmargin = 5.0\nmax_failed = 3\n'
            '[[rule]]\ntask = "emoji_*"\nlanguage = "zh"\nrelative_margin = 0.1\n'
            '[[rule]]\nlabel = "pivot"\nmargin = 2\n',
        )
    )  # fmt: skip
    assert rules.of("transfer_de", "de", "zero-shot", "accuracy", "accuracy") == 0
    assert rules.of("emoji_qa", "zh", "zero-shot", "accuracy", "accuracy") == 1
    assert rules.of("emoji_qa", "de", "zero-shot", "accuracy", "accuracy") == 0
    assert rules.of("emoji_qa", "en", "pivot", "accuracy", "accuracy") == 2
    assert rules.rule[1] == Rule("emoji_*", "zh", relative_margin=0.1)  # nothing inherited


@pytest.mark.parametrize(
    ("pattern", "metric", "matches"),
    [
        ("", "accuracy", True),  # the main metric
        ("", "chrf", False),
        ("chrf", "chrf", True),
        ("*", "chrf", True),
        ("exact_*", "exact_match", True),
        ("exact_*", "chrf", False),
    ],
)
def test_a_rule_without_a_metric_is_about_the_main_one(
    pattern: str, metric: str, matches: bool
) -> None:
    rules = Rules((Rule(metric=pattern, margin=1.0),))
    assert (rules.of("t", "de", "zero-shot", metric, "accuracy") is not None) == matches


def test_a_ceiling_is_that_of_the_last_pattern(tmp_path: Path) -> None:
    rules = load_rules(
        write(
            tmp_path,
            "[[rule]]\nmargin = 5.0\n[[ceiling]]\nmax_memory_mib = 900\n"
            '[[ceiling]]\ntask = "llava*"\nmax_seconds_per_sample = 0.5\n',
        )
    )
    assert rules.ceiling_of("llava_zh") == 1 and rules.ceiling_of("emoji_qa") == 0
    assert Rules(()).ceiling_of("llava_zh") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "key 'rule' is missing"),
        ("rule = []", "no [[rule]]"),
        ("[[rule]]\nmargn = 5", "rule[0]: unknown key 'margn'; did you mean 'margin'?"),
        ("[[rule]]\ntask = '*'", "rule[0]: no margin; write margin, relative_margin or"),
        ("[[rule]]\nmargin = 5\nrelative_margin = 0.1", "rule[0]: margin and relative_margin"),
        ("[[rule]]\nmargin = 0", "rule[0]: margin: must be above 0, got 0"),
        ("[[rule]]\nmargin = -1.5", "rule[0]: margin: must be above 0, got -1.5"),
        ("[[rule]]\nmargin = '5'", "rule[0]: margin: expected a number, got a string"),
        ("[[rule]]\nmargin = nan", "nan is not a finite number"),
        ("[[rule]]\nrelative_margin = 1.0", "rule[0]: relative_margin: is a share"),
        ("[[rule]]\nprobe_margin = -1", "rule[0]: probe_margin: must be at least 0"),
        ("[[rule]]\nmargin = 5\n[[rule]]\nmargin = 5\nmin_n = 0", "rule[1]: min_n: must be"),
        ("[[rule]]\nmargin = 5\nmax_failed = -1", "rule[0]: max_failed: must be at least 0"),
        ("[[rule]]\nmargin = 5\nmax_failed = true", "max_failed: expected an integer, got a bool"),
        ("[[rule]]\nmargin = 5\nlanguage = 'zz'", "rule[0]: language: unknown language 'zz'"),
        ("[[rule]]\nmargin = 5\nlabel = 'zeroshot'", "unknown label 'zeroshot'; did you mean 'zero"),
        ("[[rule]]\nmargin = 5\nmetric = 'acuracy'", "unknown metric 'acuracy'; did you mean 'accu"),
        ("[[rule]]\nmargin = 5\ndirection = 'up'", "unknown direction 'up'; known: higher, lower"),
        ("[[rule]]\nmargin = 5\n[[ceiling]]\ntask = 't'", "ceiling[0]: no limit; write max_sec"),
        ("[[rule]]\nmargin = 5\n[[ceiling]]\nmax_memory_mib = 0", "ceiling[0]: a limit must be"),
        ("[[rule]\nmargin = 5", "not valid TOML"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_file_and_rule(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UserError) as caught:
        load_rules(path)
    assert str(caught.value).startswith(str(path)) and message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_program_s_numbers_can_have_a_rule(tmp_path: Path) -> None:
    rules = load_rules(
        write(tmp_path, "[[rule]]\nmetric = 'mean:length'\ndirection = 'lower'\nmargin = 3\n")
    )
    assert rules.rule[0].direction == "lower"
