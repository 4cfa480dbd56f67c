"""Cards: results as the Hub reads them, every other byte kept, and the card's hash with it."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from mpm_eval import cards
from mpm_eval.cards import load_card, without_results
from mpm_eval.errors import UserError
from mpm_eval.stages.card import model_index, write_card
from tests.conftest import Command
from tests.stages.leaderboard_runs import add, score

CARD = """---
license: apache-2.0  # a remark
language: [en, zh]
mpm_eval:
  backend: echo
---

# small

model-index: not a key down here
"""


@pytest.fixture
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a card named "small", in place of the shipped cards."""
    monkeypatch.setattr(cards, "shipped", lambda kind: tmp_path / kind)
    path = tmp_path / "model_cards" / "small" / "README.md"
    path.parent.mkdir(parents=True)
    path.write_bytes(CARD.encode())
    return path


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def result(runs: Path, run: str = "x", **fields: Any) -> None:
    scores = fields.pop("scores", (score("en", 61.2345), score("zh", 20.0, ci95=None, n_failed=3)))
    add(runs, run, *scores, **{"model": "small", **fields})


def test_the_hub_reads_value_language_and_revision(card: Path, runs: Path) -> None:
    result(runs)
    assert write_card("small", runs) == (card, 2)
    english, chinese = ModelCard(card.read_text(encoding="utf-8")).data.eval_results
    assert (english.dataset_type, english.dataset_config) == ("animals", "en")
    assert english.dataset_name == "animals, English"
    assert english.dataset_revision == "a" * 64
    assert (english.metric_type, english.metric_value) == ("exact_match", 61.23)
    assert english.metric_name == "exact_match, pivot, 95 % interval 58.83 to 63.63, n = 100"
    assert chinese.metric_name == "exact_match, zero-shot, n = 100, failed 3"


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_every_other_byte_stays_and_so_does_the_hash(
    card: Path, runs: Path, newline: str, mark: str
) -> None:
    before = (mark + CARD.replace("\n", newline)).encode()
    card.write_bytes(before)
    digest = load_card("small").sha256
    result(runs)
    write_card("small", runs)
    after = card.read_bytes()
    assert after != before and without_results(after) == before
    assert load_card("small").sha256 == digest
    assert after.count(b"\r\n") in (0, after.count(b"\n"))


def test_new_results_replace_old_ones_wherever_they_stand(card: Path, runs: Path) -> None:
    old = "model-index:\n- name: old\n\n  results:\n  - a\nlanguage: [en, zh]\n"
    card.write_text(CARD.replace("language: [en, zh]\n", old), encoding="utf-8")
    result(runs)
    write_card("small", runs)
    text = card.read_text(encoding="utf-8")
    assert without_results(text.encode()).decode() == CARD
    assert text.count("\nmodel-index:") == 2 and "name: old" not in text


def test_writing_twice_changes_nothing(card: Path, runs: Path) -> None:
    result(runs)
    write_card("small", runs)
    first = card.read_bytes()
    write_card("small", runs)
    write_card("small", runs, check=True)
    assert card.read_bytes() == first


def test_a_check_of_an_old_card_writes_nothing_and_says_what_to_do(card: Path, runs: Path) -> None:
    result(runs)
    with pytest.raises(UserError, match="write them with: mpm-eval card small"):
        write_card("small", runs, check=True)
    assert card.read_text(encoding="utf-8") == CARD


def test_only_main_scores_of_whole_runs_of_the_newest_version_enter(runs: Path) -> None:
    others = (score("en", 1.0, metric="chrf"), score("en", 2.0, subset="category=a"))
    failed = score("zh", None, n=0)
    result(runs, scores=(score("en", 50.0), *others, failed), version=2)
    result(runs, "old", version=1)
    result(runs, "quick", limit=5, version=2)
    result(runs, "blank", control="blank", version=2)
    result(runs, "else", model="other", version=2)
    index, number = model_index("small", runs)
    assert number == 1
    assert [row["metrics"][0]["value"] for row in index[0]["results"]] == [50.0]


def test_tasks_are_sorted_and_probes_are_told_apart(runs: Path) -> None:
    result(runs, task="b", scores=(score("zh"),))
    result(runs, task="a", scores=(score("zh", metric="mexa"),), kind="probe")
    rows = model_index("small", runs)[0][0]["results"]
    assert [(row["dataset"]["type"], row["task"]["type"]) for row in rows] == [
        ("a", "feature-extraction"), ("b", "image-text-to-text"),
    ]  # fmt: skip


def test_two_results_of_one_task_are_refused(card: Path, runs: Path) -> None:
    result(runs, "x")
    result(runs, "y")
    with pytest.raises(UserError, match=r"x/animals' and '.*y/animals' are two results"):
        write_card("small", runs)


def test_results_of_two_sets_of_weights_are_refused(card: Path, runs: Path) -> None:
    result(runs, "x")
    result(runs, "y", task="beasts", model_sha256="e" * 64)
    with pytest.raises(UserError, match="are results of different weights of 'small'"):
        write_card("small", runs)


def test_a_model_without_results_says_what_to_run(card: Path, runs: Path) -> None:
    result(runs, model="other")
    with pytest.raises(UserError, match="no unlimited run of model 'small'; make one with"):
        write_card("small", runs)


def test_results_written_in_an_unknown_way_are_not_doubled(card: Path, runs: Path) -> None:
    card.write_text(CARD.replace("language:", '"model-index": []\nlanguage:'), encoding="utf-8")
    result(runs)
    with pytest.raises(UserError, match="model-index: written in a way that cannot be replaced"):
        write_card("small", runs)


@pytest.mark.parametrize(
    ("results", "message"),
    [([{"task": {"type": "x"}}], "would refuse"), ([], "would find 0 results instead of 1")],
)
def test_a_front_matter_that_the_hub_refuses_is_not_written(
    card: Path,
    runs: Path,
    monkeypatch: pytest.MonkeyPatch,
    results: list[dict[str, Any]],
    message: str,
) -> None:
    result(runs)
    broken = ([{"name": "small", "results": results}], 1)
    monkeypatch.setattr("mpm_eval.stages.card.model_index", lambda name, runs: broken)
    with pytest.raises(UserError, match=f"the Hub {message}"):
        write_card("small", runs)
    assert card.read_text(encoding="utf-8") == CARD


def test_without_the_extra_the_error_names_it(
    card: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result(runs)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"pip install 'mpm-eval\[hub\]'"):
        write_card("small", runs)
    assert card.read_text(encoding="utf-8") == CARD


def test_a_hostile_name_stays_a_text_in_the_yaml(card: Path, runs: Path) -> None:
    result(runs, task="x: !!python/object:os.system {}\n---")
    write_card("small", runs)
    text = card.read_text(encoding="utf-8")
    content = yaml.safe_load(text.split("\n---\n")[0].removeprefix("---\n"))
    assert content["model-index"][0]["results"][0]["dataset"]["type"].startswith("x: !!python")
    assert without_results(text.encode()).decode() == CARD


@pytest.mark.slow
def test_the_shipped_card_shows_the_committed_results(mpm_eval: Command) -> None:
    runs = Path(__file__).resolve().parents[2] / "results" / "runs"
    done = mpm_eval("card", "mpm-tiny", "--runs", runs, "--check")
    assert done.returncode == 0, done.stderr
    assert "results, as they are in the runs" in done.stdout
    assert mpm_eval("card", "mpm-tiny", "--runs", runs / "none", "--check").returncode == 2


def test_a_card_without_front_matter_is_hashed_as_it_is() -> None:
    text = json.dumps({"no": "front matter"}).encode()
    assert without_results(text) == text
