"""The store: append-only, torn lines, refusals, locks, a full disk."""

from pathlib import Path
from typing import Any

import pytest

from mpm_eval.errors import UserError
from mpm_eval.schema import OptionScore, Prediction
from mpm_eval.store import TaskStore, read_predictions

MANIFEST: dict[str, Any] = {
    "schema_version": 1,
    "task": {"name": "t", "version": 1, "sha256": "aa"},
    "data": {"sha256": "bb", "description": {}},
    "model": {"name": "m", "sha256": "cc"},
    "seed": 0,
    "limit": None,
    "decoding": {"max_new_tokens": 8},
    "languages": ["en"],
}


def prediction(number: int, output: str = "x") -> Prediction:
    return Prediction(f"s{number}", "en", "p", output, (OptionScore(-1.5, 2),))


def changed(**parts: Any) -> dict[str, Any]:
    return {**MANIFEST, **parts}


def test_what_was_appended_is_there_again(tmp_path: Path) -> None:
    with TaskStore.open(tmp_path / "t", MANIFEST) as store:
        store.append([prediction(1), prediction(2)])
    with TaskStore.open(tmp_path / "t", MANIFEST) as store:
        assert list(store.predictions().values()) == [prediction(1), prediction(2)]


def test_outputs_of_any_characters_survive(tmp_path: Path) -> None:
    wild = prediction(1, 'a\nb\u2028c\x00d"\\ é 漢 \U0001f525')
    with TaskStore.open(tmp_path, MANIFEST) as store:
        store.append([wild])
    assert read_predictions(tmp_path / "predictions.jsonl") == [wild]


def test_half_a_surrogate_pair_does_not_lose_the_batch(tmp_path: Path) -> None:
    with TaskStore.open(tmp_path, MANIFEST) as store:
        store.append([prediction(1, "bad \ud83d end"), prediction(2)])
    assert len(read_predictions(tmp_path / "predictions.jsonl")) == 2


def test_a_torn_last_line_is_cut_off_and_done_again(tmp_path: Path) -> None:
    with TaskStore.open(tmp_path, MANIFEST) as store:
        store.append([prediction(1), prediction(2)])
    path = tmp_path / "predictions.jsonl"
    path.write_bytes(path.read_bytes()[:-7])
    with TaskStore.open(tmp_path, MANIFEST) as store:
        assert list(store.predictions()) == [("s1", "en")]
        store.append([prediction(2)])
    assert read_predictions(path) == [prediction(1), prediction(2)]


def test_a_bad_line_in_the_middle_is_named(tmp_path: Path) -> None:
    with TaskStore.open(tmp_path, MANIFEST) as store:
        store.append([prediction(1), prediction(2)])
    path = tmp_path / "predictions.jsonl"
    path.write_text("{oops\n" + path.read_text())
    with pytest.raises(UserError, match=r"predictions\.jsonl:1: not valid JSON"):
        read_predictions(path)


def test_a_duplicate_is_named(tmp_path: Path) -> None:
    with TaskStore.open(tmp_path, MANIFEST) as store:
        store.append([prediction(1)])
        store.append([prediction(1)])
    with pytest.raises(UserError, match=r":2: second prediction for id 's1' in language 'en'"):
        read_predictions(tmp_path / "predictions.jsonl")


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"task": {"name": "t", "version": 2, "sha256": "zz"}}, "task.version was 1, is 2"),
        ({"data": {"sha256": "zz"}}, 'data.sha256 was "bb", is "zz"'),
        ({"model": {"name": "m", "sha256": "zz"}}, 'model.sha256 was "cc", is "zz"'),
        ({"seed": 1}, "seed was 0, is 1"),
        ({"limit": 5}, "limit was null, is 5"),
        ({"decoding": {"max_new_tokens": 9}}, "decoding was"),
    ],
)
def test_predictions_of_something_else_are_refused_with_the_reason(
    tmp_path: Path, part: dict[str, Any], message: str
) -> None:
    with TaskStore.open(tmp_path, MANIFEST) as store:
        store.append([prediction(1)])
    before = (tmp_path / "predictions.jsonl").read_bytes()
    with pytest.raises(UserError) as caught, TaskStore.open(tmp_path, changed(**part)):
        pass
    assert message in str(caught.value) and "give another --out" in str(caught.value)
    assert (tmp_path / "predictions.jsonl").read_bytes() == before


def test_languages_may_grow(tmp_path: Path) -> None:
    from mpm_eval.strict import read_json

    with TaskStore.open(tmp_path, MANIFEST):
        pass
    with TaskStore.open(tmp_path, changed(languages=["de"])):
        pass
    assert read_json(tmp_path / "manifest.json")["languages"] == ["en", "de"]


def test_a_second_writer_is_turned_away(tmp_path: Path) -> None:
    with (
        TaskStore.open(tmp_path, MANIFEST),
        pytest.raises(UserError, match="another process is writing here"),
        TaskStore.open(tmp_path, MANIFEST),
    ):
        pass


def test_a_full_disk_keeps_what_is_there_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TaskStore.open(tmp_path, MANIFEST) as store:
        store.append([prediction(1)])
        before = store.path.read_bytes()

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.fsync", full)
        with pytest.raises(UserError, match="No space left on device"):
            store.append([prediction(2)])
        assert store.path.read_bytes() == before
        assert list(store.predictions()) == [("s1", "en")]
