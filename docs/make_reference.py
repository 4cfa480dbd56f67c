"""Write docs/cli.md from --help, and docs/schemas/*.json from `mpm-eval schema`; a test compares.

python docs/make_reference.py
"""

import json
import os
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

DOCS = Path(__file__).parent


def commands() -> list[tuple[str, ...]]:
    """Return the words of every command, those of groups too, in the order of --help."""
    from typer.main import get_command

    from mpm_eval.cli import app

    def below(group: Any, words: tuple[str, ...]) -> list[tuple[str, ...]]:
        found = [words]
        for name, command in getattr(group, "commands", {}).items():
            found += below(command, (*words, name))
        return found

    return below(get_command(app), ())


def command_reference() -> str:
    """Return Markdown with the help text of every command."""
    from mpm_eval.cli import app

    runner = CliRunner(env={"COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1"})
    parts = ["# Command reference", "", "Generated from `--help` by docs/make_reference.py.", ""]
    for words in commands():
        text = runner.invoke(app, [*words, "--help"], prog_name="mpm-eval").output
        parts += [f"## {' '.join(('mpm-eval', *words))}", "", "```", text.strip(), "```", ""]
    return "\n".join(line.rstrip() for line in "\n".join(parts).split("\n"))


def schemas() -> dict[str, str]:
    """Return file name -> text of every published JSON Schema."""
    from mpm_eval.stages.result_schema import SCHEMAS, json_schema

    return {
        f"{name}.schema.json": json.dumps(json_schema(name), ensure_ascii=False, indent=1) + "\n"
        for name in SCHEMAS
    }


if __name__ == "__main__":
    os.environ["COLUMNS"] = "100"
    (DOCS / "cli.md").write_text(command_reference(), encoding="utf-8")
    (DOCS / "schemas").mkdir(exist_ok=True)
    for file_name, content in schemas().items():
        (DOCS / "schemas" / file_name).write_text(content, encoding="utf-8")
