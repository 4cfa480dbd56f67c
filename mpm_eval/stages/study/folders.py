"""Where the files of studies lie, and the record that each trained and measured run leaves."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mpm_eval.schema import TrainingRecord
from mpm_eval.stages.result_schema import ZeroShot
from mpm_eval.strict import build, read_json

STUDIES = Path("results/studies")
SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Value:
    """What one measure gave in one language."""

    task: str
    metric: str
    subset: str
    language: str
    value: float | None  # None: undefined, e.g. retention of a pivot at chance
    n: int
    n_failed: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """One point with one seed, trained and measured; the table needs nothing else."""

    schema_version: int
    study: str
    point: str
    seed: int
    overrides: tuple[str, ...]
    recipe_sha256: str
    evaluation_sha256: str  # of tasks, languages, limit and measures
    checkpoint_sha256: str
    record: TrainingRecord
    zero_shot: Mapping[str, ZeroShot]  # language -> label and evidence
    values: tuple[Value, ...]
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Folders:
    """The folders of one study under a root that all studies share.

    All below `work` can be made again and is not committed. It belongs to every study: a recipe
    that two of them have is trained once.
    """

    root: Path
    study: str

    @property
    def own(self) -> Path:
        return self.root / self.study

    @property
    def cache(self) -> Path:
        return self.root / "work" / "cache"

    @property
    def timings(self) -> Path:
        return self.root / "work" / "timings.json"

    def checkpoint(self, recipe_sha256: str) -> Path:
        return self.root / "work" / "checkpoints" / recipe_sha256[:16]

    def run(self, recipe_sha256: str, evaluation_sha256: str) -> Path:
        name = f"{recipe_sha256[:16]}-{evaluation_sha256[:8]}"
        return self.root / "work" / "runs" / name

    def outcome(self, point: str, seed: int) -> Path:
        return self.own / "outcomes" / f"{point}-seed{seed}.json"

    def card(self, point: str) -> Path:
        return self.own / "cards" / f"{point}.md"


def read_outcome(path: Path) -> Outcome | None:
    """Return the outcome in a file, None without one; UserError when it is damaged."""
    return build(Outcome, read_json(path), str(path)) if path.is_file() else None
