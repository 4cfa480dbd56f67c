"""Generated documentation equals what the program says today."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_reference", DOCS / "make_reference.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_command_reference_equals_the_help_texts(
    reference: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    written = (DOCS / "cli.md").read_text(encoding="utf-8")
    assert reference.command_reference() == written, "run: python docs/make_reference.py"


def test_the_published_schemas_equal_the_program_s(reference: ModuleType) -> None:
    for name, content in reference.schemas().items():
        written = (DOCS / "schemas" / name).read_text(encoding="utf-8")
        assert content == written, "run: python docs/make_reference.py"
