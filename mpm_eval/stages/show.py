"""Show: one run in the terminal: labels, scores, transfer, sample predictions, failures."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mpm_eval.errors import UserError
from mpm_eval.metrics import load_metric
from mpm_eval.schema import Prediction, Score
from mpm_eval.stages.paint import IMAGES
from mpm_eval.stages.result_schema import Result, load_result
from mpm_eval.stages.rows import TRANSFER_METRICS, Joined
from mpm_eval.stages.run_folder import chosen_folders, join, open_task_folder
from mpm_eval.store import read_predictions

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from mpm_eval.stages.lost import LostList

NUM_SAMPLES = 10
MAX_FAILURES = 20
MAX_CHARACTERS = 60

# metric that says of one sample whether it is right; other kinds have no answers to read
_VERDICT_METRICS = {
    "choose": "accuracy",
    "generate": "exact_match",
    "retrieve": "recall_at_1",
}
_WITHOUT_ANSWERS = ("probe", "paint")  # kinds: nothing to read beside a reference


# note -> what it says beside the score
_SHOWN_NOTES = {
    "fidelity_reference_error": "of the references, fidelity takes for another language {:.1f} %",
    "worst_prompt": "with the worst of the prompts, {:.1f} %",
    "prompt_spread": "between the best and the worst prompt, {:.1f} %",
    "scorer_accuracy": "{metric}: the scorer itself is right on {:.1f} % of held-out pictures",
    "different_clusters": "{metric}: pictures of different things reach {:.1f}",
    "biased_value": "{metric}: at this number of pictures {:.2f}",
    "infinity": "{metric}: extrapolated to unlimited pictures {:.2f}",
}


def print_lost(lists: "Sequence[LostList]", console: "Console") -> None:
    """Print what is lost in translation: counts, then one line per sample."""
    for found in lists:
        share = f"{len(found.lost)} of {found.num_right_in_pivot}"
        head = f"{found.task}, {found.language}: {share} right in the pivot language are lost"
        console.print(plain(head), style="bold")
        table = _table(console, "sample", "pivot answer", "answer", "reference")
        for one in found.lost:
            cells = (one.id, one.pivot_output, one.output, one.reference)
            table.add_row(*(plain(cell, MAX_CHARACTERS) for cell in cells))
        if found.lost:
            console.print(table)


def print_run(run: Path, console: "Console", tasks: Sequence[str] | None = None) -> None:
    """Print every task of a scored run, or those of `tasks`.

    Text of models and data is shown as it is, without markup or control characters. Raises
    UserError when the run has not been scored.
    """
    for folder in chosen_folders(run, tasks):
        path = folder / "result.json"
        if not path.is_file():
            raise UserError(f"{folder}: not scored yet; score it with: mpm-eval score {run}")
        result = load_result(path)
        _print_head(result, console)
        _print_labels(result, console)
        _print_scores(result, console)
        if result.task.kind == "paint":
            _print_painted(folder, run, result, console)
        if result.task.kind not in _WITHOUT_ANSWERS:
            _print_predictions(folder, result, console)


def _print_head(result: Result, console: "Console") -> None:
    limit = "" if result.limit is None else f", limited to {result.limit} samples per language"
    console.print(plain(f"{result.task.name} (version {result.task.version})"), style="bold")
    console.print(plain(f"model {result.model.name} ({result.model.sha256[:12]})"))
    console.print(
        plain(
            f"{result.num_samples} samples, {result.num_failed} failed, seed {result.seed}{limit}"
        )
    )


def _print_labels(result: Result, console: "Console") -> None:
    table = _table(console, "language", "label", "evidence")
    for language in result.languages:
        status = result.zero_shot[language]
        table.add_row(plain(language), plain(status.label), plain(status.evidence))
    console.print(table)


def _print_scores(result: Result, console: "Console") -> None:
    table = _table(console, "metric", "subset", "language", "value", "95 %", "n", "failed")
    transfer = _table(console, "transfer", "subset", "language", "value", "95 %", "n", "failed")
    for score in filter(partial(_is_shown, result), result.scores):
        target = transfer if score.metric in TRANSFER_METRICS else table
        target.add_row(*map(plain, _score_cells(score)))
    console.print(table)
    if transfer.row_count:
        console.print(transfer)
    for note in result.notes:
        shown = note.subset in ("", result.task.main_subset) and note.name in _SHOWN_NOTES
        if shown and note.value is not None:
            text = _SHOWN_NOTES[note.name].format(note.value, metric=note.metric)
            console.print(plain(f"{note.language}: {text}"))
    for skipped in result.skipped:
        console.print(plain(f"{skipped.metric}, {skipped.language}: not scored, {skipped.reason}"))


def _is_shown(result: Result, score: Score) -> bool:
    # every metric in every subset is hundreds of rows; result.json has them
    if score.subset in ("", result.task.main_subset):
        return True
    return score.metric == result.task.main_metric and result.task.kind != "probe"


def _score_cells(score: Score) -> list[str]:
    value = "–" if score.value is None else f"{score.value:.2f}"
    interval = "–" if score.ci95 is None else f"{score.ci95[0]:.2f} to {score.ci95[1]:.2f}"
    return [
        score.metric,
        score.subset or "all",
        score.language,
        value,
        interval,
        str(score.n),
        str(score.n_failed) if score.n_failed else "",
    ]


def _print_predictions(folder: Path, result: Result, console: "Console") -> None:
    try:
        joined = [j for members in join(open_task_folder(folder)).values() for j in members]
    except UserError as error:
        # the scores are still those of the run; only its samples can no longer be read
        console.print(plain(f"samples not shown: {error}"))
        return
    table = _table(console, "", "sample", "language", "prediction", "reference")
    for member in _spread([j for j in joined if not j.failed], NUM_SAMPLES):
        sample = member.sample
        table.add_row(
            plain(verdict(member, result.task.kind)),
            plain(sample.id),
            plain(sample.language),
            plain(_answer(member), MAX_CHARACTERS),
            plain(sample.references[0], MAX_CHARACTERS),
        )
    console.print(table)
    _print_failed([j.prediction for j in joined if j.failed], console)


def _print_painted(folder: Path, run: Path, result: Result, console: "Console") -> None:
    """Say where the pictures are and which failed: a terminal shows none."""
    console.print(
        plain(f"pictures: {folder / IMAGES}; see them with: mpm-eval contact-sheet {run}")
    )
    predictions = read_predictions(folder / "predictions.jsonl")
    _print_failed([p for p in predictions if p.error], console)


def _print_failed(failed: Sequence[Prediction], console: "Console") -> None:
    for prediction in failed[:MAX_FAILURES]:
        line = f"failed: {prediction.id} ({prediction.language}): {prediction.error}"
        console.print(plain(line, 4 * MAX_CHARACTERS))
    if len(failed) > MAX_FAILURES:
        console.print(f"failed: {len(failed) - MAX_FAILURES} more", highlight=False)


def verdict(member: Joined, kind: str) -> str:
    """Return "✓" for a right answer, "✗" for a wrong one, "" where it is not right or wrong."""
    metric = load_metric(_VERDICT_METRICS[kind])
    item = member.item
    if not item.closed or not metric.applies(item):
        return ""
    value = float(metric.aggregate(metric.statistics([item], item.language).sum(axis=0)))
    return "✓" if value == metric.range[1] else "✗"


def _answer(member: Joined) -> str:
    from mpm_eval.metrics.choice import choose

    scores = member.prediction.option_scores
    return member.sample.options[choose(member.item)] if scores else member.prediction.output


def _spread(joined: Sequence[Joined], number: int) -> list[Joined]:
    """Return at most `number` members, evenly spaced."""
    if len(joined) <= number:
        return list(joined)
    return [joined[i * len(joined) // number] for i in range(number)]


def _table(console: "Console", *columns: str) -> "Table":
    from rich import box
    from rich.table import Table

    # lines and bold are for eyes; a pipe gets columns of words
    table = Table(box=box.SIMPLE if console.is_terminal else None, pad_edge=False, show_edge=False)
    for column in columns:
        right = column in ("value", "n", "failed")
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    return table


def plain(text: str, width: int | None = None) -> "Text":
    """Return `text` on one line, cut to `width`; markup is not read, controls are replaced."""
    from rich.text import Text

    line = " ".join(text.split())
    shown = "".join("\N{REPLACEMENT CHARACTER}" if _controls(c) else c for c in line)
    if width is not None and len(shown) > width:
        shown = shown[: width - 1] + "…"
    return Text(shown)


def _controls(character: str) -> bool:
    # joiners (category Cf) stay: Hindi, Arabic and emoji need them
    from unicodedata import bidirectional, category

    overrides = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    return category(character) in ("Cc", "Cs") or bidirectional(character) in overrides
