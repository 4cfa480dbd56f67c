"""The card of a point: what its checkpoints are, what they saw, and the labels that follow."""

from collections.abc import Sequence

from mpm_eval.stages.leaderboard.markdown import code, escape
from mpm_eval.stages.study.definition import Point, Study
from mpm_eval.stages.study.folders import Outcome


def to_card(study: Study, point: Point, outcomes: Sequence[Outcome], command: str) -> str:
    """Return Markdown: the recipe, then per seed the hashes, the training record and the labels.

    `command` is the one that runs the study.
    """
    overrides = [*study.overrides, *point.overrides]
    changed = ", ".join(map(code, overrides)) or "nothing changed"
    lines = [
        f"# {escape(study.name)}: {escape(point.name)}",
        "",
        f"Recipe {code(study.recipe)}, {changed}. The weights are not kept with the study; "
        f"{code(f'{command} --points {point.name}')} makes them again.",
        "",
    ]
    for outcome in outcomes:
        lines += [f"## Seed {outcome.seed}", ""]
        lines += [f"- Recipe: {code(outcome.recipe_sha256)}"]
        lines += [f"- Checkpoint: {code(outcome.checkpoint_sha256)}", ""]
        lines += _stages(outcome)
        lines += ["| language | label | evidence |", "|---|---|---|"]
        lines += [
            f"| {escape(tag)} | {one.label} | {escape(one.evidence)} |"
            for tag, one in outcome.zero_shot.items()
        ]
        lines.append("")
    return "\n".join(lines)


def _stages(outcome: Outcome) -> list[str]:
    lines = [
        "| stage | steps | trained | validation loss | multimodal samples | text samples |",
        "|---|--:|---|--:|---|---|",
    ]
    for stage in outcome.record.stages:
        loss = stage.losses.get("validation")
        cells = [
            escape(stage.name),
            str(stage.steps),
            escape(", ".join(stage.trained)) or "–",
            "–" if loss is None else f"{loss:.3f}",
            *(
                ", ".join(f"{escape(tag)} {count}" for tag, count in sorted(counts.items())) or "–"
                for counts in (stage.multimodal_samples, stage.text_samples)
            ),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]
