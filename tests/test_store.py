"""The store: append-only, torn lines, refusals, locks, a full disk."""

import resource
from pathlib import Path
from typing import Any

import pytest

from mpm_eval.errors import UserError
from mpm_eval.schema import OptionScore, Prediction
from mpm_eval.store import TaskStore, read_predictions, to_line
from mpm_eval.strict import read_json

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
    path = tmp_path / "predictions.jsonl"
    path.write_text(path.read_text() * 2)
    with pytest.raises(UserError, match=r":2: second prediction for id 's1' in language 'en'"):
        read_predictions(path)


def test_a_sample_is_never_written_twice(tmp_path: Path) -> None:
    with TaskStore.open(tmp_path, MANIFEST) as store:
        store.append([prediction(1)])
        for batch in ([prediction(2), prediction(2)], [prediction(1)]):
            with pytest.raises(ValueError, match="answered twice"):
                store.append(batch)
    assert read_predictions(tmp_path / "predictions.jsonl") == [prediction(1)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "s2", "language": "en", "prompt": "p", "outptu": ""}', "did you mean 'output'"),
        ('{"id": "s2", "language": "en"}', "key 'prompt' is missing"),
        ('{"id": 2, "language": "en", "prompt": "p"}', "id: expected a string, got an integer"),
        ("[]", "expected an object"),
        ('{"id": "s2"', "not valid JSON"),
    ],
)
def test_a_whole_line_that_is_no_prediction_is_refused_with_its_number(
    tmp_path: Path, line: str, message: str
) -> None:
    with TaskStore.open(tmp_path, MANIFEST) as store:
        store.append([prediction(1)])
    path = tmp_path / "predictions.jsonl"
    path.write_text(path.read_text() + line + "\n")
    before = path.read_bytes()
    with pytest.raises(UserError) as caught, TaskStore.open(tmp_path, MANIFEST):
        pass
    assert f"{path}:2: " in str(caught.value) and message in str(caught.value)
    assert path.read_bytes() == before


def test_a_line_torn_inside_a_character_is_cut_off(tmp_path: Path) -> None:
    with TaskStore.open(tmp_path, MANIFEST) as store:
        store.append([prediction(1), prediction(2, "猫")])
    path = tmp_path / "predictions.jsonl"
    content = path.read_bytes()
    path.write_bytes(content[: content.index("猫".encode()) + 1])
    with TaskStore.open(tmp_path, MANIFEST) as store:
        assert list(store.predictions()) == [("s1", "en")]


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


def test_every_difference_is_named(tmp_path: Path) -> None:
    with TaskStore.open(tmp_path, MANIFEST):
        pass
    with pytest.raises(UserError) as caught, TaskStore.open(tmp_path, changed(seed=3, limit=2)):
        pass
    assert "seed was 0, is 3; limit was null, is 2;" in str(caught.value)


def test_predictions_that_nothing_describes_are_refused(tmp_path: Path) -> None:
    with TaskStore.open(tmp_path, MANIFEST) as store:
        store.append([prediction(1)])
    (tmp_path / "manifest.json").unlink()
    with (
        pytest.raises(UserError, match=r"without a manifest\.json"),
        TaskStore.open(tmp_path, MANIFEST),
    ):
        pass
    assert not (tmp_path / "manifest.json").exists()


def test_a_manifest_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("[]")
    with (
        pytest.raises(UserError, match=r"manifest\.json: languages: expected a list"),
        TaskStore.open(tmp_path, MANIFEST),
    ):
        pass
    assert (tmp_path / "manifest.json").read_text() == "[]"


def test_languages_may_grow(tmp_path: Path) -> None:
    with TaskStore.open(tmp_path, MANIFEST):
        pass
    with TaskStore.open(tmp_path, changed(languages=["de"])) as store:
        assert store.languages == ("en", "de")
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


def test_half_a_batch_on_a_full_disk_is_taken_back(tmp_path: Path) -> None:
    with TaskStore.open(tmp_path, MANIFEST) as store:
        store.append([prediction(1)])
        before = store.path.read_bytes()
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 20, limits[1]))
        try:
            with pytest.raises(UserError, match="cannot be written") as caught:
                store.append([prediction(2, "x" * 100)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert str(caught.value).startswith(f"{tmp_path}: ")
        assert store.path.read_bytes() == before
        store.append([prediction(2)])  # there is room again
    assert read_predictions(tmp_path / "predictions.jsonl") == [prediction(1), prediction(2)]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with (
        pytest.raises(UserError, match="file/t: cannot be written"),
        TaskStore.open(tmp_path / "file" / "t", MANIFEST),
    ):
        pass
    assert (tmp_path / "file").read_text() == "mine"


def test_a_line_has_a_ranking_only_where_there_is_one() -> None:
    # the hashes of predictions in committed results are over lines without it
    assert "ranking" not in to_line(Prediction("1", "de", "?", "a"))
    assert to_line(Prediction("1", "de", "", "b", ranking=("b", "a")))["ranking"] == ["b", "a"]
