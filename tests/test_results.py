"""The committed results: the leaderboard is what its command writes, the labels are proven."""

import shutil
from pathlib import Path

import pytest

from mpm_eval.cards import list_cards, load_card
from mpm_eval.stages.result_schema import load_result
from tests.conftest import Command

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = sorted((REPOSITORY / "results" / "runs").glob("*/*/result.json"))


@pytest.mark.slow
def test_the_committed_leaderboard_is_what_its_command_writes(
    mpm_eval: Command, tmp_path: Path
) -> None:
    shutil.copytree(
        REPOSITORY / "results" / "runs",
        tmp_path / "results" / "runs",
        ignore=shutil.ignore_patterns("predictions.jsonl", "embeddings"),  # not committed
    )
    done = mpm_eval("leaderboard")
    assert done.returncode == 0, done.stderr
    for suffix in ("md", "csv", "json"):
        name = f"leaderboard.{suffix}"
        written = (tmp_path / "results" / name).read_bytes()
        assert written == (REPOSITORY / "results" / name).read_bytes(), "run: mpm-eval leaderboard"


@pytest.mark.parametrize("path", RESULTS, ids=lambda p: "/".join(p.parts[-3:-1]))
def test_a_committed_result_is_whole_and_loads(path: Path) -> None:
    result = load_result(path)
    assert result.limit is None and result.scores


def test_the_shipped_model_is_zero_shot_in_every_target_language() -> None:
    from mpm_eval.zero_shot import label
    from training.interface import load_checkpoint

    card = load_card("mpm-tiny")
    assert card.checkpoint is not None
    _, record = load_checkpoint(Path(card.checkpoint))
    labels = {language: label(record, language) for language in card.languages}
    assert labels == {"en": "pivot", **dict.fromkeys(("zh", "de", "fr", "es"), "zero-shot")}


def test_a_shipped_checkpoint_stays_small() -> None:
    for card in list_cards():
        size = sum(path.stat().st_size for path in Path(card.path).rglob("*") if path.is_file())
        limit = 40_000_000 if card.name.endswith("-paint") else 30_000_000
        assert size < limit, card.name
