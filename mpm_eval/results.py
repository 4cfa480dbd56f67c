"""Results of a folder as a table: one row per score, for notebooks and for the leaderboard."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpm_eval.errors import UserError
from mpm_eval.schema import Score
from mpm_eval.stages.result_schema import Result, load_result

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]

_COLUMNS = (
    "task", "task_version", "model", "run", "control", "language", "metric", "subset", "value",
    "ci95_low", "ci95_high", "n", "n_failed", "higher_is_better", "label", "signature", "seed",
    "limit", "task_sha256", "data_sha256", "model_sha256", "predictions_sha256",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Found:
    """A result and where it lies."""

    run: str  # the run folder, relative to the folder searched
    folder: Path  # of the task inside the run
    result: Result


def load_results(folder: str | Path) -> "pd.DataFrame":
    """Return every score below a folder, one row each, sorted by run and task.

    Columns: task, task_version, model, run (relative to the folder), control, language, metric,
    subset ("" for every sample), value (NaN where no sample could be scored), ci95_low, ci95_high,
    n, n_failed, higher_is_better, label, signature, seed, limit (missing: every sample), and the
    hashes task_sha256, data_sha256, model_sha256, predictions_sha256. Limited runs and controls
    are in it. Raises UserError for a folder without results.
    """
    import pandas as pd

    rows = [
        score_row(found, score)
        for found in read_results(Path(folder))
        for score in found.result.scores
    ]
    floats = dict.fromkeys(("value", "ci95_low", "ci95_high"), "float64")
    columns = None if rows else list(_COLUMNS)  # a result can be without any score
    return pd.DataFrame(rows, columns=columns).astype({**floats, "limit": "Int64"})


def read_results(folder: Path) -> list[Found]:
    """Return every result below a folder, sorted by path.

    Raises UserError when there is none.
    """
    found = [
        Found(path.parent.parent.relative_to(folder).as_posix(), path.parent, load_result(path))
        for path in sorted(folder.rglob("result.json"))
        if path.parent != folder  # the folder of one task says nothing of its run
    ]
    if not found:
        missing = "no run in it has a result.json" if folder.is_dir() else "no such folder"
        raise UserError(
            f"{folder}: {missing}; make one with: mpm-eval run --task TASK --model MODEL"
        )
    return found


def score_row(found: Found, score: Score) -> dict[str, Any]:
    """Return a score with the identity of its result; the keys are the columns of a table."""
    result = found.result
    low, high = score.ci95 or (None, None)
    values = (
        result.task.name, result.task.version, result.model.name, found.run, result.control,
        score.language, score.metric, score.subset, score.value,
        low, high, score.n, score.n_failed, score.higher_is_better, score.label, score.signature,
        result.seed, result.limit, result.task.sha256, result.data.sha256, result.model.sha256,
        result.predictions_sha256,
    )  # fmt: skip
    return dict(zip(_COLUMNS, values, strict=True))
