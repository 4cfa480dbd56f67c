"""Card: the results of a model in the front matter of its card, as the Hugging Face Hub reads them.

The format is `model-index` of
https://github.com/huggingface/hub-docs/blob/main/modelcard.md?plain=1.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mpm_eval.cards import MODEL_INDEX, front_matter_span, load_card, without_results
from mpm_eval.errors import UserError
from mpm_eval.languages import LANGUAGES
from mpm_eval.results import Found, read_results
from mpm_eval.schema import Score
from mpm_eval.strict import write_bytes

_CARD = "README.md"
_TASK_TYPES = {"probe": "feature-extraction", "paint": "text-to-image"}  # kind -> the Hub's word


def write_card(name: str, runs: Path, check: bool = False) -> tuple[Path, int]:
    """Write the results of the model `name` into its card; return the card and their number.

    A result is the main metric of a task in one language, of unlimited runs without a control
    below `runs`. Every other byte of the card stays as it is. With `check` nothing is written and
    a UserError is raised where the card would change. Raises UserError for an unknown card, a
    model without results, results of different weights or two of one task, a front matter that
    the Hub would refuse, and when huggingface_hub is not installed.
    """
    path = Path(load_card(name).path) / _CARD
    index, number = model_index(name, runs)
    old = path.read_bytes()
    new = _with_results(old, index, path)
    _validate(new.decode("utf-8-sig"), number, path)
    if new != old:
        if check:
            raise UserError(
                f"{path}: its results are not those in {runs}; "
                f"write them with: mpm-eval card {name}"
            )
        write_bytes(path, new)
    return path, number


def model_index(name: str, runs: Path) -> tuple[list[dict[str, Any]], int]:
    """Return `model-index` from the results of a model, and the number of values in it.

    Sorted by task, then in the task's order of languages. Raises UserError as `write_card`.
    """
    found = _newest(
        [
            one
            for one in read_results(runs)
            if one.result.model.name == name and one.result.limit is None
            and not one.result.control
        ]
    )  # fmt: skip
    if not found:
        raise UserError(
            f"{runs}: no unlimited run of model '{name}'; make one with: "
            f"mpm-eval run --task TASK --model {name}"
        )
    first = found[0]
    for one in found[1:]:
        if one.result.model.sha256 != first.result.model.sha256:
            raise UserError(
                f"{runs}: '{first.folder}' and '{one.folder}' are results of different weights "
                f"of '{name}'; run one of them again"
            )
    rows = [_result(one, score) for one in found for score in _main_scores(one)]
    return [{"name": name, "results": rows}], len(rows)


def _newest(found: Sequence[Found]) -> list[Found]:
    """Return the results of each task's newest version, by task; UserError for two of one task."""
    by_task: dict[str, Found] = {}
    for one in found:
        task = one.result.task
        other = by_task.get(task.name)
        if other is None or other.result.task.version < task.version:
            by_task[task.name] = one
        elif other.result.task.version == task.version:
            raise UserError(
                f"'{other.folder}' and '{one.folder}' are two results of one model and task; "
                "say with --runs which of them belongs in the card"
            )
    return [by_task[name] for name in sorted(by_task)]


def _main_scores(found: Found) -> list[Score]:
    task = found.result.task
    scores = {
        score.language: score
        for score in found.result.scores
        if (score.metric, score.subset) == (task.main_metric, task.main_subset)
        and score.value is not None
    }
    return [scores[tag] for tag in found.result.languages if tag in scores]


def _result(found: Found, score: Score) -> dict[str, Any]:
    task = found.result.task
    assert score.value is not None
    about = [score.metric, *([score.subset] if score.subset else []), score.label]
    if score.ci95 is not None:
        about.append(f"95 % interval {score.ci95[0]:.2f} to {score.ci95[1]:.2f}")
    about.append(f"n = {score.n}")
    if score.n_failed:
        about.append(f"failed {score.n_failed}")
    language = LANGUAGES.get(score.language, (score.language, ""))[0]
    kind = _TASK_TYPES.get(task.kind, "image-text-to-text")
    return {
        "task": {"type": kind},
        "dataset": {
            "type": task.name,
            "name": f"{task.name}, {language}",
            "config": score.language,
            "revision": task.sha256,
        },
        "metrics": [
            {"type": score.metric, "value": round(score.value, 2), "name": ", ".join(about)}
        ],
    }


def _with_results(card: bytes, index: list[dict[str, Any]], path: Path) -> bytes:
    """Return the card with `model-index` as the last key of its front matter."""
    import yaml

    plain = without_results(card)
    span = front_matter_span(plain)
    if span is None:
        raise UserError(f"{path}: no front matter; start the card with '---', YAML and '---'")
    start, end = span
    if MODEL_INDEX in (yaml.safe_load(plain[start:end]) or {}):
        raise UserError(
            f"{path}: {MODEL_INDEX}: written in a way that cannot be replaced; remove it"
        )
    text = yaml.safe_dump({MODEL_INDEX: index}, sort_keys=False, allow_unicode=True, width=10_000)
    if plain[start:end].endswith(b"\r\n"):
        text = text.replace("\n", "\r\n")
    return plain[:end] + text.encode() + plain[end:]


def _validate(text: str, number: int, path: Path) -> None:
    """Raise UserError unless the Hub's own reader finds all the results."""
    try:
        from huggingface_hub import ModelCard
    except ImportError:
        raise UserError(
            "the Hub's reader of cards is not installed; install it with: "
            "pip install 'mpm-eval[hub]'"
        ) from None
    try:
        results = getattr(ModelCard(text).data, "eval_results", None) or []
    except (ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: the Hub would refuse this front matter: {reason}") from None
    if len(results) != number:
        raise UserError(
            f"{path}: the Hub would find {len(results)} results instead of {number}; "
            "is every key of the front matter in the Hub's format?"
        )
