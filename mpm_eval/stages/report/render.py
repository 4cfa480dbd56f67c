"""Render: the page from its parts, with a policy that lets nothing but its own script run."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpm_eval import __version__
from mpm_eval.errors import UserError
from mpm_eval.stages.report import tables
from mpm_eval.stages.report.data import browser_data
from mpm_eval.stages.report.gather import Gathered, gather
from mpm_eval.stages.report.judges import judge_health
from mpm_eval.stages.report.plots import plots
from mpm_eval.stages.report.samples import TaskSamples, pick, shares, task_samples
from mpm_eval.stages.report.sheets import sheets
from mpm_eval.strict import write_text

if TYPE_CHECKING:
    from jinja2 import Environment

NUM_SAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Written:
    """The report's file and what it shows."""

    path: Path
    num_bytes: int
    num_samples: int
    num_samples_left_out: int


def write_report(
    folders: Sequence[Path],
    out: Path | None = None,
    num_samples: int = NUM_SAMPLES,
    tasks: Sequence[str] | None = None,
    languages: Sequence[str] | None = None,
) -> Written:
    """Write the report of runs as one HTML file, by default report.html in the first run.

    At most `num_samples` samples are shown, shared evenly between the tasks. The same runs give
    the same bytes. Raises UserError as `gather` does; samples that can no longer be read are
    left out and the page says why.
    """
    if num_samples < 0:
        raise UserError("--samples: must be 0 or more")
    gathered = gather(folders, tasks, languages)
    known = [task_samples(gathered, name) for name in gathered.tasks]
    given = shares([task.total for task in known], num_samples)
    picked = [pick(task, number) for task, number in zip(known, given, strict=True)]
    html = render(gathered, picked)
    path = out or folders[0] / "report.html"
    write_text(path, html)
    shown = sum(given)
    return Written(path, len(html.encode()), shown, sum(task.total for task in known) - shown)


def render(gathered: Gathered, samples: Sequence[TaskSamples]) -> str:
    """Return the HTML of a report."""
    from markupsafe import Markup

    runs = [run.name for run in gathered.runs]
    shown = [task for task in samples if task.groups]
    data, limit = browser_data(shown, runs, gathered.languages)
    script, style = _own("report.js"), _own("report.css")
    template = _environment().get_template("report.html.j2")
    return template.render(
        policy=_policy(script, style),
        script=Markup(script),
        style=Markup(style),
        data=Markup(data),
        text_limit=limit,
        version=__version__,
        runs=gathered.runs,
        languages=[(tag, *tables.language_name(tag)) for tag in gathered.languages],
        matrix=tables.matrix(gathered),
        plots=[(plot, Markup(plot.svg)) for plot in plots(gathered)],
        scores=[
            (name, run.name, side.result, tables.score_rows(side.result, gathered.languages))
            for name in gathered.tasks
            for _, run, side in gathered.of_task(name)
        ],
        sheets=sheets(gathered),
        judges=judge_health(gathered),
        samples=samples,
        shown=shown,
        evidence=tables.evidence(gathered),
        provenance=[_provenance(gathered, i) for i in range(len(gathered.runs))],
    )


def _provenance(gathered: Gathered, number: int) -> dict[str, Any]:
    run = gathered.runs[number]
    return {
        "name": run.name,
        "model": tables.identity(run),
        "commands": tables.commands(run),
        "tasks": [(name, tables.task_identity(side.result)) for name, side in run.tasks.items()],
    }


def _environment() -> "Environment":
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    return Environment(
        loader=FunctionLoader(_own),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )


def _visible(value: Any) -> Any:
    """Return a text without control characters: nothing a file says can turn the page's text."""
    from markupsafe import Markup

    from mpm_eval.stages.show import plain

    if isinstance(value, str) and not isinstance(value, Markup):
        return plain(value).plain
    return value


def _own(name: str) -> str:
    """Return the text of a file of this package."""
    folder = files("mpm_eval.stages.report") / "templates"
    return (folder / name).read_text(encoding="utf-8")


def _policy(script: str, style: str) -> str:
    """Return the Content-Security-Policy: only this script, this style, pictures in the file."""
    return (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"
