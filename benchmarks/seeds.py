"""Mean and spread over training seeds: accuracy above chance and retention, per language.

    python benchmarks/seeds.py results/runs/mpm-tiny results/runs/tiny-seed1 --against \
        results/runs/tiny_no_pivot-seed0 --task emoji_choice --task emoji_choice_validation

Reads result.json files only. A model's value is the mean over its seeds, its spread the standard
deviation (n - 1). The drop from one recipe to another has a Welch interval over seeds where both
have at least two; else it is that of the first runs, its interval from theirs over concepts
taken as independent, which is wide: the items are the same.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from scipy.stats import t as student

from mpm_eval.schema import Score
from mpm_eval.stages.result_schema import load_result


def rows_of(run: Path, task: str, metric: str) -> dict[str, Score]:
    """Return language -> the row of the task's main subset."""
    result = load_result(run / task / "result.json")
    return {
        row.language: row
        for row in result.scores
        if row.metric == metric and row.subset == result.task.main_subset
    }


def summary(values: Sequence[float]) -> str:
    """Return mean ± standard deviation, one decimal."""
    spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
    return f"{mean(values):.1f}{spread}"


def drop(a: Sequence[Score], b: Sequence[Score]) -> str:
    """Return the difference of two recipes with its 95 % interval."""
    x = [row.value for row in a if row.value is not None]
    y = [row.value for row in b if row.value is not None]
    if min(len(x), len(y)) >= 2:
        gap = mean(x) - mean(y)
        vx, vy = stdev(x) ** 2 / len(x), stdev(y) ** 2 / len(y)
        freedom = (vx + vy) ** 2 / (vx**2 / (len(x) - 1) + vy**2 / (len(y) - 1))
        half = float(student.ppf(0.975, freedom)) * math.sqrt(vx + vy)
    elif x and y and a[0].ci95 and b[0].ci95:
        gap = x[0] - y[0]
        half = math.hypot(*((row.ci95[1] - row.ci95[0]) / 2 for row in (a[0], b[0]) if row.ci95))
    else:
        return "–"
    return f"{gap:.1f} ({gap - half:.1f} to {gap + half:.1f})"


def table(task: str, metric: str, runs: Sequence[Path], against: Sequence[Path]) -> list[str]:
    """Return Markdown lines: one row per language."""
    found = [rows_of(run, task, metric) for run in runs]
    other = [rows_of(run, task, metric) for run in against]
    columns = ["language", "mean", *(run.name for run in runs)]
    columns += [*(run.name for run in against), "drop"] if against else []
    lines = [f"### {task}: {metric}", "", f"| {' | '.join(columns)} |"]
    lines.append(f"|---|{'--:|' * (len(columns) - 1)}")
    for language in found[0]:
        values = [float(v) for rows in found if (v := rows[language].value) is not None]
        if len(values) < len(found):
            continue  # undefined, e.g. retention of a pivot at chance
        cells = [language, summary(values), *(_cell(rows[language]) for rows in found)]
        if against:
            cells += [_cell(rows[language]) for rows in other]
            cells.append(drop([r[language] for r in found], [r[language] for r in other]))
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _cell(row: Score) -> str:
    if row.value is None:
        return "–"
    ends = "" if row.ci95 is None else f" ({row.ci95[0]:.1f} to {row.ci95[1]:.1f})"
    return f"{row.value:.1f}{ends}"


def main() -> None:
    """Print one table per task and metric."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path, help="run folders of one recipe")
    parser.add_argument("--against", nargs="*", type=Path, default=[], help="runs of another")
    parser.add_argument("--task", action="append", required=True)
    arguments = parser.parse_args()
    for task in arguments.task:
        for metric in ("accuracy_above_chance", "retention"):
            print("\n".join(table(task, metric, arguments.runs, arguments.against)))


if __name__ == "__main__":
    main()
