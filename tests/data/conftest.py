"""Tasks made in memory for the readers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpm_eval.schema import Task


@pytest.fixture
def make_task(tmp_path: Path) -> Callable[..., Task]:
    """Return a function that makes a task whose file would lie in tmp_path."""

    def make(
        kind: str = "generate", languages: tuple[str, ...] = ("en", "zh"), **data: Any
    ) -> Task:
        return Task(
            name="mine",
            version=1,
            kind=kind,
            description="",
            languages=languages,
            metrics=("exact_match",),
            main_metric="exact_match",
            data=data,
            path=str(tmp_path / "mine.toml"),
        )

    return make
