"""Run a study: train and measure each point with each seed; what is done is never done again."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mpm_eval import __version__
from mpm_eval.append_only import held
from mpm_eval.errors import UserError
from mpm_eval.schema import Score
from mpm_eval.stages.generate import Progress, run_tasks
from mpm_eval.stages.result_schema import Result, ZeroShot, load_result
from mpm_eval.stages.score import score_run
from mpm_eval.stages.study.content import content
from mpm_eval.stages.study.definition import CONTENT, Measure, Study
from mpm_eval.stages.study.folders import SCHEMA_VERSION, Folders, Outcome, Value
from mpm_eval.stages.study.plan import DONE, Planned, Timings, evaluation_sha256
from mpm_eval.strict import write_json
from mpm_eval.tasks import load_task

# stage, steps done, steps in all, mean loss, examples per second
TrainReport = Callable[[str, int, int, float, float], None]


def run_study(
    study: Study,
    planned: Sequence[Planned],
    folders: Folders,
    train_report: TrainReport = lambda *_: None,
    progress: Progress | None = None,
) -> None:
    """Train and measure every run of the plan that is not done, and write its outcome.

    May be stopped or killed at any moment; the same call continues. Raises UserError as `train`
    and `run_tasks` do, and when another process trains the same checkpoint.
    """
    timings = Timings(folders)
    for run in planned:
        if run.state == DONE:
            continue
        checkpoint = folders.checkpoint(run.recipe.sha256)
        with held(checkpoint):
            _train(study, run, folders, timings, train_report)
            _measure(study, run, folders, timings, progress)


@dataclass
class _Clock:
    """Passes reports on and keeps, per stage, when it began and how far it came."""

    report: TrainReport
    seen: dict[str, tuple[float, int, float, int]] = field(default_factory=dict)

    def __call__(self, stage: str, done: int, total: int, loss: float, speed: float) -> None:
        now = time.monotonic()
        began, first = self.seen[stage][:2] if stage in self.seen else (now, done)
        self.seen[stage] = (began, first, now, done)
        self.report(stage, done, total, loss, speed)


def _train(
    study: Study, run: Planned, folders: Folders, timings: Timings, report: TrainReport
) -> None:
    from training.interface import train

    clock = _Clock(report)
    train(
        study.recipe,
        folders.checkpoint(run.recipe.sha256),
        study.overrides_of(run.point, run.seed),
        clock,
        features=folders.cache,
        stages=folders.cache,
    )
    for stage in run.recipe.stages:
        began, first, ended, last = clock.seen.get(stage.name, (0.0, 0, 0.0, 0))
        if last > first:
            timings.add(stage.name, ended - began, last - first)


def _measure(
    study: Study, run: Planned, folders: Folders, timings: Timings, progress: Progress | None
) -> None:
    from mpm_eval.cards import open_model

    began = time.monotonic()
    evaluation = evaluation_sha256(study)
    checkpoint = folders.checkpoint(run.recipe.sha256)
    backend = open_model(f"checkpoint:{checkpoint}")
    record = getattr(backend, "training_record", None)
    if record is None:
        raise UserError(f"{checkpoint}: has no training.json; delete the folder and run again")
    tasks = {name: load_task(name) for name in study.tasks}
    out = run_tasks(
        list(tasks.values()),
        backend,
        model_spec=f"checkpoint:{checkpoint}",
        languages=study.languages,
        limit=study.limit,
        out=folders.run(run.recipe.sha256, evaluation),
        progress=progress,
    )
    score_run(out)
    # a task may be asked for by the path of its file; its folder has its name
    task_folders = {spec: out / task.name for spec, task in tasks.items()}
    results = {spec: load_result(path / "result.json") for spec, path in task_folders.items()}
    zero_shot: dict[str, ZeroShot] = {}
    for result in results.values():
        zero_shot |= result.zero_shot
    outcome = Outcome(
        schema_version=SCHEMA_VERSION,
        study=study.name,
        point=run.point.name,
        seed=run.seed,
        overrides=study.overrides_of(run.point, run.seed),
        recipe_sha256=run.recipe.sha256,
        evaluation_sha256=evaluation,
        checkpoint_sha256=backend.sha256,
        record=record,
        zero_shot=zero_shot,
        values=tuple(
            value
            for measure in study.measured
            for value in values_of(measure, results[measure.task], task_folders[measure.task])
        ),
        versions={**next(iter(results.values())).versions, "mpm-eval": __version__},
    )
    write_json(folders.outcome(run.point.name, run.seed), outcome)
    timings.add("evaluate", time.monotonic() - began, 1)


def values_of(measure: Measure, result: Result, task_folder: Path) -> list[Value]:
    """Return the values of one measure, one per language that has it; retention has no pivot."""
    if measure.metric == CONTENT:
        found = content(task_folder, measure.subset)
        return [
            _value(measure, language, share.value, share.n, share.n_failed)
            for language, share in found.items()
        ]
    rows = [score for score in result.scores if _belongs(score, measure)]
    if not rows:
        subset = f" in {measure.subset}" if measure.subset else ""
        raise UserError(
            f"{task_folder}: no {measure.metric}{subset}; correct the measures of the study"
        )
    return [_value(measure, row.language, row.value, row.n, row.n_failed) for row in rows]


def _belongs(score: Score, measure: Measure) -> bool:
    return (score.metric, score.subset) == (measure.metric, measure.subset)


def _value(measure: Measure, language: str, value: float | None, n: int, n_failed: int) -> Value:
    # fewer digits than a result's: the last ones of a sum differ between processors
    shown = None if value is None else round(value, 6)
    return Value(measure.task, measure.metric, measure.subset, language, shown, n, n_failed)
