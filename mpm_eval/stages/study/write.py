"""Write what a study found: table, plot, cards and the file for programs."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from mpm_eval import __version__
from mpm_eval.stages.study.card import to_card
from mpm_eval.stages.study.definition import Study
from mpm_eval.stages.study.folders import SCHEMA_VERSION, STUDIES, Folders, Outcome
from mpm_eval.stages.study.plan import DONE, Planned, evaluation_sha256
from mpm_eval.stages.study.plot import to_svg
from mpm_eval.stages.study.table import Outcomes, missing_runs, rows_of, to_csv, to_markdown
from mpm_eval.strict import canonical_sha256, to_jsonable, write_json, write_text


def write_study(
    study: Study, planned: Sequence[Planned], folders: Folders, spec: str
) -> list[Path]:
    """Write table.md, table.csv, plot.svg, study.json and a card per point; return their paths.

    `planned` is the plan of the whole study; `spec` is how the study was asked for. The same
    outcomes give the same bytes; runs that are missing are named. Without an outcome nothing is
    written and the list is empty.
    """
    outcomes: dict[str, list[Outcome]] = {point.name: [] for point in study.points}
    for run in planned:
        if run.state == DONE and run.outcome is not None:
            outcomes[run.point.name].append(run.outcome)
    if not any(outcomes.values()):
        return []
    rows = rows_of(study, outcomes)
    command = _command(spec, folders.root)
    own = folders.own
    paths = [own / name for name in ("table.md", "table.csv", "plot.svg", "study.json")]
    write_text(paths[0], to_markdown(study, rows, outcomes, command))
    write_text(paths[1], to_csv(rows))
    write_text(paths[2], to_svg(study, rows))
    write_json(paths[3], _content(study, outcomes, command, [to_jsonable(row) for row in rows]))
    for point in study.points:
        if outcomes[point.name]:
            path = folders.card(point.name)
            write_text(path, to_card(study, point, outcomes[point.name], command))
            paths.append(path)
    return paths


def _content(
    study: Study, outcomes: Outcomes, command: str, rows: Sequence[object]
) -> dict[str, object]:
    found = [outcome for members in outcomes.values() for outcome in members]
    return {
        "schema_version": SCHEMA_VERSION,
        "command": command,
        "definition": study,
        "definition_sha256": canonical_sha256(study),
        "evaluation_sha256": evaluation_sha256(study),
        "runs": [
            {
                "point": outcome.point,
                "seed": outcome.seed,
                "overrides": outcome.overrides,
                "recipe_sha256": outcome.recipe_sha256,
                "checkpoint_sha256": outcome.checkpoint_sha256,
                "labels": {tag: one.label for tag, one in outcome.zero_shot.items()},
                "versions": outcome.versions,
            }
            for outcome in found
        ],
        "missing": missing_runs(study, outcomes),
        "rows": rows,
        "versions": {"mpm-eval": __version__},
    }


def _command(spec: str, root: Path) -> str:
    words = ["mpm-eval", "study", spec]
    if root != STUDIES:
        words += ["--out", root.as_posix()]
    return shlex.join(words)
