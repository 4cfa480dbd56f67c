"""Published: results that others report, cited, shown apart and never ranked with measured ones."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mpm_eval.errors import UserError, unknown
from mpm_eval.languages import LANGUAGES
from mpm_eval.resources import shipped
from mpm_eval.strict import build, read_toml

DOUBT = "(!)"  # shown behind a value that the notes question


@dataclass(frozen=True, slots=True)
class System:
    """One published system."""

    name: str
    values: Mapping[str, Mapping[str, float]]  # language -> column -> value
    detail: str = ""  # e.g. its language model
    doubtful: tuple[str, ...] = ()  # language.column of values that the notes question


@dataclass(frozen=True, slots=True)
class Published:
    """One table of a paper: tasks/published/NAME.toml."""

    title: str
    metric: str
    higher_is_better: bool
    protocol: str
    citation: str
    url: str
    columns: tuple[str, ...]
    systems: tuple[System, ...]
    notes: tuple[str, ...] = ()
    tasks: Mapping[str, str] = field(default_factory=dict)  # language -> task it may stand beside
    name: str = ""  # of the file

    @property
    def languages(self) -> list[str]:
        """The languages that a system has values in."""
        found = {language for system in self.systems for language in system.values}
        return [language for language in LANGUAGES if language in found]


def load_published(path: Path) -> Published:
    """Return one table; UserError names the file and what is wrong in it."""
    content = read_toml(path)
    if "name" in content:
        raise UserError(f"{path}: key 'name' is the file's name; remove it")
    published = build(Published, {**content, "name": path.stem}, str(path))
    if not published.citation.strip() or not published.url.startswith("https://"):
        raise UserError(f"{path}: citation, url: say where the numbers are from, with an https URL")
    for tag in published.tasks:
        if tag not in LANGUAGES:
            raise unknown("language", tag, LANGUAGES, f"{path}: tasks")
    for number, system in enumerate(published.systems):
        _check(published, system, f"{path}: systems[{number}]")
    return published


def list_published() -> list[Published]:
    """Return the shipped tables, by name."""
    return [
        load_published(path) for path in sorted((shipped("tasks") / "published").glob("*.toml"))
    ]


def beside(task: str, known: Iterable[Published]) -> list[tuple[Published, list[str]]]:
    """Return the tables that may stand beside a task, with the languages that are its."""
    return [
        (published, languages)
        for published in known
        if (languages := [tag for tag in published.languages if published.tasks.get(tag) == task])
    ]


def _check(published: Published, system: System, where: str) -> None:
    cells = {f"{tag}.{column}" for tag, row in system.values.items() for column in row}
    for tag, row in system.values.items():
        if tag not in LANGUAGES:
            raise unknown("language", tag, LANGUAGES, f"{where}.values")
        for column in row:
            if column not in published.columns:
                raise unknown("column", column, published.columns, f"{where}.values.{tag}")
    for cell in system.doubtful:
        if cell not in cells:
            raise unknown("value", cell, cells, f"{where}.doubtful")
