"""The contact sheet: which pictures stand where, and what stands in place of a missing one."""

from pathlib import Path

import pytest
from PIL import Image

from mpm_eval.errors import UserError
from mpm_eval.stages.contact_sheet import (
    draw,
    grid_of,
    painted_tasks,
    read_painted,
    sheet_of,
    write_sheet,
)
from mpm_eval.stages.generate import run_tasks
from tests.conftest import Command
from tests.stages.paint_runs import Breaking, Painter, colour, load

GREY = (225, 225, 225)


def painted(folder: Path, number: int = 6, **fields: object) -> Path:
    """Return the run folder; the pictures of s1 have failed."""
    task = load(folder, number, **fields)
    return run_tasks([task], Breaking(ValueError("x")), model_spec="x", out=folder / "run")


def corners(picture: Image.Image, columns: int, rows: int) -> list[list[tuple[int, ...]]]:
    """Return the colour in the middle of each cell of a sheet with labels at the left."""
    side = 48
    return [
        [picture.getpixel((150 + c * 52 + side // 2, 21 + r * 52 + side // 2)) for c in range(columns)]
        for r in range(rows)
    ]  # fmt: skip


def test_rows_are_prompts_and_columns_languages(tmp_path: Path) -> None:
    (folder,) = painted_tasks(painted(tmp_path))
    sheet = sheet_of(read_painted(folder), samples=["s2", "s3", "s1"])
    assert sheet.columns == ("en", "de")
    assert [label for label, _ in sheet.rows] == ["en 2", "en 3", "en 1"]
    assert [cell.why for cell in sheet.rows[2][1]] == ["failed", "failed"]
    drawn = corners(draw(sheet), 2, 3)
    two, three, four = (colour(i).getpixel((0, 0)) for i in (2, 3, 4))
    assert drawn == [[two, two], [three, four], [GREY, GREY]]


def test_rows_are_spread_evenly_and_not_picked(tmp_path: Path) -> None:
    (folder,) = painted_tasks(painted(tmp_path, 12))
    sheet = sheet_of(read_painted(folder), ["de"], num_rows=4)
    assert [label for label, _ in sheet.rows] == ["en 0", "en 3", "en 6", "en 9"]
    assert len(sheet_of(read_painted(folder), num_rows=40).rows) == 12


def test_a_grid_shows_one_language_eight_in_a_row(tmp_path: Path) -> None:
    (folder,) = painted_tasks(painted(tmp_path, 12))
    sheet = grid_of(read_painted(folder), "de")
    assert [len(row) for _, row in sheet.rows] == [8, 4]
    assert sheet.rows[1][1][0].label == "en 8"
    assert draw(sheet).width < 8 * 60


def test_a_prompt_that_no_font_can_print_is_named_by_its_id(tmp_path: Path) -> None:
    (folder,) = painted_tasks(painted(tmp_path, prompt="画 {question}"))
    assert [label for label, _ in sheet_of(read_painted(folder)).rows][:2] == ["s0", "s1"]


def test_a_sheet_of_a_run_that_is_not_finished_has_grey_fields(tmp_path: Path) -> None:
    (folder,) = painted_tasks(painted(tmp_path))
    lines = (folder / "predictions.jsonl").read_text("utf-8").splitlines(keepends=True)
    (folder / "predictions.jsonl").write_text("".join(lines[:1]), "utf-8")
    (folder / "images/en/s0.png").write_bytes(b"no picture")
    sheet = sheet_of(read_painted(folder))
    assert [cell.why for cell in sheet.rows[0][1]] == ["", "not painted"]
    assert corners(draw(sheet), 2, 1) == [[GREY, GREY]]
    (folder / "predictions.jsonl").write_text("", "utf-8")
    with pytest.raises(UserError, match="nothing is painted yet"):
        read_painted(folder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"languages": ["xx"]}, "unknown language 'xx'"),
        ({"samples": ["s9"]}, "unknown sample 's9'"),
        ({"num_rows": 0}, "--rows: must be at least 1"),
    ],
)
def test_what_a_run_does_not_have_is_named(
    tmp_path: Path, arguments: dict[str, object], message: str
) -> None:
    (folder,) = painted_tasks(painted(tmp_path))
    with pytest.raises(UserError, match=message):
        sheet_of(read_painted(folder), **arguments)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="unknown language 'fr'"):
        grid_of(read_painted(folder), "fr")


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    (folder,) = painted_tasks(painted(tmp_path))
    for name in ("a.png", "b.png"):
        write_sheet(sheet_of(read_painted(folder)), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_the_size_of_a_picture_is_its_own_up_to_a_limit(tmp_path: Path) -> None:
    class Large(Painter):
        def one(self, request: object) -> Image.Image:
            return colour(1, 300)

    run = run_tasks([load(tmp_path, size=0)], Large(), model_spec="x", out=tmp_path / "run")
    (folder,) = painted_tasks(run)
    assert draw(sheet_of(read_painted(folder))).width == 150 + 2 * (128 + 4)


@pytest.mark.slow
def test_the_command_writes_a_sheet_and_says_where(tmp_path: Path, mpm_eval: Command) -> None:
    run = painted(tmp_path)
    done = mpm_eval("contact-sheet", run, "--languages", "en")
    assert (done.returncode, done.stdout.strip()) == (0, str(run / "contact-sheet.png"))
    done = mpm_eval("contact-sheet", run, "--grid", "de", "--languages", "en")
    assert done.returncode == 2 and "--grid: shows one language" in done.stderr
