"""Hugging Face `datasets` as a source, from local copies: no test goes online."""

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as PilImage

from mpm_eval.data.hub import open_hub
from mpm_eval.errors import CorruptImage, UserError
from mpm_eval.schema import Task

datasets = pytest.importorskip("datasets")
MakeTask = Callable[..., Task]
ROWS = {
    "key": ["a", "a", "b", "b"],
    "lang": ["en", "zh", "en", "zh"],
    "ask": ["What?", "什么？", "What?", "什么？"],
    "gold": [["cat", "kitten"], ["猫"], ["dog"], ["狗"]],
}
FIELDS = {"id": "key", "language": "lang", "question": "ask", "references": "gold"}


def png(colour: str, size: tuple[int, int] = (4, 2)) -> bytes:
    stream = io.BytesIO()
    PilImage.new("RGB", size, colour).save(stream, "png")
    return stream.getvalue()


def save(tmp_path: Path, rows: dict[str, list[Any]], picture: str = "", name: str = "mine") -> None:
    table = datasets.Dataset.from_dict(rows)
    if picture:
        table = table.cast_column(picture, datasets.Image())
    table.save_to_disk(str(tmp_path / name))


def test_a_language_column_splits_the_rows(tmp_path: Path, make_task: MakeTask) -> None:
    save(tmp_path, ROWS)
    dataset = open_hub(make_task(source="hub", path="mine", fields=FIELDS))
    assert (
        [s.id for s in dataset.samples("en")] == [s.id for s in dataset.samples("zh")] == ["a", "b"]
    )
    assert dataset.samples("en")[0].references == ("cat", "kitten")
    assert dataset.samples("zh")[1].question == "什么？"
    assert dataset.description["parallel"] == "yes"


def test_columns_per_language_make_parallel_samples(tmp_path: Path, make_task: MakeTask) -> None:
    save(tmp_path, {"q_en": ["What?"], "q_zh": ["什么？"], "a_en": ["cat"], "a_zh": ["猫"]})
    fields = {"question": "q_{language}", "references": "a_{language}"}
    dataset = open_hub(make_task(source="hub", path="mine", fields=fields))
    assert [dataset.samples(tag)[0].references for tag in ("en", "zh")] == [("cat",), ("猫",)]
    assert dataset.samples("zh")[0].id == "0"


def test_a_config_per_language_is_paired_by_id(tmp_path: Path, make_task: MakeTask) -> None:
    save(tmp_path, {"key": ["a"], "gold": ["cat"]}, name="mine/english")
    save(tmp_path, {"key": ["a"], "gold": ["猫"]}, name="mine/chinese")
    data = {"configs": {"en": "english", "zh": "chinese"}, "path": "mine"}
    fields = {"id": "key", "references": "gold"}
    dataset = open_hub(make_task(source="hub", fields=fields, **data))
    assert [dataset.samples(tag)[0].references for tag in ("en", "zh")] == [("cat",), ("猫",)]
    with pytest.raises(UserError, match=r"fields\.id: missing"):
        open_hub(make_task(source="hub", fields={"references": "gold"}, **data))


def test_one_language_for_all_rows(tmp_path: Path, make_task: MakeTask) -> None:
    save(tmp_path, {"gold": ["Katze", "Hund"]})
    task = make_task(
        languages=("de",), source="hub", path="mine", language="de", fields={"references": "gold"}
    )
    assert [s.id for s in open_hub(task).samples("de")] == ["0", "1"]


def test_pictures_are_decoded_when_asked_for_and_cluster_their_questions(
    tmp_path: Path, make_task: MakeTask
) -> None:
    pictures = [{"bytes": png("red"), "path": None}] * 2 + [{"bytes": png("blue"), "path": None}]
    save(tmp_path, {"gold": ["x", "y", "z"], "img": pictures}, picture="img")
    fields = {"references": "gold", "image": "img"}
    task = make_task(languages=("en",), source="hub", path="mine", language="en", fields=fields)
    dataset = open_hub(task)
    first, second, third = dataset.samples("en")
    assert first.cluster == second.cluster != third.cluster
    picture = dataset.load_image(third.image)
    assert (picture.mode, picture.size, picture.getpixel((0, 0))) == ("RGB", (4, 2), (0, 0, 255))


def test_a_corrupt_picture_fails_alone(tmp_path: Path, make_task: MakeTask) -> None:
    pictures = [{"bytes": b"no picture", "path": None}, {"bytes": png("red"), "path": None}]
    save(tmp_path, {"gold": ["x", "y"], "img": pictures}, picture="img")
    fields = {"references": "gold", "image": "img"}
    task = make_task(languages=("en",), source="hub", path="mine", language="en", fields=fields)
    dataset = open_hub(task)
    bad, good = dataset.samples("en")
    assert dataset.load_image(good.image).size == (4, 2)
    with pytest.raises(CorruptImage, match="cannot be decoded"):
        dataset.load_image(bad.image)


def write_parquet(folder: Path, rows: list[dict[str, Any]], name: str = "test-0.parquet") -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / name)


