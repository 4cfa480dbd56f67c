"""The state after a stage, shared by runs that differ in later stages only."""

import dataclasses
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from mpm_eval.strict import canonical_sha256, file_sha256
from training.checkpoint import read_tensors, write_tensors
from training.recipe import Recipe

# Stage spell sees the views that the table of stage pretrain asks for.
_READS_AHEAD = {"spell": ("pretrain",)}
_NOT_WEIGHTS = ("name", "description", "save_every_s")


@dataclass(frozen=True, slots=True)
class StageKey:
    """One stage of a recipe; on equal hardware equal hashes mean equal states after it."""

    name: str
    steps: int
    sha256: str  # of everything that decides the state after the stage


@dataclass(frozen=True, slots=True)
class RecipePlan:
    """What training a recipe comes to."""

    sha256: str  # of the recipe
    stages: tuple[StageKey, ...]
    num_cached: int  # stages, from the first, that need not be trained


def stage_keys(recipe: Recipe, data_sha256: str) -> tuple[StageKey, ...]:
    """Return the stages in order.

    A key covers the recipe without the tables of later stages, the data, torch and the source of
    this package: a changed line of the trainer may change what it trains.
    """
    settings = dataclasses.asdict(recipe)
    for field in _NOT_WEIGHTS:
        del settings[field]
    del settings["engine"]["tracker"]
    names = list(recipe.stages)
    keys: list[StageKey] = []
    for index, (name, config) in enumerate(recipe.stages.items()):
        later = set(names[index + 1 :]) - set(_READS_AHEAD.get(name, ()))
        tables = {table for stage in later for table in (stage, f"stream_{stage}")}
        kept = {key: value for key, value in settings.items() if key not in tables}
        decided = [name, kept, data_sha256, torch.__version__, _source_sha256()]
        keys.append(StageKey(name, config.steps, canonical_sha256(decided)))
    return tuple(keys)


@cache
def _source_sha256() -> str:
    root = Path(__file__).parent
    paths = sorted(root.rglob("*.py"))
    return canonical_sha256(
        {path.relative_to(root).as_posix(): file_sha256(path) for path in paths}
    )


class StageCache:
    """A folder of states: a run takes its own from it before training and gives it what is new."""

    def __init__(self, folder: Path, recipe: Recipe, data_sha256: str):
        self._folder, self._recipe_sha256 = folder, recipe.sha256
        self._keys = stage_keys(recipe, data_sha256)

    def plan(self) -> RecipePlan:
        """Return the stages of the recipe and how many of them are cached."""
        found = [number for number, key in enumerate(self._keys, 1) if self._path(key).is_file()]
        return RecipePlan(self._recipe_sha256, self._keys, max(found, default=0))

    def restore(self, state: Path) -> None:
        """Write the state after the last stage that is cached to `state`, if there is none yet.

        Kill -9 leaves no state or a whole one. Raises UserError when a cached file is damaged.
        """
        num_cached = self.plan().num_cached
        if num_cached and not state.exists():
            tensors, content = read_tensors(self._path(self._keys[num_cached - 1]))
            write_tensors(state, tensors, {**content, "recipe_sha256": self._recipe_sha256})

    def keep(self, state: Path, num_stages: int) -> None:
        """Keep the state at the end of a stage; that after the last one is the checkpoint."""
        path = self._path(self._keys[num_stages - 1])
        if num_stages < len(self._keys) and not path.exists():
            tensors, content = read_tensors(state)
            write_tensors(path, tensors, content)

    def _path(self, key: StageKey) -> Path:
        return self._folder / f"{key.name}-{key.sha256[:16]}.safetensors"
