"""The strict reader: every mistake is one line that says where, what and what to do."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mpm_eval.errors import UserError
from mpm_eval.strict import (
    build,
    canonical_sha256,
    file_sha256,
    read_json,
    read_jsonl,
    read_toml,
    to_jsonable,
    write_json,
)


@dataclass(frozen=True)
class Part:
    size: int


@dataclass(frozen=True)
class Whole:
    name: str
    ratio: float = 0.5
    limit: int | None = None
    tags: tuple[str, ...] = ()
    parts: tuple[Part, ...] = ()
    table: dict[str, Any] = field(default_factory=dict)


GOOD = {"name": "x", "ratio": 1, "limit": 3, "tags": ["a"], "parts": [{"size": 1}]}


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (
            {"nam": "x"},
            "f: unknown key 'nam'; did you mean 'name'? "
            "known: limit, name, parts, ratio, table, tags",
        ),
        ({}, "f: key 'name' is missing"),
        ({"name": 3}, "f: name: expected a string, got an integer"),
        ({"name": "x", "limit": True}, "f: limit: expected an integer, got a boolean"),
        ({"name": "x", "limit": 1.5}, "f: limit: expected an integer, got a number"),
        ({"name": "x", "ratio": "1e-4"}, "f: ratio: expected a number, got a string"),
        ({"name": "x", "tags": "a"}, "f: tags: expected a list, got a string"),
        ({"name": "x", "tags": ["a", False]}, "f: tags[1]: expected a string, got a boolean"),
        (
            {"name": "x", "parts": [{"size": "1"}]},
            "f: parts[0]: size: expected an integer, got a string",
        ),
        (
            {"name": "x", "parts": [{"sise": 1}]},
            "f: parts[0]: unknown key 'sise'; did you mean 'size'? known: size",
        ),
        ({"name": "x", "parts": [{}]}, "f: parts[0]: key 'size' is missing"),
        ({"name": "x", "parts": [3]}, "f: parts[0]: expected a table of fields, got an integer"),
        ({"name": None}, "f: name: expected a string, got null"),
        ({"name": "x", "table": [1]}, "f: table: expected a table, got a list"),
    ],
)
def test_a_mistake_names_the_field(mapping: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        build(Whole, mapping, "f")
    assert str(caught.value) == message


def test_a_record_survives_a_round_trip() -> None:
    record = build(Whole, GOOD, "f")
    assert build(Whole, to_jsonable(record), "f") == record
    assert record.ratio == 1.0 and record.parts == (Part(1),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": NaN}', "NaN is not valid JSON; leave the value out or write null"),
        ('{"a": -Infinity}', "-Infinity is not valid JSON; leave the value out or write null"),
        ('{"a": 1, "a": 2}', "key 'a' is given twice"),
        ('{"a": [{"b": 1, "b": 1}]}', "key 'b' is given twice"),
        ('{"a": ', "not valid JSON: Expecting value at column 7"),
        ("", "not valid JSON: Expecting value at column 1"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": 1e999}', "1e999 is not a finite number; correct it or leave it out"),
        ("1" * 5000, "not valid JSON: Exceeds the limit"),
        (r'{"a": "\ud83d"}', "half of a surrogate pair"),
        ('{\n"a" 1}', "not valid JSON: Expecting ':' delimiter at line 2, column 5"),
    ],
)
def test_json_that_readers_would_disagree_on_is_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "f.json"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_json(path)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_a_bad_line_of_jsonl_is_named_by_number(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text('{"a": 1}\n\n{"a": \n')
    with pytest.raises(UserError, match=r"f\.jsonl:3: not valid JSON"):
        list(read_jsonl(path))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[1]", "expected an object {…}, got a list"),
        ('"a"', "expected an object {…}, got a string"),
        ('{"a": NaN}', "NaN is not valid JSON; leave the value out or write null"),
        ('{"a": 1, "a": 2}', "key 'a' is given twice"),
    ],
)
def test_a_line_of_jsonl_that_is_no_record_is_named_by_number(
    tmp_path: Path, line: str, message: str
) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text(f'{{"a": 1}}\n{line}\n')
    with pytest.raises(UserError) as caught:
        list(read_jsonl(path))
    assert str(caught.value) == f"{path}:2: {message}"


def test_a_line_separator_inside_a_string_does_not_end_a_line(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text('{"a": "x\u2028y\x85z"}\n', encoding="utf-8")
    assert list(read_jsonl(path)) == [(1, {"a": "x\u2028y\x85z"})]


def test_files_that_are_missing_or_not_utf8_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_toml(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b'name = "caf\xe9"')
    with pytest.raises(UserError, match="not UTF-8"):
        read_toml(tmp_path / "latin.toml")


def test_norwegian_and_small_numbers_survive_toml(tmp_path: Path) -> None:
    (tmp_path / "f.toml").write_text('languages = ["en", "no"]\nrate = 1e-4\n')
    assert read_toml(tmp_path / "f.toml") == {"languages": ["en", "no"], "rate": 1e-4}


def test_a_whole_surrogate_pair_is_one_character(tmp_path: Path) -> None:
    (tmp_path / "f.json").write_text(r'["\ud83d\udd25"]')
    assert read_json(tmp_path / "f.json") == ["\U0001f525"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rate = nan", "nan is not a finite number"),
        ("rate = -inf", "-inf is not a finite number"),
        ("[data]\nrevision = 2024-01-31", "data: revision: is read as a date; put it in quotes"),
        ("at = [07:32:00]", r"at\[0\]: is read as a date"),
        ("a = " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        ("a = 1\na = 2", "not valid TOML"),
        ("a = ", "not valid TOML"),
    ],
)
def test_toml_that_json_could_not_hold_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "f.toml").write_text(text)
    with pytest.raises(UserError, match=rf"f\.toml: .*{message}"):
        read_toml(tmp_path / "f.toml")


def test_writing_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f.json"
    write_json(path, {"old": 1})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        write_json(path, {"new": 2})
    assert read_json(path) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["f.json"]


def test_a_failing_rename_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f.json"
    write_json(path, {"old": 1})
    before = path.read_bytes()

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(UserError) as caught:
        write_json(path, {"new": 2})
    assert str(caught.value) == (
        f"{path}: cannot be written (Permission denied); what was there is unchanged"
    )
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["f.json"]


def test_equal_content_is_equal_bytes(tmp_path: Path) -> None:
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    write_json(one, {"b": (1, 2.5), "a": {"ü": None}})
    write_json(two, {"a": {"ü": None}, "b": [1, 2.5]})
    assert one.read_bytes() == two.read_bytes()
    expected = '{\n "a": {\n  "ü": null\n },\n "b": [\n  1,\n  2.5\n ]\n}\n'
    assert one.read_text(encoding="utf-8") == expected
    assert file_sha256(one) == hashlib.sha256(expected.encode()).hexdigest()


def test_a_record_survives_the_disk(tmp_path: Path) -> None:
    record = build(Whole, GOOD, "f")
    write_json(tmp_path / "f.json", record)
    assert build(Whole, read_json(tmp_path / "f.json"), "f") == record


def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "f.json"
    write_json(path, GOOD)
    whole = path.read_text().rstrip()
    for length in range(len(whole)):
        path.write_text(whole[:length])
        with pytest.raises(UserError, match="not valid JSON"):
            read_json(path)


def test_a_byte_order_mark_is_no_content(tmp_path: Path) -> None:
    (tmp_path / "f.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / "f.json") == {"a": 1}


def test_a_nan_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "f.json", {"value": float("nan")})
    assert not list(tmp_path.iterdir())


def test_the_hash_does_not_depend_on_the_order_of_keys() -> None:
    assert canonical_sha256({"a": 1, "b": (2,)}) == canonical_sha256({"b": [2], "a": 1})
    assert canonical_sha256({"a": 1}) != canonical_sha256({"a": 2})


@dataclass(frozen=True)
class Circle:
    kind: str = "circle"
    radius: float = 1.0


@dataclass(frozen=True)
class Square:
    kind: str = "square"
    side: int = 2


@dataclass(frozen=True)
class Drawing:
    shape: Circle | Square
    other: Circle | Square | None = None


@pytest.mark.parametrize(
    ("mapping", "expected"),
    [
        ({"shape": {"kind": "circle", "radius": 3}}, Drawing(Circle(radius=3.0))),
        ({"shape": {"kind": "square", "side": 3}}, Drawing(Square(side=3))),
        ({"shape": {"radius": 2}}, Drawing(Circle(radius=2.0))),  # the first one without a kind
        ({"shape": {}, "other": None}, Drawing(Circle())),
        ({"shape": {}, "other": {"kind": "square"}}, Drawing(Circle(), Square())),
    ],
)
def test_a_kind_chooses_between_records(mapping: dict[str, Any], expected: Drawing) -> None:
    assert build(Drawing, mapping, "f") == expected
    assert build(Drawing, to_jsonable(expected), "f") == expected


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            {"kind": "sqare"},
            "f: shape: unknown kind 'sqare'; did you mean 'square'? known: circle, square",
        ),
        ({"kind": 7}, "f: shape: unknown kind '7'; known: circle, square"),
        ({"kind": None}, "f: shape: unknown kind 'None'; known: circle, square"),
        (
            {"kind": "square", "radius": 2},
            "f: shape: unknown key 'radius'; known: kind, side",
        ),
        ({"side": 2}, "f: shape: unknown key 'side'; known: kind, radius"),
        ({"kind": "square", "side": 1.5}, "f: shape: side: expected an integer, got a number"),
        ("square", "f: shape: expected a table of fields, got a string"),
        (None, "f: shape: expected a table of fields, got null"),
        ([], "f: shape: expected a table of fields, got a list"),
    ],
)
def test_a_mistake_in_a_kind_is_one_line(shape: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        build(Drawing, {"shape": shape}, "f")
    assert str(caught.value) == message
