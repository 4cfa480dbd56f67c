"""Streams: the same samples whatever the format, the division and the interruptions."""

import gc
import io
import itertools
import json
import random
import struct
import sys
import tarfile
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mpm_eval.errors import UserError
from training.streams import Stream, StreamConfig, StreamSample

COUNT = 53  # samples of each data set here, in shards of unequal size
SIZES = (20, 13, 1, 12, 7)


def picture(number: int, kind: str = "PNG", **options: Any) -> bytes:
    """A picture that shows its number in its colour."""
    content = io.BytesIO()
    Image.new("RGB", (8, 8), (number % 256, number // 256, 7)).save(content, kind, **options)
    return content.getvalue()


def number_in(sample: StreamSample) -> int:
    """The number of a sample, after a look whether picture and text are of one sample."""
    red, green, blue = sample.image.getpixel((3, 3))  # type: ignore[misc]
    assert sample.image.mode == "RGB" and blue == 7
    assert sample.turns == (("", f"picture {red + 256 * green}"),)
    return int(red + 256 * green)


def numbers(stream: Iterator[StreamSample], count: int) -> list[int]:
    return [number_in(sample) for sample in itertools.islice(stream, count)]


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def members(first: int, count: int) -> list[tuple[str, bytes]]:
    return [
        member
        for n in range(first, first + count)
        for member in ((f"{n:06}.png", picture(n)), (f"{n:06}.txt", f"picture {n}".encode()))
    ]


def write_tars(folder: Path, sizes: tuple[int, ...] = SIZES) -> str:
    for shard, size in enumerate(sizes):
        first = sum(sizes[:shard])
        write_tar(folder / f"{shard:05}.tar", members(first, size))
    return f"{folder}/{{00000..{len(sizes) - 1:05}}}.tar"


def table(first: int, count: int) -> dict[str, list[Any]]:
    rows = range(first, first + count)
    return {
        "image": [{"bytes": picture(n), "path": None} for n in rows],
        "caption": [f"picture {n}" for n in rows],
        "other": [n for n in rows],
    }


def write_parquet(folder: Path, sizes: tuple[int, ...] = SIZES) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir()
    for shard, size in enumerate(sizes):
        first = sum(sizes[:shard])
        path = folder / f"train-{shard}.parquet"
        pq.write_table(pa.table(table(first, size)), path, row_group_size=7)
    pq.write_table(pa.table(table(900, 3)), folder / "test-0.parquet")
    return str(folder)


def write_saved(folder: Path) -> str:
    import datasets

    data = datasets.Dataset.from_dict(table(0, COUNT))
    data = data.cast_column("image", datasets.Image())
    datasets.DatasetDict({"train": data, "test": data.select([0])}).save_to_disk(str(folder))
    return str(folder)


def write_lines(folder: Path) -> str:
    (folder / "images").mkdir(parents=True)
    lines = []
    for n in range(COUNT):
        (folder / "images" / f"{n}.png").write_bytes(picture(n))
        lines.append(json.dumps({"image": f"{n}.png", "caption": f"picture {n}"}))
    (folder / "train.jsonl").write_text("\n".join(lines))
    return str(folder / "train.jsonl")


WRITERS: dict[str, Callable[[Path], str]] = {
    "tars": write_tars,
    "parquet": write_parquet,
    "save_to_disk": write_saved,
    "jsonl": write_lines,
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("streams")
    return {kind: write(folder / kind) for kind, write in WRITERS.items()}


@pytest.fixture(params=WRITERS)
def config(request: pytest.FixtureRequest, sources: dict[str, str]) -> StreamConfig:
    return StreamConfig(sources[request.param], shuffle_buffer=9)


# Order


def test_an_epoch_has_every_sample_once_in_an_order_of_its_own(config: StreamConfig) -> None:
    stream = Stream(config, seed=1)
    first, second = numbers(stream, COUNT), numbers(stream, COUNT)
    assert sorted(first) == sorted(second) == list(range(COUNT))
    assert first != second and first != sorted(first)
    assert stream.num_bad == 0 and stream.bad == ()


def test_the_order_follows_from_the_seed(config: StreamConfig) -> None:
    order = numbers(Stream(config, seed=1), 2 * COUNT)
    assert numbers(Stream(config, seed=1), 2 * COUNT) == order
    assert numbers(Stream(config, seed=2), 2 * COUNT) != order


def test_a_resumed_stream_goes_on_with_the_next_sample(config: StreamConfig) -> None:
    order = numbers(Stream(config, seed=3), 3 * COUNT)
    for cut in (0, 1, 8, 9, 10, 18, COUNT - 1, COUNT, COUNT + 1, 2 * COUNT + 20):
        stream = Stream(config, seed=3)
        assert numbers(stream, cut) == order[:cut]
        state = json.loads(json.dumps(stream.state()))
        resumed = Stream.resume(config, 3, state)
        assert resumed.state() == state
        assert numbers(resumed, 3 * COUNT - cut) == order[cut:], cut


@pytest.mark.slow
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    cuts=st.lists(st.integers(0, 70), min_size=1, max_size=3),
    seed=st.integers(0, 2**32),
    buffer=st.integers(1, 80),
    processes=st.integers(1, 6),
    kind=st.sampled_from(["tars", "parquet"]),
    data=st.data(),
)
def test_interruptions_never_show(
    sources: dict[str, str],
    cuts: list[int],
    seed: int,
    buffer: int,
    processes: int,
    kind: str,
    data: st.DataObject,
) -> None:
    config = StreamConfig(sources[kind], shuffle_buffer=buffer)
    rank = data.draw(st.integers(0, processes - 1))
    whole = numbers(Stream(config, seed, rank, processes), sum(cuts) + 5)
    stream, found = Stream(config, seed, rank, processes), []
    for cut in cuts:
        found += numbers(stream, cut)
        stream = Stream.resume(config, seed, stream.state(), rank, processes)
    assert found + numbers(stream, 5) == whole


def test_without_a_buffer_a_shard_is_read_in_its_order(sources: dict[str, str]) -> None:
    order = numbers(Stream(StreamConfig(sources["tars"], shuffle_buffer=1), seed=5), COUNT)
    starts = [sum(SIZES[:shard]) for shard in range(len(SIZES))]
    shards = [list(range(first, first + size)) for first, size in zip(starts, SIZES, strict=True)]
    pieces = sorted(shards, key=lambda shard: order.index(shard[0]))
    assert order == [number for piece in pieces for number in piece]


def test_a_source_keeps_to_its_number_of_rows(sources: dict[str, str], tmp_path: Path) -> None:
    from training.streams.sources import open_source

    long = tmp_path / "long.jsonl"
    lines = [json.dumps({"image": "a", "caption": str(n)}) + "\n" * (1 + n % 3) for n in range(250)]
    long.write_text("".join(lines))
    for path in (*sources.values(), str(long)):
        source = open_source(StreamConfig(path))
        for shard, num_rows in enumerate(source.num_rows or SIZES):
            keys = [load().key for load in source.rows(shard, 0)]
            assert len(set(keys)) == num_rows
            assert [load().key for load in source.rows(shard, num_rows // 2)] == keys[
                num_rows // 2 :
            ]


# Division


@pytest.mark.parametrize("processes", [2, 3, 4, 7])
def test_processes_share_an_epoch_equally(config: StreamConfig, processes: int) -> None:
    share = COUNT // processes
    for epoch in range(2):
        parts = []
        for rank in range(processes):
            stream = Stream(config, 11, rank, processes)
            numbers(stream, epoch * share)
            parts.append(numbers(stream, share))
            assert stream.state()["progress"]["epoch"] == epoch
        found = [number for part in parts for number in part]
        assert len(set(found)) == len(found) == share * processes


def test_tars_that_divide_evenly_are_read_by_one_process_each(sources: dict[str, str]) -> None:
    config, found, opened = StreamConfig(sources["tars"], shuffle_buffer=5), [], 0
    for rank in range(len(SIZES)):
        stream = Stream(config, 11, rank, len(SIZES))
        part: list[int] = []
        while (sample := next(stream)) and stream.state()["progress"]["epoch"] == 0:
            part.append(number_in(sample))
        found += part
        opened += len({sample_shard(number) for number in part})
    assert sorted(found) == list(range(COUNT))
    assert opened == len(SIZES)


def sample_shard(number: int) -> int:
    return next(i for i, end in enumerate(itertools.accumulate(SIZES)) if number < end)


def test_what_does_not_divide_is_left_out_of_one_epoch_only(sources: dict[str, str]) -> None:
    config = StreamConfig(sources["parquet"], shuffle_buffer=4)
    share, seen = COUNT // 5, set[int]()
    for rank in range(5):
        seen |= set(numbers(Stream(config, 2, rank, 5), 6 * share))
    assert seen == set(range(COUNT))


def test_fewer_samples_than_processes_are_refused(tmp_path: Path) -> None:
    for source in (write_tars(tmp_path / "t", (2,)), write_parquet(tmp_path / "p", (2,))):
        with pytest.raises(UserError, match="fewer samples than the 3 processes"):
            next(Stream(StreamConfig(source), 0, 2, 3))


# The hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> StreamConfig:
    """A data set of the hub whose files lie here; the streaming is the real one of `datasets`."""
    import datasets

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder, load = Path(write_parquet(tmp_path / "hub")), datasets.load_dataset

    def load_dataset(name: str, *args: Any, split: str, streaming: bool, **options: Any) -> Any:
        assert (name, args, options) == ("someone/pictures", ("small",), {"revision": "a" * 40})
        files = sorted(map(str, folder.glob(f"{split}-*.parquet")))
        features = datasets.Features(
            image=datasets.Image(),
            caption=datasets.Value("string"),
            other=datasets.Value("int64"),
        )
        return load(
            "parquet", data_files={split: files}, split=split, streaming=streaming,
            features=features, cache_dir=str(tmp_path / "cache"),
        )  # fmt: skip

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return StreamConfig("someone/pictures:small", revision="a" * 40, shuffle_buffer=9)


@pytest.mark.slow
def test_a_hub_data_set_streams_divides_and_resumes_like_any_other(hub: StreamConfig) -> None:
    stream = Stream(hub, 1)
    first, state = numbers(stream, 30), stream.state()
    then = numbers(stream, COUNT)
    assert sorted(first + then[: COUNT - 30]) == list(range(COUNT))
    assert numbers(Stream.resume(hub, 1, state), COUNT) == then
    parts = [numbers(Stream(hub, 1, rank, 3), COUNT // 3) for rank in range(3)]
    assert len({number for part in parts for number in part}) == COUNT // 3 * 3


@pytest.mark.slow
def test_a_broken_picture_of_the_hub_is_counted(hub: StreamConfig, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    broken = table(33, 1) | {"image": [{"bytes": b"no picture", "path": None}]}
    pq.write_table(pa.table(broken), tmp_path / "hub" / "train-2.parquet")
    stream = Stream(hub, 1)
    assert 33 not in numbers(stream, COUNT)
    assert stream.bad[0].startswith("shard 2:0: the picture: cannot be decoded: none of")


@pytest.mark.slow
def test_a_hub_that_fails_in_the_middle_is_no_broken_sample(
    hub: StreamConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Stream(hub, 1)
    next(stream)
    import datasets

    def fail(self: Any) -> Any:
        raise ConnectionError("the line is\ndead")

    monkeypatch.setattr(datasets.IterableDataset, "__iter__", fail)
    with pytest.raises(UserError, match=r"pictures:small at aaaaaaaa: cannot be read: the line is"):
        numbers(stream, COUNT)
    assert stream.num_bad == 0


def test_a_hub_data_set_needs_its_commit() -> None:
    with pytest.raises(UserError, match=r"someone/pictures: no such file or folder; .* commit"):
        Stream(StreamConfig("someone/pictures", revision="main"), 0)


# Texts and columns


def turns_of(source: str, **options: Any) -> list[StreamSample]:
    stream = Stream(StreamConfig(source, shuffle_buffer=1, **options), 0)
    found = [next(stream)]
    while (sample := next(stream)).key != found[0].key:
        found.append(sample)
    return found


def test_a_conversation_becomes_turns_without_placeholders(tmp_path: Path) -> None:
    said = [
        {"from": "human", "value": "What is this?\n<image>"},
        {"from": "gpt", "value": "A dog."},
        {"from": "human", "value": "<image-like> is no placeholder?"},
        {"from": "gpt", "value": "No. "},
    ]
    (tmp_path / "a.png").write_bytes(picture(0))
    row = {"id": 7, "image": "a.png", "conversations": said, "tag": "zh-Hant"}
    (tmp_path / "chat.jsonl").write_text(json.dumps(row))
    write_tar(tmp_path / "a.tar", [("x/1.PNG", picture(0)), ("x/1.json", json.dumps(row).encode())])
    for name, key in (("chat.jsonl", "chat.jsonl:1"), ("a.tar", "a.tar:x/1")):
        (sample,) = turns_of(
            str(tmp_path / name), conversations_column="conversations", language_column="tag"
        )
        assert sample.turns == (
            ("What is this?", "A dog."),
            ("<image-like> is no placeholder?", "No."),
        )
        assert (sample.language, sample.key) == ("zh-Hant", key)


def test_tars_give_captions_from_text_json_or_a_named_ending(tmp_path: Path) -> None:
    fields = json.dumps({"caption": "of the json", "similarity": float("nan")}).encode()
    both = [("1.txt", b"of the text"), ("1.png", picture(1)), ("1.json", fields)]
    cases = (
        (both, {}, "of the text"),
        (both[1:], {}, "of the json"),
        ([*both, ("1.de.txt", "Übung".encode())], {"caption_column": "de.txt"}, "Übung"),
        ([*both, ("1.seg.png", b"?")], {"image_column": "png"}, "of the text"),
    )
    for number, (content, options, caption) in enumerate(cases):
        write_tar(tmp_path / f"{number}.tar", content)
        (sample,) = turns_of(str(tmp_path / f"{number}.tar"), **options)
        assert sample.turns == (("", caption),)


def test_pickles_in_a_tar_are_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evil = b"cos\nsystem\n(S'touch /nowhere'\ntR."
    write_tar(
        tmp_path / "a.tar",
        [("1.pyd", evil), ("1.png", picture(1)), ("1.pth", evil), ("1.txt", b"picture 1")],
    )
    read: list[str] = []
    extract = tarfile.TarFile.extractfile

    def watched(self: tarfile.TarFile, member: Any) -> Any:
        read.append(member.name)
        return extract(self, member)

    monkeypatch.setattr(tarfile.TarFile, "extractfile", watched)
    assert numbers(Stream(StreamConfig(str(tmp_path / "a.tar")), 0), 1) == [1]
    assert set(read) == {"1.png", "1.txt"}


def test_pictures_come_upright(tmp_path: Path) -> None:
    content = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    Image.new("L", (20, 10)).save(content, "JPEG", exif=exif)
    write_tar(tmp_path / "a.tar", [("1.jpg", content.getvalue()), ("1.txt", b"a")])
    (sample,) = turns_of(str(tmp_path / "a.tar"))
    assert (sample.image.size, sample.image.mode) == ((10, 20), "RGB")


# Broken samples


def bomb() -> bytes:
    """The first bytes of a picture of 12,000 x 12,000 pixels: too many to decode any."""
    size = 12_000
    header = b"IHDR" + struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IDAT"


def eps() -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (8, 8)).save(content, "EPS")
    return content.getvalue()


GOOD = {"image": "good.png", "caption": "fine"}
BROKEN: dict[str, tuple[Any, str]] = {
    "no picture": ({"caption": "a"}, "no image"),
    "no file": ({**GOOD, "image": "gone.png"}, "no picture 'gone.png' in"),
    "cut off": ({**GOOD, "image": "cut.png"}, "the picture: cannot be decoded: "),
    "noise": ({**GOOD, "image": "noise.png"}, "the picture: cannot be decoded: none of JPEG, PNG"),
    "bomb": ({**GOOD, "image": "bomb.png"}, "12000 x 12000 pixels"),
    "program": ({**GOOD, "image": "eps.png"}, "the picture: cannot be decoded: none of JPEG, PNG"),
    "outside": ({**GOOD, "image": "../secret.png"}, "'../secret.png' lies outside"),
    "NUL": ({**GOOD, "image": "a\0b"}, "picture"),
    "number": ({**GOOD, "image": 3}, "neither bytes nor a path, but int"),
    "no caption": ({"image": "good.png"}, "no caption"),
    "null": ({**GOOD, "caption": None}, "no caption"),
    "blank": ({**GOOD, "caption": " \n"}, "caption: is empty"),
    "list": ({**GOOD, "caption": ["a"]}, "caption: not a text, but list"),
    "surrogate": ({**GOOD, "caption": "\ud800"}, "caption: half of a surrogate pair"),
    "no object": ([1], "not a JSON object"),
    "no JSON": ("{", "not valid JSON"),
    "nested": ("[" * 100_000, "not valid JSON"),
    "no UTF-8": (b"\xff", "not UTF-8"),
}


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_broken_sample_is_left_out_and_counted(case: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    row, reason = BROKEN[case]
    files = {"good.png": picture(1), "cut.png": picture(1)[:-30], "noise.png": b"noise" * 50}
    files |= {"bomb.png": bomb(), "eps.png": eps() if case == "program" else b""}
    for name, content in files.items():
        (folder / "images" / name).write_bytes(content)
    (tmp_path / "secret.png").write_bytes(picture(1))
    line = row if isinstance(row, bytes) else row if isinstance(row, str) else json.dumps(row)
    line = line if isinstance(line, bytes) else line.encode()
    good = json.dumps(GOOD).encode()
    (folder / "a.jsonl").write_bytes(b"\n".join([good, line, good]))
    stream = Stream(StreamConfig(str(folder / "a.jsonl"), shuffle_buffer=1), 0)
    assert [next(stream).key for _ in range(4)] == ["a.jsonl:1", "a.jsonl:3"] * 2
    assert stream.num_bad == 2 - (stream.state()["progress"]["epoch"] == 0)
    assert stream.bad[0].startswith("a.jsonl:2: ") and reason in stream.bad[0]


def test_the_picture_folder_may_be_a_link_but_nothing_in_it_may_lead_out(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "1.png").write_bytes(picture(1))
    (tmp_path / "2.png").write_bytes(picture(2))
    (tmp_path / "disk" / "2.png").symlink_to(tmp_path / "2.png")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "images").symlink_to(tmp_path / "disk")
    rows = [{"image": f"{n}.png", "caption": f"picture {n}"} for n in (1, 2)]
    (tmp_path / "data" / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    stream = Stream(StreamConfig(str(tmp_path / "data" / "a.jsonl")), 0)
    assert numbers(stream, 2) == [1, 1]
    assert "'2.png' lies outside" in stream.bad[0]


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([], "not a list of pairs"),
        ("text", "not a list of pairs"),
        ([{"from": "human", "value": "a"}], "not a list of pairs"),
        ([{"from": "gpt", "value": "a"}, {"from": "human", "value": "b"}], "turn 0 is not of 'human'"),
        ([{"from": "human", "value": "a"}, {"from": "gpt"}], "turn 1: not a text"),
        ([{"from": "human", "value": "a"}, {"from": "gpt", "value": "<image>"}], "an answer is empty"),
        ([{"from": "human", "value": "<image> <image> a"}, {"from": "gpt", "value": "b"}], "speaks of 2 pictures"),
    ],
)  # fmt: skip
def test_a_conversation_that_is_none_is_counted(turns: Any, reason: str, tmp_path: Path) -> None:
    said = [{"from": "human", "value": "q <image>"}, {"from": "gpt", "value": "a"}]
    rows = [{"image": "a.png", "conversations": value} for value in (said, turns)]
    (tmp_path / "a.png").write_bytes(picture(0))
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = StreamConfig(str(tmp_path / "a.jsonl"), conversations_column="conversations")
    stream = Stream(config, 0)
    assert [next(stream).turns for _ in range(2)] == [(("q", "a"),)] * 2
    assert reason in stream.bad[0]


@pytest.mark.parametrize("how", ["in a picture", "in a header", "between members", "header broken"])
@pytest.mark.parametrize("processes", [1, 3])
def test_a_tar_that_breaks_off_gives_what_is_whole(
    how: str, processes: int, tmp_path: Path
) -> None:
    source = write_tars(tmp_path, (6, 6, 6, 6))
    path = tmp_path / "00001.tar"
    content = path.read_bytes()
    with tarfile.open(path) as tar:
        last = tar.getmembers()[8]  # the picture of sample 10
    if how == "header broken":
        content = content[: last.offset] + b"\x07" * 512 + content[last.offset + 512 :]
    else:
        cuts = {"in a picture": last.offset_data + 9, "in a header": last.offset + 100}
        content = content[: cuts.get(how, last.offset)]
    path.write_bytes(content)
    # "between members" nobody knows that sample 9 was whole
    kept = set(range(24)) - {10, 11} - ({9} if how != "in a picture" else set())
    seen, bad = set[int](), 0
    for rank in range(processes):
        stream = Stream(StreamConfig(source, shuffle_buffer=5), 4, rank, processes)
        while stream.state()["progress"]["epoch"] < 3:
            seen.add(number_in(next(stream)))
        bad += stream.num_bad
        assert all("00001.tar:0000" in text and "breaks off" in text for text in stream.bad)
    assert seen == kept
    assert 1 <= bad <= 4


def test_a_tar_that_is_none_and_a_member_twice_are_counted(tmp_path: Path) -> None:
    source = write_tars(tmp_path, (5, 5, 5))
    (tmp_path / "00002.tar").write_bytes(b"no tar at all")
    write_tar(tmp_path / "00001.tar", [*members(5, 4), *members(9, 1), ("000009.txt", b"b")])
    stream = Stream(StreamConfig(source, max_bad=0.02), 0)
    assert sorted(numbers(stream, 9)) == list(range(9))
    next(stream)
    assert sorted(text.split(": ")[0] for text in stream.bad[:2]) == [
        "00001.tar:000009",
        "00002.tar:",
    ]


def test_a_parquet_file_that_breaks_off_is_counted(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "data")
    path = tmp_path / "data" / "train-1.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    stream = Stream(StreamConfig(source), 0)
    kept = [*range(20), *range(33, COUNT)]
    assert sorted(numbers(stream, len(kept))) == kept
    next(stream)
    assert stream.bad[0].startswith("train-1.parquet:row group 0: cannot be read: ")


def test_a_broken_page_of_a_parquet_file_is_counted(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "data", (70,))
    path = tmp_path / "data" / "train-0.parquet"
    content = bytearray(path.read_bytes())
    content[4:60] = b"\xff" * 56  # the page header of the first row group
    path.write_bytes(content)
    stream = Stream(StreamConfig(source), 0)
    assert sorted(numbers(stream, 63)) == list(range(7, 70))
    next(stream)
    assert stream.bad[0].startswith("train-0.parquet:row group 0: cannot be read: ")


def with_broken(folder: Path, count: int, broken: set[int]) -> str:
    folder.mkdir()
    (folder / "a.png").write_bytes(picture(0))
    captions = ("" if n in broken else "a" for n in range(count))
    lines = [json.dumps({"image": "a.png", "caption": caption}) for caption in captions]
    (folder / "a.jsonl").write_text("\n".join(lines))
    return str(folder / "a.jsonl")


@pytest.mark.parametrize(
    ("count", "broken", "max_bad", "stops"),
    [
        (50, {49}, 0.01, False), (50, {48, 49}, 0.01, True), (50, {49}, 0.0, True),
        (50, {*range(45, 50)}, 0.05, False), (50, {*range(44, 50)}, 0.05, True),
        (50, {*range(1, 50)}, 1.0, False),
        (300, {99, 199, 299}, 0.01, False), (300, {99, 199, 298, 299}, 0.01, True),
    ],
)  # fmt: skip
def test_training_stops_when_too_many_samples_are_broken(
    count: int, broken: set[int], max_bad: float, stops: bool, tmp_path: Path
) -> None:
    source = with_broken(tmp_path / "data", count, broken)
    stream = Stream(StreamConfig(source, max_bad=max_bad, shuffle_buffer=1), 3)
    if stops:
        with pytest.raises(UserError, match=f"a.jsonl:.*max_bad = {max_bad}"):
            for _ in range(2 * count):
                next(stream)
    else:
        for _ in range(3 * (count - len(broken))):
            next(stream)


def test_the_limit_names_file_key_reason_and_remedy(tmp_path: Path) -> None:
    source = with_broken(tmp_path / "data", 120, set(range(118)))
    with pytest.raises(UserError) as caught:
        next(Stream(StreamConfig(source, shuffle_buffer=1), 1))
    assert str(caught.value).startswith(f"{source}: a.jsonl:")
    assert str(caught.value).endswith(
        ": caption: is empty; 2 of 2 samples are broken, more than max_bad = 0.01 allows; "
        "mend or remove them, or raise max_bad"
    )


def test_tars_that_break_off_count_as_shards_not_as_one_sample_of_many(tmp_path: Path) -> None:
    source = write_tars(tmp_path, (150, 150, 10, 10))
    for name in ("00002.tar", "00003.tar"):
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="2 of 4 shards are broken"):
        numbers(Stream(StreamConfig(source), 0), 400)


def test_the_same_broken_sample_in_every_epoch_does_not_add_up(tmp_path: Path) -> None:
    source = with_broken(tmp_path / "data", 10, {4})
    stream = Stream(StreamConfig(source), 0)
    for _ in range(9 * 20):
        next(stream)
    assert 19 <= stream.num_bad <= 20 and len(stream.bad) == 5


def test_counts_go_on_when_resumed(tmp_path: Path) -> None:
    config = StreamConfig(with_broken(tmp_path / "data", 10, {4}), shuffle_buffer=3)
    stream = Stream(config, 0)
    for _ in range(12):
        next(stream)
    resumed = Stream.resume(config, 0, stream.state())
    assert (resumed.num_bad, resumed.bad) == (stream.num_bad, stream.bad)
    for _ in range(12):
        assert next(stream).key == next(resumed).key
    assert (resumed.num_bad, resumed.bad) == (stream.num_bad, stream.bad)


def test_only_broken_samples_are_an_error_even_without_a_limit(tmp_path: Path) -> None:
    source = with_broken(tmp_path / "data", 10, set(range(10)))
    with pytest.raises(UserError, match=r"none of 10 samples can be used, the first: a\.jsonl:"):
        next(Stream(StreamConfig(source, max_bad=1.0), 0))


def test_names_in_data_cannot_steer_a_terminal(tmp_path: Path) -> None:
    write_tar(
        tmp_path / "a.tar", [*members(0, 3), ("\x1b[2J\n.png", b"?"), ("\x1b[2J\n.txt", b"a")]
    )
    stream = Stream(StreamConfig(str(tmp_path / "a.tar")), 0)
    numbers(stream, 4)
    assert stream.bad[0].isprintable() and "\\x1b[2J\\x0a" in stream.bad[0]


@pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore:Image size:Warning")
def test_no_damage_to_a_picture_is_a_traceback() -> None:
    from training.streams.rows import BadSample, decode

    rng = random.Random(0)
    kinds = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
    noise = Image.frombytes("RGB", (32, 32), rng.randbytes(32 * 32 * 3))
    exif = Image.Exif()
    exif[0x0112] = 6
    num_broken = 0
    for kind in kinds:
        content = io.BytesIO()
        noise.save(content, kind, **({"exif": exif} if kind in ("JPEG", "PNG", "WEBP") else {}))
        for _ in range(300):
            damaged = bytearray(content.getvalue())
            for _ in range(rng.choice((1, 4, 20))):
                damaged[rng.randrange(min(len(damaged), 400))] = rng.randrange(256)
            try:
                assert decode(bytes(damaged)).mode == "RGB"
            except BadSample:
                num_broken += 1
    assert num_broken > 300


# Refused before training starts


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("pipe:cat shards/{0..9}.tar", "pipe: is refused, no commands are run"),
        ("pipe:curl http://a/b.tar |", "pipe: is refused"),
        ("https://example.org/{00..09}.tar", "URLs are not opened"),
        ("s3://bucket/a.tar", "URLs are not opened"),
        ("gone/{00..02}.tar", r"gone/\{00..02\}.tar: no file gone/00.tar"),
        ("gone/{00..99999999999}.tar", "no file gone/00.tar"),
        ("gone/{3..1}.tar", "the range {3..1} is empty"),
        ("gone/*.tar", "no file matches"),
        ("gone.jsonl", "gone.jsonl: no such file"),
        ("gone/chat.json", r"jq -c '.\[\]'"),
        ("gone/deep/folder", "no such folder, and neither"),
        ("", "no such folder|no parquet"),
    ],
)
def test_a_source_that_cannot_be_is_one_line(
    source: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        Stream(StreamConfig(source), 0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_column": "jpg"}, "image_column: unknown column 'jpg'"),
        ({"caption_column": "captoin"}, "caption_column: unknown column 'captoin'; did you mean 'caption'"),
        ({"conversations_column": "chat"}, "conversations_column: unknown column 'chat'"),
        ({"language_column": "lang"}, "language_column: unknown column 'lang'"),
        ({"caption_column": ""}, "caption_column: is empty"),
        ({"shuffle_buffer": 0}, "shuffle_buffer: must be at least 1"),
        ({"max_bad": 1.5}, "max_bad: must be a share from 0 to 1, got 1.5"),
        ({"max_bad": float("nan")}, "max_bad: must be a share"),
        ({"language": "english!"}, "language: 'english!' is no BCP 47 tag"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_an_error_at_once(
    sources: dict[str, str], options: dict[str, Any], message: str
) -> None:
    for source in sources.values():
        with pytest.raises(UserError) as caught:
            Stream(StreamConfig(source, **options), 0)
        assert message in str(caught.value)
        if "unknown" in message:
            assert "known: caption" in str(caught.value) and "image" in str(caught.value)


def test_another_split_is_an_error_at_once(sources: dict[str, str]) -> None:
    with pytest.raises(UserError, match=r"no parquet files of split 'dev'.*split = \"\" takes all"):
        Stream(StreamConfig(sources["parquet"], split="dev"), 0)
    with pytest.raises(UserError, match="unknown split 'dev'"):
        Stream(StreamConfig(sources["save_to_disk"], split="dev"), 0)
    stream = Stream(StreamConfig(sources["parquet"], split=""), 0)
    assert {900, 901, 902} < set(numbers(stream, COUNT + 3))


def test_an_empty_file_or_folder_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n\n")
    write_tar(tmp_path / "a.tar", [])
    (tmp_path / "folder").mkdir()
    for name, message in (
        ("a.jsonl", "is empty"),
        ("a.tar", "no sample can be read"),
        ("folder", "has no parquet files"),
    ):
        with pytest.raises(UserError, match=message):
            Stream(StreamConfig(str(tmp_path / name)), 0)


# State and identity


def test_a_state_of_something_else_is_refused(sources: dict[str, str], tmp_path: Path) -> None:
    config = StreamConfig(sources["tars"])
    state = Stream(config, 1, 0, 2).state()
    for other, seed, rank, processes, message in (
        (config, 2, 0, 2, "another seed"),
        (config, 1, 1, 2, "another rank"),
        (config, 1, 0, 3, "another number of processes"),
        (StreamConfig(config.source, shuffle_buffer=3), 1, 0, 2, "shuffle_buffer"),
        (StreamConfig(write_tars(tmp_path, (3, 4))), 1, 0, 2, "other files"),
    ):
        with pytest.raises(UserError, match=f"the state was saved with .*{message}"):
            Stream.resume(other, seed, state, rank, processes)
    with pytest.raises(UserError, match="state: unknown key 'epoch'"):
        Stream.resume(config, 1, {**state, "epoch": 1}, 0, 2)


def test_moved_data_and_a_raised_limit_may_be_resumed(
    sources: dict[str, str], tmp_path: Path
) -> None:
    stream = Stream(StreamConfig(sources["tars"]), 1)
    numbers(stream, 7)
    moved = StreamConfig(write_tars(tmp_path / "elsewhere"), max_bad=0.1)
    assert numbers(Stream.resume(moved, 1, stream.state()), 7) == numbers(stream, 7)


@pytest.mark.parametrize("kind", WRITERS)
def test_the_identity_is_of_the_content_not_of_the_place(kind: str, tmp_path: Path) -> None:
    first, second = (WRITERS[kind](tmp_path / name) for name in ("a", "b"))
    identity = Stream(StreamConfig(first), 0).identity()
    assert Stream(StreamConfig(second), 0).identity() == identity
    names = ("00001.tar", "train-1.parquet", "train/*.arrow", "train.jsonl")
    (file,) = (file for name in names for file in (tmp_path / "b").rglob(name))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert Stream(StreamConfig(second), 0).identity() != identity


def test_of_big_files_both_ends_are_hashed(tmp_path: Path) -> None:
    from training.streams.sources import content_sha256

    path, found = tmp_path / "big", []
    for change in (None, 0, (1 << 20) - 1, 3 << 20, (6 << 20) - 1):
        content = bytearray(6 << 20)
        if change is not None:
            content[change] = 1
        path.write_bytes(content)
        found.append(content_sha256([path]))
    assert found[3] == found[0]  # the middle is not read, and the docs say so
    assert len(set(found)) == 4


@pytest.mark.slow
def test_memory_does_not_grow_with_the_data(tmp_path: Path) -> None:
    """By less than a sample's key would take, for each sample more; the first pass is not counted,
    which fills caches of the libraries."""
    peaks = []
    for number, size in enumerate((400, 400, 3200)):
        source = write_tars(tmp_path / str(number), (size,))
        stream = Stream(StreamConfig(source, shuffle_buffer=20), 0)
        gc.collect()
        tracemalloc.start()
        for _ in range(size):
            next(stream)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (peaks[2] - peaks[1]) / (3200 - 400) < sys.getsizeof("000001")


def test_the_package_loads_nothing_heavy() -> None:
    import subprocess

    code = (
        "import sys, training.streams\n"
        "print({'torch', 'numpy', 'pandas', 'pyarrow', 'datasets', 'PIL', 'webdataset'}"
        " & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
