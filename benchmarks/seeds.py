"""Mean and spread over training seeds: accuracy above chance and retention, per language.

    python benchmarks/seeds.py results/runs/mpm-tiny results/runs/tiny-seed1 --against \
        results/runs/tiny_no_pivot-seed0 --task emoji_choice --task emoji_choice_validation

Reads result.json files only. A model's value is the mean over its seeds, its spread the standard
deviation (n - 1); a difference between two recipes has a Welch interval over seeds where both have
at least two, and beside it stands each run's own interval over concepts.
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


def welch(a: Sequence[float], b: Sequence[float]) -> str:
    """Return mean(a) - mean(b), with its 95 % Welch interval where both have two values."""
    gap = mean(a) - mean(b)
    if min(len(a), len(b)) < 2:
        return f"{gap:.1f}"
    va, vb = stdev(a) ** 2 / len(a), stdev(b) ** 2 / len(b)
    freedom = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))
    half = float(student.ppf(0.975, freedom)) * math.sqrt(va + vb)
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
            rest = [float(v) for rows in other if (v := rows[language].value) is not None]
            cells += [_cell(rows[language]) for rows in other]
            cells.append(welch(values, rest) if rest else "–")
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
