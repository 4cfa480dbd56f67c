"""Zip files that nobody vouches for: read within bounds, or refused in one line."""

import io
import json
import struct
import zipfile
import zlib
from pathlib import Path

import pyarrow as pa
import pytest

from mpm_eval.errors import UserError
from mpm_eval.stages.interchange import zipped
from mpm_eval.stages.interchange.inspect_log import read_inspect
from mpm_eval.stages.interchange.zipped import open_zip
from tests.stages.interchange.conftest import INSPECT


def eval_log(path: Path, zstd: bool = False, header: bool = True) -> Path:
    """Write the log of the fixture as a .eval file, its samples packed with zstd or deflate."""
    content = json.loads(INSPECT.read_text(encoding="utf-8"))
    members = {f"samples/{s['id']}_epoch_{s['epoch']}.json": s for s in content.pop("samples")}
    if header:
        members["header.json"] = content
    texts = {name: json.dumps(value).encode() for name, value in members.items()}
    path.write_bytes(zstd_zip(texts) if zstd else deflated(texts))
    return path


def deflated(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def zstd_zip(members: dict[str, bytes]) -> bytes:
    """Return a zip with method 93, as APPNOTE.TXT 6.3.10 describes it."""
    body, directory = b"", b""
    for name, data in members.items():
        packed = pa.compress(data, codec="zstd", asbytes=True)
        sizes = struct.pack("<III", zlib.crc32(data), len(packed), len(data))
        common = struct.pack("<HHHHH", 63, 0, 93, 0, 33) + sizes
        names = struct.pack("<HH", len(name), 0)
        directory += b"PK\x01\x02" + struct.pack("<H", 63) + common + names
        directory += struct.pack("<HHHII", 0, 0, 0, 0, len(body)) + name.encode()
        body += b"PK\x03\x04" + common + names + name.encode() + packed
    end = struct.pack("<HHHHIIH", 0, 0, len(members), len(members), len(directory), len(body), 0)
    return body + directory + b"PK\x05\x06" + end


@pytest.mark.parametrize("zstd", [False, True])
def test_a_packed_log_is_the_log_as_json(tmp_path: Path, zstd: bool) -> None:
    (packed,) = read_inspect([eval_log(tmp_path / "log.eval", zstd)])
    (plain,) = read_inspect([INSPECT])
    assert packed.records == plain.records
    assert packed.checks == plain.checks


def test_a_log_that_did_not_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no header\.json; the evaluation did not end"):
        read_inspect([eval_log(tmp_path / "log.eval", header=False)])


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_zip_cut_off_is_refused(tmp_path: Path, share: float) -> None:
    path = eval_log(tmp_path / "log.eval")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UserError, match="not a zip file, or cut off"):
        read_inspect([path])


@pytest.mark.parametrize("zstd", [False, True])
def test_a_damaged_member_is_refused(tmp_path: Path, zstd: bool) -> None:
    path = eval_log(tmp_path / "log.eval", zstd)
    data = bytearray(path.read_bytes())
    data[90:130] = bytes(40)
    path.write_bytes(bytes(data))
    with pytest.raises(UserError, match=r"samples/q1_epoch_1\.json: damaged"):
        read_inspect([path])


@pytest.mark.parametrize("zstd", [False, True])
def test_a_member_larger_than_it_says_is_refused_and_not_unpacked(
    tmp_path: Path, zstd: bool
) -> None:
    bomb = b"[" + b"0," * 500_000 + b"0]"
    data = zstd_zip({"a.json": bomb}) if zstd else deflated({"a.json": bomb})
    data = data.replace(struct.pack("<I", len(bomb)), struct.pack("<I", 10))
    path = tmp_path / "x.zip"
    path.write_bytes(data)
    with open_zip(path) as members, pytest.raises(UserError, match=r"a\.json: damaged"):
        members.read("a.json")


@pytest.mark.parametrize("zstd", [False, True])
def test_a_member_with_another_checksum_is_refused(tmp_path: Path, zstd: bool) -> None:
    content = b'{"a": 1}'
    data = zstd_zip({"a.json": content}) if zstd else deflated({"a.json": content})
    path = tmp_path / "x.zip"
    path.write_bytes(data.replace(struct.pack("<I", zlib.crc32(content)), struct.pack("<I", 1)))
    with open_zip(path) as members, pytest.raises(UserError, match=r"a\.json: damaged"):
        members.read("a.json")


def test_more_than_the_limit_is_refused_before_anything_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zipped, "MAX_BYTES", 1000)
    path = eval_log(tmp_path / "log.eval")
    with pytest.raises(UserError, match="GiB unpacked, at most"):
        read_inspect([path])


@pytest.mark.parametrize("name", ["../x.json", "/x.json", "a/../../x.json", "..\\x.json", "C:\\x"])
def test_a_name_that_leads_out_of_the_file_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.eval"
    path.write_bytes(deflated({name: b"{}"}))
    with pytest.raises(UserError, match="which leads out of the file"):
        read_inspect([path])


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.eval"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.json", "1")
        archive.writestr("a.json", "2")
    with pytest.raises(UserError, match=r"two members are called 'a\.json'"):
        read_inspect([path])


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_inspect([tmp_path / "x.eval"])
