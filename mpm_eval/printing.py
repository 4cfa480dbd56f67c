"""Tables on stdout: boxes and width on a terminal, plain lines elsewhere."""

from collections.abc import Mapping, Sequence
from typing import Any

MARKS = {
    "pivot": "pivot",
    "zero-shot": "zero-shot",
    "quasi-zero-shot": "quasi",
    "supervised": "superv.",
    "unknown": "?",
}


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows that share their keys; nothing a file or a model wrote is taken as markup."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not rows:
        console.print("none")
        return
    cells = [[_text(value) for value in row.values()] for row in rows]
    if not console.is_terminal:
        widths = [max(map(len, column)) for column in zip(list(rows[0]), *cells, strict=True)]
        for line in [list(rows[0]), *cells]:
            text = "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True))
            print(text.rstrip())
        return
    table = Table(box=None, pad_edge=False)
    for key in rows[0]:
        table.add_column(key, overflow="fold")
    for line in cells:
        table.add_row(*(Text(cell) for cell in line))
    console.print(table)


def print_results(results: Sequence[Mapping[str, Any]]) -> None:
    """Print each task's main score per language: value, half-width, n, failures, label."""
    rows: list[dict[str, Any]] = []
    for result in results:
        task = result["task"]
        for row in result["scores"]:
            main = row["metric"] == task["main_metric"] and row["subset"] == task["main_subset"]
            transfer = (
                row["metric"] in ("retention", "transfer_gap")
                and row["subset"] == task["main_subset"]
            )
            if not (main or transfer):
                continue
            # another program's metric is often on a scale from 0 to 1
            digits = 3 if row["metric"].startswith("mean:") else 1
            rows.append(
                {
                    "task": task["name"],
                    "metric": row["metric"],
                    "language": row["language"],
                    "value": _number(row["value"], digits),
                    "95 % interval": _interval(row["ci95"], digits),
                    "n": row["n"],
                    "failed": row["n_failed"],
                    "label": row["label"],
                }
            )
    print_table(rows)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _interval(ci95: Sequence[float] | None, digits: int) -> str:
    return "-" if ci95 is None else f"{ci95[0]:.{digits}f} to {ci95[1]:.{digits}f}"


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        shown = [str(item) for item in value]
        return (
            " ".join(shown)
            if len(shown) <= 6
            else f"{' '.join(shown[:5])} and {len(shown) - 5} more"
        )
    return str(value)
