"""Content with the language ignored: is the answer right in any language of the run?"""

from dataclasses import dataclass
from pathlib import Path

from mpm_eval.normalise import normalise
from mpm_eval.stages.run_folder import join, open_task_folder


@dataclass(frozen=True, slots=True)
class Share:
    """A percentage with its counts."""

    value: float | None  # 0 to 100; None: no sample was answered
    n: int
    n_failed: int


def content(task_folder: Path, subset: str) -> dict[str, Share]:
    """Return, by language asked, the share of outputs that equal a reference in any language.

    The references are those of the same id in all languages of the run, normalised as exact_match
    does. A right answer in the wrong language counts: together with fidelity this tells "does not
    know" from "answers in another language". Raises UserError as `open_task_folder` and `join` do.
    """
    joined = join(open_task_folder(task_folder))
    references: dict[str, dict[str, set[str]]] = {}  # id -> language -> normalised
    for tag, members in joined.items():
        for one in members:
            found = {normalise(text, tag) for text in one.sample.references}
            references.setdefault(one.sample.id, {})[tag] = found
    shares: dict[str, Share] = {}
    for language, members in joined.items():
        inside = [one for one in members if one.within(subset)]
        answered = [one for one in inside if not one.failed]
        num_right = sum(
            _is_right(one.prediction.output, references[one.sample.id]) for one in answered
        )
        value = 100 * num_right / len(answered) if answered else None
        shares[language] = Share(value, len(answered), len(inside) - len(answered))
    return shares


def _is_right(output: str, references: dict[str, set[str]]) -> bool:
    # normalised once per language: each drops its own articles
    return any(
        bool(text := normalise(output, tag)) and text in known for tag, known in references.items()
    )
