"""Operating characteristics of the gate on simulated pairs: false alarms, drops found, passes.

    python benchmarks/gate_characteristics.py --pairs 1000 --out results/statistics/gate.md

A pair is a baseline and a candidate on the same items, right in 60 % of them; a share of the
answers is drawn anew in the candidate, as another training seed or another prompt would. Every
verdict is that of `mpm_eval.stages.gate.gate`. The smallest drop found 8 times in 10 (MDE) is the
one that the gate states, computed here from the true standard error, and then planted in one cell
of each family.
"""

import argparse
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from mpm_eval import __version__
from mpm_eval.items import Item, Items
from mpm_eval.schema import Score
from mpm_eval.stages.gate import gate
from mpm_eval.stages.gate_changes import ALPHA, detectable
from mpm_eval.stages.gate_rules import Rule, Rules
from mpm_eval.stages.gate_verdicts import Verdict
from mpm_eval.stages.pairing import Side
from mpm_eval.stages.result_schema import (
    DataIdentity,
    ModelIdentity,
    Result,
    TaskIdentity,
    ZeroShot,
)
from mpm_eval.stats import wilson
from mpm_eval.strict import write_text

RIGHT = 0.6


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table."""

    n: int  # items of a cell
    num_cells: int  # languages in the family
    redrawn: float  # share of the answers that are drawn anew
    margin: float  # points
    per_cluster: int = 1  # items that share a picture, and their luck

    def standard_error(self, drop: float) -> float:
        """Return the standard error of the change that the gate estimates, both in points.

        The true one, widened as `stats.differences` does for the clusters that differ.
        """
        right = RIGHT - drop / 100 / self.redrawn
        differing = self.redrawn * (RIGHT * (1 - right) + (1 - RIGHT) * right)
        num_clusters = self.n // self.per_cluster
        variance = (differing - (drop / 100) ** 2) / num_clusters
        return 100 * math.sqrt(variance * (1 + 2 / (differing * num_clusters)))

    def mde(self) -> float:
        """Return the drop that the gate says it finds 8 times in 10, at its own standard error."""
        drop = 0.0
        for _ in range(50):
            found = detectable(self.standard_error(drop), self.margin, self.num_cells)
            assert found is not None
            drop = found
        return drop


SETTINGS = (
    Setting(100, 1, 0.2, 10.0),
    Setting(200, 5, 0.2, 10.0),
    Setting(400, 1, 0.2, 5.0),
    Setting(400, 5, 0.2, 5.0),
    Setting(400, 15, 0.2, 5.0),
    Setting(400, 5, 0.2, 5.0, per_cluster=4),
    Setting(400, 5, 0.02, 5.0),
    Setting(1200, 5, 0.2, 5.0),
    Setting(1200, 15, 0.5, 5.0),
)


def pair(
    setting: Setting, drop: float, rng: np.random.Generator
) -> tuple[dict[str, Side], dict[str, Side]]:
    """Return a baseline and a candidate of one task per cell; the drop, in points, is in the first.

    The cells are independent, for which a correction over a family has the hardest work.
    """
    a, b = {}, {}
    for cell in range(setting.num_cells):
        right = RIGHT - (drop / 100 / setting.redrawn if cell == 0 else 0.0)
        C = setting.n // setting.per_cluster
        old_C, new_C = rng.random(C) < RIGHT, rng.random(C) < right
        both_C = np.where(rng.random(C) < setting.redrawn, new_C, old_C)
        name = f"task{cell:02}"
        a[name] = side(name, np.repeat(old_C, setting.per_cluster), setting)
        b[name] = side(name, np.repeat(both_C, setting.per_cluster), setting)
    return a, b


@cache
def item(index: int, cluster: int, hit: bool) -> Item:
    """Return an item whose output says whether it is right."""
    return Item(str(index), "zh", str(cluster), "", "", "", "", str(hit))


def side(task: str, hit_N: np.ndarray, setting: Setting) -> Side:
    """Return a result of exact_match with a row of statistics per item."""
    hits = hit_N.tolist()
    value = 100 * float(hit_N.mean())
    result = Result(
        schema_version=1,
        task=TaskIdentity(task, 1, "t", "generate", "exact_match", "", "en"),
        model=ModelIdentity("m", "m", "m", {}),
        data=DataIdentity("d", {}),
        decoding={},
        seed=0,
        limit=None,
        languages=("zh",),
        num_samples=len(hits),
        num_failed=0,
        predictions_sha256="p",
        versions={},
        zero_shot={"zh": ZeroShot("zero-shot", "")},
        scores=(Score("exact_match", "zh", value, None, len(hits), 0, True, "exact_match"),),
        skipped=(),
    )
    items = tuple(item(i, i // setting.per_cluster, hit) for i, hit in enumerate(hits))
    rows = [(float(hit), 1.0) for hit in hits]
    return Side(result, Items(items, {"exact_match": rows}, "p"), "simulated")


def simulate(setting: Setting, drop: float, pairs: int) -> list[tuple[Verdict, ...]]:
    """Return the verdicts of each pair, the cell with the drop first."""
    rng = np.random.default_rng([setting.n, setting.num_cells, round(1000 * drop)])
    rules = Rules((Rule(margin=setting.margin),))
    found = []
    for _ in range(pairs):
        a, b = pair(setting, drop, rng)
        found.append(gate(a, b, rules).verdicts)
    return found


def percent(k: int, n: int) -> str:
    """Return a share in percent with its 95 % interval."""
    low, high = wilson(k, n)
    return f"{100 * k / n:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def row(setting: Setting, pairs: int) -> str:
    """Return a line of the table: at no change, at the MDE, and at a drop of exactly the margin."""
    unchanged = simulate(setting, 0.0, pairs)
    alarms = sum(any(v.status == "regression" for v in verdicts) for verdicts in unchanged)
    first = Counter(verdicts[0].status for verdicts in unchanged)
    possible = 100 * RIGHT * setting.redrawn  # a larger drop cannot come from the redrawn answers
    mde = setting.mde() if setting.mde() < possible else None
    power = "–"
    if mde is not None:
        verdicts = simulate(setting, mde, pairs)
        power = percent(sum(v[0].status == "regression" for v in verdicts), pairs)
    passed = "–"
    if setting.margin < possible:
        verdicts = simulate(setting, setting.margin, pairs)
        passed = percent(sum(v[0].status == "passed" for v in verdicts), pairs)
    cells = [
        str(setting.n),
        str(setting.n // setting.per_cluster),
        str(setting.num_cells),
        f"{100 * setting.redrawn:g} %",
        f"{setting.margin:g}",
        percent(alarms, pairs),
        percent(first["passed"], pairs),
        percent(first["undecided"], pairs),
        "–" if mde is None else f"{mde:.1f}",
        power,
        passed,
    ]
    return f"| {' | '.join(cells)} |"


def report(pairs: int, settings: Sequence[Setting]) -> str:
    """Return the Markdown file."""
    columns = [
        "n", "clusters", "cells", "redrawn", "margin", "false alarms, any cell",
        "unchanged passes", "unchanged undecided", "MDE", "MDE found", "drop = margin passes",
    ]  # fmt: skip
    command = f"python benchmarks/gate_characteristics.py --pairs {pairs}"
    lines = [
        "# Operating characteristics of the gate",
        "",
        f"    {command} --out results/statistics/gate.md",
        "",
        f"mpm-eval {__version__}; {pairs} simulated pairs per number, exact_match at 60 points,",
        f"one-sided level {ALPHA:g}, Holm over the cells. Shares in percent with 95 % intervals;",
        "margin and MDE in points. Redrawn: answers drawn anew in the candidate, which decides how",
        "much an unchanged model differs. –: so few answers cannot make so large a drop.",
        "",
        f"| {' | '.join(columns)} |",
        f"|{'--:|' * len(columns)}",
        *(row(setting, pairs) for setting in settings),
        "",
        "Wanted: false alarms at most 5, MDE found at least 80, a drop of the margin passes in at",
        "most 5. An unchanged model that does not pass is undecided (exit 3): too few samples.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("results/statistics/gate.md"))
    arguments = parser.parse_args()
    text = report(arguments.pairs, SETTINGS)
    write_text(arguments.out, text)
    print(text)
