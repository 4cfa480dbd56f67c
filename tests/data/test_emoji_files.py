"""The shipped emoji files: intact, rebuilt by their own script, and free of leaks between splits."""

import hashlib
import importlib.util
import io
import json
import re
from collections import defaultdict
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from mpm_eval.resources import shipped

pytestmark = pytest.mark.slow  # all shipped data is read

DATA = shipped("tasks") / "data" / "emoji"
SPLITS = ("train", "validation", "test")
NOT_SQUARE = {("fluent", "\U0001f9a2"): (63, 64)}  # the swan; told in the README


@cache
def build_module() -> ModuleType:
    """`build.py`, which lies beside the data and in no package."""
    spec = importlib.util.spec_from_file_location("emoji_build", DATA / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


VENDORS = ("noto", "twemoji", "fluent", "openmoji")


@cache
def splits() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((DATA / "splits.json").read_text("utf-8"))
    return content


def concepts(split: str | None = None) -> list[dict[str, Any]]:
    return [c for c in splits()["concepts"] if split in (None, c["split"])]


@cache
def pictures(vendor: str) -> dict[str, Image.Image]:
    rows = pq.read_table(DATA / "images" / f"{vendor}.parquet").to_pylist()
    return {r["emoji"]: Image.open(io.BytesIO(r["image"])).convert("RGB") for r in rows}


def readme_tables() -> dict[str, list[int]]:
    """`{first cell: numbers}` of the rows whose other cells are all numbers."""
    rows = {}
    for line in (DATA / "README.md").read_text("utf-8").splitlines():
        name, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells and all(cell.isdigit() for cell in cells):
            rows[name.strip()] = [int(cell) for cell in cells]
    return rows


def test_checksums_hold_and_name_every_data_file() -> None:
    lines = (DATA / "SHA256SUMS").read_text("utf-8").splitlines()
    sums = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    files = [*DATA.glob("*.parquet"), *DATA.glob("images/*"), *DATA.glob("*.toml")]
    files += [*DATA.glob("*.json")]
    assert set(sums) == {path.relative_to(DATA).as_posix() for path in files}
    for name, digest in sums.items():
        found = hashlib.sha256((DATA / name).read_bytes()).hexdigest()
        assert found == digest, f"{name} changed: run `python build.py checksums`"


def test_splits_follow_from_labels_and_pictures(tmp_path: Path) -> None:
    for name in ("labels.parquet", "images"):
        (tmp_path / name).symlink_to(DATA / name)
    assert build_module().main(["splits", "--data", str(tmp_path)]) == 0
    assert (tmp_path / "splits.json").read_bytes() == (DATA / "splits.json").read_bytes()


def test_every_emoji_is_in_one_concept_of_one_split() -> None:
    labels = pq.read_table(DATA / "labels.parquet", columns=["emoji"])["emoji"].to_pylist()
    members = [emoji for c in concepts() for emoji in c["members"]]
    assert sorted(members) == sorted(labels)
    names = [c["concept"] for c in concepts()]
    assert len(set(names)) == len(names)
    assert {c["split"] for c in concepts()} == set(SPLITS)


def test_held_out_subgroups_are_disjoint_and_have_no_concept_elsewhere() -> None:
    unseen = {split: set(names) for split, names in splits()["unseen_subgroups"].items()}
    assert set(unseen) == {"validation", "test"}
    assert not unseen["validation"] & unseen["test"]
    labels = pq.read_table(DATA / "labels.parquet", columns=["emoji", "subgroup"]).to_pylist()
    subgroup_of = {row["emoji"]: row["subgroup"] for row in labels}
    for concept in concepts():
        subgroups = {subgroup_of[emoji] for emoji in concept["members"]}
        expected = {s for s, names in unseen.items() if subgroups & names} or {"train"}
        assert {concept["split"]} == expected, concept


def test_gender_forms_of_one_role_are_in_one_split() -> None:
    found = defaultdict(set)
    for concept in concepts():
        for emoji in concept["members"]:
            role = re.sub("[\u200d\ufe0f\u2640\u2642]", "", emoji)
            found[re.sub("[\U0001f468\U0001f469]", "\U0001f9d1", role)].add(concept["split"])
    assert [role for role, where in found.items() if len(where) > 1] == []
    assert len(found) < sum(len(c["members"]) for c in concepts())  # some roles do have forms


@pytest.mark.parametrize("vendor", VENDORS)
def test_no_picture_is_in_two_splits(vendor: str) -> None:
    split_of = {emoji: c["split"] for c in concepts() for emoji in c["members"]}
    found = defaultdict(set)
    for emoji, picture in pictures(vendor).items():
        found[picture.tobytes()].add(split_of[emoji])
    assert all(len(where) == 1 for where in found.values())


@pytest.mark.parametrize("vendor", VENDORS)
def test_listed_pictures_exist_and_differ(vendor: str) -> None:
    listed = [emoji for c in concepts() for emoji in c["pictures"].get(vendor, [])]
    seen = {pictures(vendor)[emoji].tobytes() for emoji in listed}
    assert len(seen) == len(listed) > 1500


def test_the_first_picture_is_the_canonical_member_s() -> None:
    for concept in concepts():
        for vendor, found in concept["pictures"].items():
            drawn = [emoji for emoji in concept["members"] if emoji in pictures(vendor)]
            assert found[0] == drawn[0], (concept["concept"], vendor)


@pytest.mark.parametrize("vendor", VENDORS)
def test_pictures_are_64_by_64(vendor: str) -> None:
    for emoji, picture in pictures(vendor).items():
        assert picture.size == NOT_SQUARE.get((vendor, emoji), (64, 64)), emoji


def test_the_readme_counts_what_is_there() -> None:
    table = readme_tables()
    for split in SPLITS:
        members = sum(len(c["members"]) for c in concepts(split))
        assert table[split] == [len(concepts(split)), members]
    for vendor in VENDORS:
        counts = [sum(vendor in c["pictures"] for c in concepts(split)) for split in SPLITS]
        assert table[vendor] == counts
    groups = {c["group"] for c in concepts()}
    for group in groups:
        counts = [sum(c["group"] == group for c in concepts(split)) for split in SPLITS]
        assert table[group] == counts
    assert len(table) == len(SPLITS) + len(VENDORS) + len(groups) + 3  # three cells


def test_the_readme_counts_the_cells() -> None:
    styles = splits()["styles"]

    def cell(style_split: str, concept_split: str) -> int:
        found = concepts(concept_split)
        return sum(v in c["pictures"] for v in styles[style_split] for c in found)

    table, held_out = readme_tables(), ("validation", "test")
    assert table["seen concept, unseen style"] == [cell(s, "train") for s in held_out]
    assert table["unseen concept, unseen style"] == [cell(s, s) for s in held_out]
    assert table["unseen concept, seen style"] == [cell("train", s) for s in held_out]
    assert f"has {cell('train', 'train')}." in (DATA / "README.md").read_text("utf-8")


def test_a_merge_of_different_meanings_is_refused() -> None:
    build = build_module()
    cat, grin = "\U0001f431", "\U0001f63a"
    rows = {
        cat: {"emoji": cat, "en": "cat face", "group": "a", "subgroup": "animal-mammal"},
        grin: {"emoji": grin, "en": "grinning cat", "group": "b", "subgroup": "cat-face"},
    }
    with pytest.raises(ValueError, match="cat face, grinning cat; add to WRONG_PICTURES"):
        build.describe_concept([cat, grin], rows, {vendor: {} for vendor in VENDORS})
