"""Notes: what stands below a table: counts, ranks, power, signatures."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mpm_eval.schema import Score
from mpm_eval.stages.leaderboard.collect import MODEL, TOLD, Entry
from mpm_eval.stages.leaderboard.standings import MEAN, Standings

Shown = Sequence[tuple[str, Score]]  # name of the row, score


@dataclass(frozen=True, slots=True)
class Note:
    """A line of text, then something exact or an address."""

    text: str
    code: str = ""
    url: str = ""


def main_notes(group: Sequence[Entry], found: Standings, digits: int) -> Iterator[Note]:
    """Yield what the table of the main metric needs to be read."""
    task, data = group[0].result.task, group[0].result.data
    where = f", on {task.main_subset}" if task.main_subset else ""
    yield Note(
        f"Main metric: {task.main_metric}{where}. Task version {task.version} "
        f"({task.sha256[:12]}), data {data.sha256[:12]}, pivot {task.pivot or 'none'}."
    )
    if len(found.targets) > 1:
        yield Note(
            f"Mean: unweighted, over {', '.join(found.targets)}. Worst: the worst value of these."
        )
    if found.ranks.get(found.ranked_by):
        by = "mean" if found.ranked_by == MEAN else f"value in {found.ranked_by}"
        yield Note(f"Rank: by the {by}, of {found.num_models} models.")
    for entry in group:
        reason = found.rows[entry.folder].no_rank
        if reason and entry.role in (MODEL, TOLD):
            yield Note(f"No rank: {entry.name} ({reason}).")
    if found.detectable is not None:
        yield Note(_power(found, digits))
    unrecorded = [e.name for e in group if not e.result.decoding and task.kind != "probe"]
    if unrecorded:
        yield Note(f"Decoding not recorded: {', '.join(unrecorded)}.")


def notes_of(shown: Shown) -> list[Note]:
    """Return counts, failures, signatures and how the intervals were made."""
    return [*_counts(shown), *_signatures(shown)]


def _power(found: Standings, digits: int) -> str:
    by = "means" if found.ranked_by == MEAN else f"values in {found.ranked_by}"
    start = (
        f"Minimum detectable difference of two {by} (80 % power at 0.05): "
        f"{found.detectable:.{digits}f}"
    )
    if found.num_models == 1:
        return (
            f"{start}, from the one model's standard error times √2; two models on the same "
            "samples usually need less."
        )
    num_pairs = found.num_models * (found.num_models - 1) // 2
    which = f"the median of {num_pairs} pairs" if num_pairs > 1 else "from the one pair"
    return f"{start}, {which}, before the correction for several comparisons."


def _counts(shown: Shown) -> Iterator[Note]:
    """Yield n as one line where it is the same everywhere, else a line per row."""
    sizes = Counter(score.n for _, score in shown)
    if len(sizes) == 1:
        yield Note(f"n = {next(iter(sizes))} in every cell.")
    else:
        yield from _by_name("n", [(name, score, score.n) for name, score in shown])
    failed = [(name, score, score.n_failed) for name, score in shown if score.n_failed]
    yield from _by_name("Failed, not scored (n_failed)", failed)


def _by_name(what: str, rows: Sequence[tuple[str, Score, int]]) -> Iterator[Note]:
    by_name: dict[str, dict[str, int]] = defaultdict(dict)
    for name, score, number in rows:
        by_name[name][score.language] = number
    for name, numbers in by_name.items():
        each = ", ".join(f"{language} {number}" for language, number in numbers.items())
        if len(numbers) > 1 and len(set(numbers.values())) == 1:
            each = f"{', '.join(numbers)} {next(iter(numbers.values()))} each"
        yield Note(f"{what} of {name}: {each}.")


def _signatures(shown: Shown) -> Iterator[Note]:
    """Yield each signature with its languages; with its models too where they disagree.

    How an interval was made depends on the values (all right, few clusters), so it comes apart.
    """
    languages: dict[str, dict[str, None]] = defaultdict(dict)
    names: dict[str, dict[str, None]] = defaultdict(dict)
    per_language: dict[str, set[str]] = defaultdict(set)
    methods: set[str] = set()
    for name, score in shown:
        signature, _, method = score.signature.partition("|ci:")
        languages[signature][score.language] = None
        names[signature][name] = None
        per_language[score.language].add(signature)
        if score.ci95 is not None and method:
            methods.add(re.sub(r"\|clusters:\d+", "", method))
    disagree = any(len(signatures) > 1 for signatures in per_language.values())
    for signature, tags in languages.items():
        which = "" if len(languages) == 1 else f" ({', '.join(tags)})"
        who = f" of {', '.join(names[signature])}" if disagree else ""
        yield Note(f"Signature{which}{who}:", code=signature)
    for method in sorted(methods):
        yield Note("Intervals:", code=method)
