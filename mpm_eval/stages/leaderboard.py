"""Leaderboard: every result of a runs folder as Markdown, CSV and JSON; reads results only."""

import csv
import html
import io
import re
import shlex
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mpm_eval.errors import UserError, unknown
from mpm_eval.languages import LANGUAGES
from mpm_eval.schema import Score
from mpm_eval.stages.result_schema import Result, load_result
from mpm_eval.strict import write_json, write_text

MARKS = {
    "pivot": "P",
    "zero-shot": "Z",
    "quasi-zero-shot": "Q",
    "supervised": "S",
    "unknown": "?",
}
LEGEND = (
    "A cell is the value ± half the width of its 95 % interval, then how the model came to the "
    "language, from its training record: **P** pivot; **Z** zero-shot, no multimodal sample and no "
    "text of the task in that language; **Q** quasi-zero-shot, text only or a counted handful; "
    "**S** supervised; **?** unknown, no training record. Values and intervals are unrounded in "
    "leaderboard.csv and leaderboard.json."
)
_DIGITS = {"cider": 2}  # ranges up to 10 need a second digit; all others are out of 100
_TRANSFER = {
    "transfer_gap": (
        "Transfer gap",
        "The value in the pivot language minus the value in the language, on the same samples.",
    ),
    "retention": (
        "Retention",
        "The value in the language, in percent of that in the pivot, on the same samples.",
    ),
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One row: a result, the run it came from and the name it is shown by."""

    name: str
    run: str  # folder of the run inside the runs folder
    result: Result

    def score(self, metric: str, language: str, subset: str) -> Score | None:
        """Return the score, or None where the result has none."""
        for row in self.result.scores:
            if (row.metric, row.language, row.subset) == (metric, language, subset):
                return row
        return None


def write_leaderboard(
    runs: Path,
    out: Path,
    tasks: Sequence[str] | None = None,
    languages: Sequence[str] | None = None,
) -> list[Path]:
    """Write leaderboard.md, .csv and .json into `out`; return their paths.

    Limited runs and results of older task versions are left out, each with a reason on stderr and
    in the files. Raises UserError when nothing is left, or when two results of one task version
    were made from different task files or data: their numbers must not share a table.
    """
    entries, left_out = collect(runs, tasks)
    for reason in left_out:
        print(f"left out: {reason}", file=sys.stderr)
    rows = [row for entry in entries for row in _long_rows(entry, languages)]
    if not rows:
        raise UserError(f"{runs}: no score to show; {_hint(left_out)}")
    command = _command(runs, out, tasks, languages)
    paths = [out / f"leaderboard.{suffix}" for suffix in ("md", "csv", "json")]
    write_text(paths[0], _markdown(entries, left_out, command, languages))
    write_text(paths[1], _csv(rows))
    write_json(
        paths[2], {"schema_version": 1, "command": command, "rows": rows, "left_out": left_out}
    )
    return paths


def collect(runs: Path, tasks: Sequence[str] | None = None) -> tuple[list[Entry], list[str]]:
    """Return the rows to show, sorted by task, model and run, and why others are left out.

    Raises UserError when `runs` holds no result, `tasks` names one without a result, or results
    cannot share a table.
    """
    found = [
        (path.parent.parent.relative_to(runs).as_posix(), load_result(path))
        for path in sorted(runs.rglob("result.json"))
    ]
    if not found:
        raise UserError(f"{runs}: no result.json in it; {_hint([])}")
    known = {result.task.name for _, result in found}
    for name in tasks or ():
        if name not in known:
            raise unknown("task", name, known, f"{runs}: --task")
    left_out: list[str] = []
    by_task: dict[str, list[tuple[str, Result]]] = defaultdict(list)
    for run, result in found:
        if tasks is not None and result.task.name not in tasks:
            continue
        if result.limit is not None:
            left_out.append(
                f"{run}/{result.task.name}: limited to {result.limit} samples per language"
            )
        else:
            by_task[result.task.name].append((run, result))
    entries: list[Entry] = []
    for _, group in sorted(by_task.items()):
        kept = _newest(group, left_out)
        _require_same(kept)
        entries.extend(_named(kept))
    return entries, left_out


def _hint(left_out: Sequence[str]) -> str:
    hint = "make one with: mpm-eval run --task TASK --model MODEL"
    return f"every result is left out ({left_out[0]}); {hint}" if left_out else hint


def _newest(group: Sequence[tuple[str, Result]], left_out: list[str]) -> list[tuple[str, Result]]:
    newest = max(result.task.version for _, result in group)
    for run, result in group:
        if result.task.version != newest:
            left_out.append(
                f"{run}/{result.task.name}: version {result.task.version} of the task, "
                f"the newest is {newest}"
            )
    return [pair for pair in group if pair[1].task.version == newest]


def _require_same(group: Sequence[tuple[str, Result]]) -> None:
    aspects: list[tuple[str, Callable[[Result], str]]] = [
        ("task files", lambda result: result.task.sha256),
        ("data", lambda result: result.data.sha256),
    ]
    first_run, first = group[0]
    for what, digest in aspects:
        for run, result in group:
            if digest(result) != digest(first):
                raise UserError(
                    f"{first.task.name} version {first.task.version}: '{first_run}' and '{run}' "
                    f"were made from different {what}; run one of them again, or raise the "
                    "version in the task file"
                )


def _named(group: Sequence[tuple[str, Result]]) -> list[Entry]:
    count = Counter(result.model.name for _, result in group)
    entries = [
        Entry(
            name=result.model.name if count[result.model.name] == 1
            else f"{result.model.name} ({run})",
            run=run,
            result=result,
        )
        for run, result in group
    ]  # fmt: skip
    return sorted(entries, key=lambda e: (e.name.casefold(), e.name, e.run))


def _command(
    runs: Path, out: Path, tasks: Sequence[str] | None, languages: Sequence[str] | None
) -> str:
    """Return the command that makes the same files, with paths relative to the current folder."""
    words = ["mpm-eval", "leaderboard", "--runs", _relative(runs), "--out", _relative(out)]
    for name in tasks or ():
        words += ["--task", name]
    if languages is not None:
        words += ["--languages", ",".join(languages)]
    return shlex.join(words)


def _relative(path: Path) -> str:
    here = Path.cwd()
    resolved = path.resolve()
    return (resolved.relative_to(here) if resolved.is_relative_to(here) else path).as_posix()


def _in_order(languages: Iterable[str]) -> list[str]:
    known = list(LANGUAGES)
    return sorted(
        set(languages), key=lambda tag: (known.index(tag) if tag in known else len(known), tag)
    )


def _long_rows(entry: Entry, languages: Sequence[str] | None) -> list[dict[str, Any]]:
    task, model = entry.result.task, entry.result.model
    rows: list[dict[str, Any]] = []
    for score in entry.result.scores:
        if languages is not None and score.language not in languages:
            continue
        row = asdict(score)
        low, high = row.pop("ci95") or (None, None)
        rows.append(
            {
                "task": task.name,
                "task_version": task.version,
                "task_sha256": task.sha256,
                "data_sha256": entry.result.data.sha256,
                "model": model.name,
                "model_sha256": model.sha256,
                "run": entry.run,
                "seed": entry.result.seed,
                "main_metric": score.metric == task.main_metric,
                **row,
                "ci95_low": low,
                "ci95_high": high,
            }
        )
    return rows


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _markdown(
    entries: Sequence[Entry],
    left_out: Sequence[str],
    command: str,
    languages: Sequence[str] | None,
) -> str:
    lines = ["# Leaderboard", "", f"Made with `{command}`; do not edit by hand.", "", LEGEND, ""]
    by_task: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_task[entry.result.task.name].append(entry)
    for group in by_task.values():
        lines += _section(group, languages)
    if left_out:
        lines += ["## Left out", "", *(f"- {escape(reason)}" for reason in left_out), ""]
    return "\n".join(lines)


def _section(group: Sequence[Entry], languages: Sequence[str] | None) -> list[str]:
    task = group[0].result.task
    tags = _in_order(
        tag for e in group for tag in e.result.languages if languages is None or tag in languages
    )
    if not tags:
        return []
    lines = [f"## {escape(task.name)}", ""]
    if task.description:
        lines += [escape(task.description), ""]
    if task.kind == "probe":
        targets = [tag for tag in tags if tag != task.pivot]
        for metric in dict.fromkeys(score.metric for e in group for score in e.result.scores):
            lines += [f"### {escape(metric)}", "", *_table(group, metric, "", targets)]
        return [*lines, *_identity(group), ""]
    subset = task.main_subset
    lines += _table(group, task.main_metric, subset, tags)
    where = f", on {escape(subset)}" if subset else ""
    lines += [f"Main metric: {escape(task.main_metric)}{where}.", *_identity(group), ""]
    targets = [tag for tag in tags if tag != task.pivot]
    for metric, (title, explanation) in _TRANSFER.items():
        if any(e.score(metric, tag, subset) for e in group for tag in targets):
            lines += [f"### {title}", "", explanation, ""]
            lines += _table(group, metric, subset, targets)
    return lines


def _identity(group: Sequence[Entry]) -> list[str]:
    task, data = group[0].result.task, group[0].result.data
    return [
        f"Task version {task.version} (`{task.sha256[:12]}`), data `{data.sha256[:12]}`, "
        f"pivot {task.pivot}."
    ]


def _table(group: Sequence[Entry], metric: str, subset: str, tags: Sequence[str]) -> list[str]:
    digits = _DIGITS.get(
        group[0].result.task.main_metric if metric == "transfer_gap" else metric, 1
    )
    lines = [f"| model | {' | '.join(tags)} |", f"|---{'|--:' * len(tags)}|"]
    shown: list[tuple[str, Score]] = []
    for entry in group:
        scores = [entry.score(metric, tag, subset) for tag in tags]
        shown += [(entry.name, score) for score in scores if score]
        cells = [_cell(score, digits) for score in scores]
        lines.append(f"| {escape(entry.name)} | {' | '.join(cells)} |")
    lines += ["", *_counts(shown), ""]
    return [*lines, *_signatures(shown), ""]


def _cell(score: Score | None, digits: int) -> str:
    if score is None or score.value is None:
        return "–"
    mark = MARKS.get(score.label, "?")
    half = "" if score.ci95 is None else f" ±{(score.ci95[1] - score.ci95[0]) / 2:.{digits}f}"
    return f"{round(score.value, digits) + 0.0:.{digits}f}{half} {mark}"


def _counts(shown: Sequence[tuple[str, Score]]) -> list[str]:
    """Return n as one line where it is the same everywhere, else a line per model."""
    sizes = Counter(score.n for _, score in shown)
    failed = [(name, score) for name, score in shown if score.n_failed]
    lines = []
    if len(sizes) == 1:
        lines.append(f"n = {next(iter(sizes))} in every cell.")
    else:
        by_name: dict[str, list[str]] = defaultdict(list)
        for name, score in shown:
            by_name[name].append(f"{score.language} {score.n}")
        lines += [f"n of {escape(name)}: {', '.join(ns)}." for name, ns in by_name.items()]
    by_failed: dict[str, list[str]] = defaultdict(list)
    for name, score in failed:
        by_failed[name].append(f"{score.language} {score.n_failed}")
    lines += [
        f"Failed, not scored (n_failed) of {escape(name)}: {', '.join(ns)}."
        for name, ns in by_failed.items()
    ]
    return [line + "  " for line in lines[:-1]] + lines[-1:]


def _signatures(shown: Sequence[tuple[str, Score]]) -> list[str]:
    """Return each signature with its languages; with its models too where they disagree.

    How an interval was made depends on the values (all right, few clusters), so it comes apart.
    """
    languages: dict[str, dict[str, None]] = defaultdict(dict)
    names: dict[str, dict[str, None]] = defaultdict(dict)
    per_language: dict[str, set[str]] = defaultdict(set)
    methods: dict[str, None] = {}
    for name, score in shown:
        signature, _, method = score.signature.partition("|ci:")
        languages[signature][score.language] = None
        names[signature][name] = None
        per_language[score.language].add(signature)
        if score.ci95 is not None:
            methods[re.sub(r"\|clusters:\d+", "", method)] = None
    disagree = any(len(signatures) > 1 for signatures in per_language.values())
    lines = []
    for signature, tags in languages.items():
        which = "" if len(languages) == 1 else f" ({', '.join(_in_order(tags))})"
        who = f" of {', '.join(escape(n) for n in names[signature])}" if disagree else ""
        lines.append(f"- Signature{which}{who}: `{signature}`")
    if methods:
        lines.append(f"- Intervals: {', '.join(f'`{method}`' for method in sorted(methods))}")
    if disagree:
        lines.append("- Not all models of this table were scored with the same settings.")
    return lines


def escape(text: str) -> str:
    """Return `text` so that Markdown shows it as it is, in a table cell too."""
    plain = html.escape(" ".join(text.split()), quote=False)
    marked = re.sub(r"([\\`*\[\]|~])", r"\\\1", plain)
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", marked)
