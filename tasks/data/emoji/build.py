"""Build the emoji data set: labels, pictures, splits and checksums.

    python build.py fetch-and-draw --work DIR --out DIR   labels and pictures from the packages
    python build.py splits [--data DIR]                   write splits.json
    python build.py checksums [--data DIR]                write SHA256SUMS

Nothing here is random: the splits follow from the labels, the pictures and the lists below.
`fetch-and-draw` needs npm, pip, resvg-py and pandas; the other verbs need pyarrow and Pillow.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from PIL import Image

HERE = Path(__file__).resolve().parent
VENDORS = ("noto", "twemoji", "openmoji", "fluent")
DATA_FILES = (
    *(f"images/{vendor}.parquet" for vendor in sorted(VENDORS)),
    "labels.parquet",
    "qa.toml",
    "splits.json",
)

# OpenMoji is the test style since it is the farthest from the others (flat, black outlines);
# Noto and Twemoji have almost every picture, so the training styles have the fewest gaps.
STYLES = {"train": ["noto", "twemoji"], "validation": ["fluent"], "test": ["openmoji"]}

# Unseen concepts are whole CLDR subgroups: near twins (clock faces, moon phases, keycaps, the
# man/woman/person forms of one role) then lie on one side. About 12 % of the concepts each, and
# each main group gives both sets something, as far as it has subgroups of nameable things.
# Kept in training on purpose: `monkey-face` and `cat-face` (twins of monkey and cat in
# `animal-mammal`), `game` (card suits look like hearts), `family` and `person-symbol` (their
# pictures are shared), and `flag` (the only subgroup of its group).
UNSEEN_SUBGROUPS: dict[str, list[str]] = {
    "validation": [
        "face-affection",  # Smileys & Emotion: kissing, hugging
        "face-unwell",  # Smileys & Emotion: thermometer, bandage, sneezing
        "person-fantasy",  # People & Body: fairy, vampire, mermaid, Santa Claus
        "animal-bird",  # Animals & Nature: owl, penguin, swan
        "food-fruit",  # Food & Drink: the pair of food-vegetable
        "place-geographic",  # Travel & Places: volcano, desert, beach
        "place-religious",  # Travel & Places: church, mosque, synagogue
        "transport-water",  # Travel & Places: the pair of transport-air
        "event",  # Activities: Christmas tree, balloon, fireworks
        "musical-instrument",  # Objects: violin, drum
        "tool",  # Objects: hammer, axe, ladder
        "religion",  # Symbols: the pair of zodiac
    ],
    "test": [
        "face-neutral-skeptical",  # Smileys & Emotion: rolling eyes, zipped mouth
        "face-sleepy",  # Smileys & Emotion: sleeping, drooling
        "body-parts",  # People & Body: ear, tooth, brain
        "hand-fingers-closed",  # People & Body: thumbs up, fist
        "person-resting",  # People & Body: in bed, taking a bath
        "animal-marine",  # Animals & Nature: octopus, whale, shell
        "food-vegetable",  # Food & Drink: the pair of food-fruit
        "place-other",  # Travel & Places: fountain, tent, ferris wheel
        "transport-air",  # Travel & Places: the pair of transport-water
        "sport",  # Activities: ball games, medals' neighbours without people
        "household",  # Objects: chair, broom, toothbrush
        "medical",  # Objects: syringe, stethoscope
        "science",  # Objects: microscope, telescope
        "zodiac",  # Symbols: the pair of religion
    ],
}

# Pictures that a vendor uses for two emoji of different meaning. They are no reason to merge the
# two: the emoji named here loses that picture, the other keeps it.
WRONG_PICTURES: dict[str, dict[str, str]] = {
    "fluent": {
        "\U0001f431": "cat face: drawn with the open mouth of the grinning cat, same picture",
        "\U0001f533": "white square button: its white rim is lost on white, leaving a black square",
    },
}

# What makes an emoji the gendered form of another: man, woman, male sign, female sign.
GENDERED = {0x1F468, 0x1F469, 0x2642, 0x2640}
PERSON, JOINER, STYLE_MARK = 0x1F9D1, 0x200D, 0xFE0F

Row = dict[str, Any]
Digests = dict[str, dict[str, str]]


def read_labels(data: Path) -> list[Row]:
    """The label rows, in file order; every list in splits.json follows this order."""
    return pq.read_table(data / "labels.parquet").to_pylist()


def digest_pictures(data: Path) -> Digests:
    """`{vendor: {emoji: digest of the decoded RGB pixels}}`, without `WRONG_PICTURES`.

    Pixels and not file bytes are compared: two encodings of one picture are the same question.
    """
    digests: Digests = {}
    for vendor in VENDORS:
        wrong = WRONG_PICTURES.get(vendor, {})
        digests[vendor] = {}
        for row in pq.read_table(data / "images" / f"{vendor}.parquet").to_pylist():
            if row["emoji"] not in wrong:
                picture = Image.open(io.BytesIO(row["image"])).convert("RGB")
                pixels = repr(picture.size).encode() + picture.tobytes()
                digests[vendor][row["emoji"]] = hashlib.sha256(pixels).hexdigest()
    return digests


def group_by_value(digests: Mapping[str, str], order: Iterable[str]) -> list[list[str]]:
    """Emoji with the same picture, each group and the list of groups in the given order."""
    groups: dict[str, list[str]] = {}
    for emoji in order:
        if emoji in digests:
            groups.setdefault(digests[emoji], []).append(emoji)
    return list(groups.values())


def merge_identical(digests: Digests, order: Sequence[str]) -> list[list[str]]:
    """Union-find over identical pictures in any one vendor, components in label order."""
    parent = {emoji: emoji for emoji in order}

    def root(emoji: str) -> str:
        while parent[emoji] != emoji:
            parent[emoji] = parent[parent[emoji]]
            emoji = parent[emoji]
        return emoji

    for vendor in VENDORS:
        for first, *others in group_by_value(digests[vendor], order):
            for other in others:
                parent[root(other)] = root(first)
    components: dict[str, list[str]] = {}
    for emoji in order:
        components.setdefault(root(emoji), []).append(emoji)
    return list(components.values())


def role_of(row: Row) -> str:
    """What is left of an emoji without gender: only emoji of one role may share a concept.

    Families, couples and kisses differ by their people, so there the name before the colon counts.
    """
    name = row["en"].split(":")[0]
    if name in ("family", "kiss", "couple with heart"):
        return name
    points = [PERSON if p in (0x1F468, 0x1F469) else p for p in map(ord, row["emoji"])]
    return "".join(chr(p) for p in points if p not in (0x2642, 0x2640, JOINER, STYLE_MARK))


def concept_id(emoji: str) -> str:
    """Lower-case hexadecimal code points, joined by '-'."""
    return "-".join(f"{ord(char):x}" for char in emoji)


def canonical_first(members: Sequence[str]) -> list[str]:
    """The least gendered, then shortest member first; ties stay in label order (stable sort)."""
    return sorted(members, key=lambda e: (sum(ord(c) in GENDERED for c in e), len(e)))


def describe_concept(members: Sequence[str], rows: Mapping[str, Row], digests: Digests) -> Row:
    """One entry of splits.json. Fails on a merge of different roles: see `WRONG_PICTURES`."""
    members = canonical_first(members)
    if len({role_of(rows[e]) for e in members}) > 1:
        names = ", ".join(rows[e]["en"] for e in members)
        raise ValueError(f"one picture, different meanings: {names}; add to WRONG_PICTURES")
    splits = {split_of(rows[e]["subgroup"]) for e in members}
    if len(splits) > 1:
        raise ValueError(f"concept {concept_id(members[0])} straddles splits {sorted(splits)}")
    pictures = {v: [g[0] for g in group_by_value(digests[v], members)] for v in VENDORS}
    return {
        "concept": concept_id(members[0]),
        "members": members,
        "group": rows[members[0]]["group"],
        "subgroup": rows[members[0]]["subgroup"],
        "split": splits.pop(),
        "pictures": {vendor: found for vendor, found in pictures.items() if found},
    }


def split_of(subgroup: str) -> str:
    """The split of a subgroup: train unless it is listed as unseen."""
    for split, subgroups in UNSEEN_SUBGROUPS.items():
        if subgroup in subgroups:
            return split
    return "train"


def make_splits(data: Path) -> str:
    """The text of splits.json, one concept a line so that a change shows as a small diff."""
    labels = read_labels(data)
    rows = {row["emoji"]: row for row in labels}
    digests = digest_pictures(data)
    unknown = {s for names in UNSEEN_SUBGROUPS.values() for s in names}
    unknown -= {row["subgroup"] for row in labels}
    if unknown:
        raise ValueError(f"unseen subgroups that no label has: {sorted(unknown)}")
    components = merge_identical(digests, list(rows))
    concepts = [describe_concept(members, rows, digests) for members in components]
    return splits_text(concepts)


def splits_text(concepts: Sequence[Row]) -> str:
    """JSON with the header entries and then the concepts on a line each."""

    def dump(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False)

    lines = ",\n".join(f"  {dump(concept)}" for concept in concepts)
    return (
        f'{{\n"version": 1,\n"styles": {dump(STYLES)},\n'
        f'"unseen_subgroups": {dump(UNSEEN_SUBGROUPS)},\n"concepts": [\n{lines}\n]\n}}\n'
    )


def write_splits(data: Path) -> Path:
    """Write splits.json beside the labels."""
    target = data / "splits.json"
    target.write_text(make_splits(data), encoding="utf-8", newline="\n")
    return target


def write_checksums(data: Path) -> Path:
    """Write SHA256SUMS over the data files that exist, in the format of `sha256sum --check`."""
    lines = [
        f"{hashlib.sha256((data / name).read_bytes()).hexdigest()}  {name}\n"
        for name in DATA_FILES
        if (data / name).is_file()
    ]
    target = data / "SHA256SUMS"
    target.write_text("".join(lines), encoding="utf-8", newline="\n")
    return target


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    fetching = verbs.add_parser("fetch-and-draw", help="labels and pictures from the packages")
    fetching.add_argument("--work", type=Path, required=True, help="folder for the downloads")
    fetching.add_argument("--out", type=Path, required=True, help="folder for the files")
    for name, text in (("splits", "write splits.json"), ("checksums", "write SHA256SUMS")):
        verb = verbs.add_parser(name, help=text)
        verb.add_argument("--data", type=Path, default=HERE, help="folder of the data files")
    args = parser.parse_args(argv)
    if args.verb == "fetch-and-draw":
        from draw import fetch_and_draw  # beside this file; needs more packages than the rest

        fetch_and_draw(args.work, args.out, shipped=HERE)
    else:
        print((write_splits if args.verb == "splits" else write_checksums)(args.data))
    return 0


if __name__ == "__main__":
    sys.exit(main())