def test_a_folder_of_parquet_files_is_read_by_split(tmp_path: Path, make_task: MakeTask) -> None:
    rows = [
        {"gold": "x", "img": {"bytes": png("red"), "path": "x.png"}},
        {"gold": "y", "img": None},
    ]
    write_parquet(tmp_path / "mine", rows)
    write_parquet(tmp_path / "mine", [{"gold": "other", "img": None}], "train-0.parquet")
    fields = {"references": "gold", "image": "img"}
    data = {"source": "hub", "path": "mine", "language": "en", "fields": fields}
    dataset = open_hub(make_task(languages=("en",), split="test", **data))
    with_picture, without = dataset.samples("en")
    assert dataset.load_image(with_picture.image).size == (4, 2)
    assert without.image is None
    with pytest.raises(UserError, match="no parquet files of split 'dev'"):
        open_hub(make_task(languages=("en",), split="dev", **data))


def test_a_parquet_file_cannot_name_pictures_elsewhere(tmp_path: Path, make_task: MakeTask) -> None:
    (tmp_path / "secret.png").write_bytes(png("red"))
    row = {"gold": "x", "img": {"bytes": None, "path": "../secret.png"}}
    write_parquet(tmp_path / "mine", [row])
    fields = {"references": "gold", "image": "img"}
    with pytest.raises(UserError, match="lies outside"):
        open_hub(
            make_task(languages=("en",), source="hub", path="mine", language="en", fields=fields)
        )


@pytest.mark.parametrize("answer", [1, "cat", "B", "b"])
def test_the_right_option_is_an_index_a_text_or_a_letter(
    tmp_path: Path, make_task: MakeTask, answer: int | str
) -> None:
    save(tmp_path, {"choices": [["dog", "cat"]], "right": [answer]})
    fields = {"options": "choices", "answer": "right"}
    task = make_task("choose", ("en",), source="hub", path="mine", language="en", fields=fields)
    (sample,) = open_hub(task).samples("en")
    assert (sample.answer, sample.references) == (1, ("cat",))


def test_a_split_of_a_saved_dict_is_chosen(tmp_path: Path, make_task: MakeTask) -> None:
    table = datasets.Dataset.from_dict({"gold": ["x"]})
    datasets.DatasetDict({"test": table}).save_to_disk(str(tmp_path / "mine"))
    data = {"source": "hub", "path": "mine", "language": "en", "fields": {"references": "gold"}}
    assert open_hub(make_task(languages=("en",), split="test", **data)).samples("en")
    with pytest.raises(UserError, match="did you mean 'test'"):
        open_hub(make_task(languages=("en",), split="tset", **data))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fields": {**FIELDS, "question": "asks"}}, "did you mean 'ask'"),
        ({"fields": {**FIELDS, "language": ""}}, "in one way what language a row is in, got none"),
        ({"language": "en"}, "got column and one language"),
        ({"fields": {**FIELDS, "questions": "ask"}}, "questions"),
        ({"fields": {**FIELDS, "references": "lang", "id": "lang"}}, "already in"),
        ({"id": "a/b"}, "either id"),
        ({"path": "nowhere"}, "no folder"),
        ({"split": "test"}, "remove data.split"),
    ],
)
def test_a_wrong_table_of_data_is_a_message_for_the_user(
    tmp_path: Path, make_task: MakeTask, change: dict[str, Any], message: str
) -> None:
    save(tmp_path, ROWS)
    with pytest.raises(UserError, match=message) as caught:
        open_hub(make_task(**{"source": "hub", "path": "mine", "fields": FIELDS, **change}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("revision", ["", "main", "v1.0", "abc123"])
def test_a_hub_revision_must_be_a_commit(make_task: MakeTask, revision: str) -> None:
    task = make_task(source="hub", id="org/name", revision=revision, split="test", fields=FIELDS)
    with pytest.raises(UserError, match="is not pinned; give the commit"):
        open_hub(task)


def test_data_that_cannot_be_reached_is_one_line(
    make_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*args: Any, **options: Any) -> None:
        raise ConnectionError("Couldn't reach\nthe Hub")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    task = make_task(source="hub", id="org/name", revision="0" * 40, split="test", fields=FIELDS)
    with pytest.raises(UserError, match=r"cannot load 'org/name' .*Couldn't reach the Hub"):
        open_hub(task)


def test_a_missing_package_names_the_extra(
    make_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    task = make_task(source="hub", id="org/name", revision="0" * 40, split="test", fields=FIELDS)
    with pytest.raises(UserError, match=r"pip install 'mpm-eval\[hub\]'"):
        open_hub(task)


def test_the_hash_follows_rows_and_pictures(tmp_path: Path, make_task: MakeTask) -> None:
    fields = {"references": "gold", "image": "img"}
    digests = set()
    for i, (gold, colour) in enumerate([("x", "red"), ("y", "red"), ("x", "blue"), ("x", "red")]):
        picture = [{"bytes": png(colour), "path": None}]
        save(tmp_path, {"gold": [gold], "img": picture}, "img", f"mine{i}")
        data = {"source": "hub", "path": f"mine{i}", "language": "en", "fields": fields}
        digests.add(open_hub(make_task(languages=("en",), **data)).sha256)
    assert len(digests) == 3
