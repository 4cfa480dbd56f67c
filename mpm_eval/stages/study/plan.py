"""The plan of a study: which runs are done, which are trained, how long the rest takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpm_eval.errors import UserError
from mpm_eval.stages.study.definition import Point, Study
from mpm_eval.stages.study.folders import Folders, Outcome, read_outcome
from mpm_eval.strict import canonical_sha256, read_json, to_jsonable, write_json
from mpm_eval.tasks import load_task

if TYPE_CHECKING:
    from training.interface import RecipePlan

DONE, TRAINED, MISSING = "done", "trained", "missing"
_EVALUATE = "evaluate"


@dataclass(frozen=True, slots=True)
class Planned:
    """One point with one seed."""

    point: Point
    seed: int
    recipe: "RecipePlan"
    state: str  # DONE: measured; TRAINED: its checkpoint is there; MISSING
    outcome: Outcome | None  # where it is DONE

    @property
    def name(self) -> str:
        return f"{self.point.name}-seed{self.seed}"


def evaluation_sha256(study: Study) -> str:
    """Return the hash of everything that decides what is measured of a checkpoint."""
    tasks = {name: load_task(name).sha256 for name in study.tasks}
    return canonical_sha256([tasks, study.languages, study.limit, to_jsonable(study.measured)])


def plan_study(
    study: Study,
    folders: Folders,
    points: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
) -> list[Planned]:
    """Return the runs, seed by seed, of all points and seeds or of those given.

    Seed by seed: a study that is stopped early has every point. Raises UserError for a point or
    seed that the study lacks, a recipe that is wrong, and without the trainer's packages.
    """
    chosen = study.points if points is None else tuple(map(study.point, points))
    for seed in seeds or ():
        if seed not in study.seeds:
            known = ", ".join(map(str, study.seeds))
            raise UserError(f"--seeds: study '{study.name}' has no seed {seed}; it has {known}")
    try:
        from training.interface import plan_recipe
    except ImportError as error:
        raise UserError(f"study: {error}; pip install 'mpm-eval[train]'") from None
    evaluation = evaluation_sha256(study)
    planned = []
    for seed in study.seeds if seeds is None else seeds:
        for point in chosen:
            recipe = plan_recipe(study.recipe, study.overrides_of(point, seed), folders.cache)
            outcome = read_outcome(folders.outcome(point.name, seed))
            if outcome and (outcome.recipe_sha256, outcome.evaluation_sha256) != (
                recipe.sha256,
                evaluation,
            ):
                outcome = None  # of another definition: it is made again
            trained = (folders.checkpoint(recipe.sha256) / "model.safetensors").is_file()
            state = DONE if outcome else TRAINED if trained else MISSING
            planned.append(Planned(point, seed, recipe, state, outcome))
    return planned


class Timings:
    """What a step of each stage took here so far, in seconds; kept beside the checkpoints."""

    def __init__(self, folders: Folders):
        self._path = folders.timings
        # name -> [seconds, steps]
        self._sums: dict[str, list[float]] = read_json(self._path) if self._path.is_file() else {}

    def add(self, name: str, duration_s: float, steps: int) -> None:
        """Count `steps` more steps of a stage, or evaluations."""
        seconds, known = self._sums.get(name, (0.0, 0.0))
        self._sums[name] = [seconds + duration_s, known + steps]
        write_json(self._path, self._sums)

    def per_step(self, name: str) -> float | None:
        """Return seconds per step, None where nothing is known."""
        seconds, steps = self._sums.get(name, (0.0, 0.0))
        return seconds / steps if steps else None


def steps_left(planned: Sequence[Planned]) -> dict[str, int]:
    """Return stage -> steps to train, then how often to evaluate.

    A stage that several runs share is counted once, and not at all where its state is cached.
    """
    counted: set[str] = set()
    steps: dict[str, int] = {}
    for run in planned:
        first = run.recipe.num_cached if run.state == MISSING else len(run.recipe.stages)
        for stage in run.recipe.stages[first:]:
            if stage.sha256 not in counted:
                counted.add(stage.sha256)
                steps[stage.name] = steps.get(stage.name, 0) + stage.steps
    num_open = sum(run.state != DONE for run in planned)
    return {**steps, **({_EVALUATE: num_open} if num_open else {})}


def seconds_left(planned: Sequence[Planned], timings: Timings) -> float | None:
    """Return the seconds that the rest will take as it did so far; None where that is unknown."""
    total = 0.0
    for name, steps in steps_left(planned).items():
        per_step = timings.per_step(name)
        if per_step is None:
            return None
        total += steps * per_step
    return total


def describe_plan(planned: Sequence[Planned], timings: Timings) -> list[str]:
    """Return lines for the terminal: every run with its state, then what is left."""
    width = max(len(run.name) for run in planned)
    shown = {
        DONE: "done",
        TRAINED: "trained, to be evaluated",
        MISSING: "to be trained and evaluated",
    }
    lines = [f"{run.name:<{width}}  {shown[run.state]}" for run in planned]
    left = steps_left(planned)
    if not left:
        return [*lines, "nothing is left to do"]
    lines.append("left: " + ", ".join(_part(name, steps) for name, steps in left.items()))
    seconds = seconds_left(planned, timings)
    if seconds is None:
        lines.append("estimate: none before each stage has run here once")
    else:
        lines.append(f"estimate: {seconds / 60:.0f} minutes, at the speed so far")
    return lines


def _part(name: str, steps: int) -> str:
    return f"{steps} evaluations" if name == _EVALUATE else f"{steps} steps of {name}"
