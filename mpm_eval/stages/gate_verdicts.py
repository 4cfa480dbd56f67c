"""What a gate says: one verdict per score or cost, and the report with its exit code."""

from dataclasses import dataclass

STATUSES = ("passed", "undecided", "regression")  # the worst one last
EXIT_CODES = {"passed": 0, "regression": 1, "undecided": 3}


@dataclass(frozen=True, slots=True)
class Verdict:
    """One score, or one cost of a task, and whether it is worse than allowed."""

    task: str
    metric: str
    language: str  # "" for a cost
    status: str  # one of STATUSES
    reason: str  # one line
    label: str = ""  # of the baseline
    baseline: float | None = None
    candidate: float | None = None
    change: float | None = None  # from baseline to candidate; positive is better
    lower: float | None = None  # one-sided 95 % bound of the change
    margin: float | None = None  # allowed drop, on the metric's scale
    detectable: float | None = None  # smallest drop that is found 8 times in 10
    p_value: float | None = None  # one-sided, of a drop, Holm-adjusted
    n: int = 0  # samples compared
    num_clusters: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """All verdicts of one gate, in the order of tasks, metrics and languages."""

    baseline: str
    candidate: str
    verdicts: tuple[Verdict, ...]
    warnings: tuple[str, ...]
    num_cells: int  # scores that the correction for multiple testing counts
    alpha: float
    seed: int  # of the bootstrap

    @property
    def status(self) -> str:
        """Return the worst status: a regression anywhere, else anything undecided."""
        return max((v.status for v in self.verdicts), key=STATUSES.index, default="undecided")

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.status]
