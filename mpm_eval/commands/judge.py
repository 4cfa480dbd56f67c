"""Judge: from predictions to judgements and scores."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mpm_eval.commands.options import Json, print_json, print_results
from mpm_eval.errors import UserError

if TYPE_CHECKING:
    from mpm_eval.judging.budget import Budget
    from mpm_eval.stages.judge import Outcome

_SHOWN_FAILURES = 3


Spec = Annotated[
    str,
    typer.Option(
        "--judge",
        metavar="JUDGE",
        help="openai:BASE_URL#MODEL (key: MPM_EVAL_JUDGE_KEY or OPENAI_API_KEY in the "
        "environment), hf:FOLDER_OR_ID, or embedded (nearness to the reference, no language "
        "model).",
    ),
]
Judged = Annotated[
    list[str] | None,
    typer.Option("--task", metavar="TASK", help="Task of the run [all judged ones]; repeats."),
]
Mode = Annotated[
    str, typer.Option(metavar="llava|robust", help="The paper's protocol, or both orders.")
]
Repeats = Annotated[int, typer.Option(help="Ask each question so often; mode robust.")]
Human = Annotated[
    Path | None,
    typer.Option(help="JSONL of id, language, score: agreement with these is measured."),
]
Concurrency = Annotated[int, typer.Option(min=1, help="Requests at a time.")]
Timeout = Annotated[float, typer.Option(min=0.1, help="Seconds for one reply.")]
Tries = Annotated[int, typer.Option(min=1, help="Tries of one request.")]
MaxTokens = Annotated[int | None, typer.Option(min=1, help="Longest reply [1024].")]
MaxRequests = Annotated[int | None, typer.Option(help="Stop before more tries.")]
MaxTotalTokens = Annotated[int | None, typer.Option(help="Stop before more tokens.")]
MaxCost = Annotated[float | None, typer.Option(help="Stop before more dollars.")]
PriceIn = Annotated[float | None, typer.Option(help="Dollars per million tokens, prompt.")]
PriceOut = Annotated[float | None, typer.Option(help="Dollars per million tokens, reply.")]


def judge(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    spec: Spec = "embedded",
    task: Judged = None,
    mode: Mode = "llava",
    repeats: Repeats = 1,
    human: Human = None,
    concurrency: Concurrency = 4,
    timeout: Timeout = 120.0,
    tries: Tries = 6,
    max_tokens: MaxTokens = None,
    max_requests: MaxRequests = None,
    max_total_tokens: MaxTotalTokens = None,
    max_cost: MaxCost = None,
    price_in: PriceIn = None,
    price_out: PriceOut = None,
    as_json: Json = False,
) -> None:
    """Let a judge score a run's answers.

    What is judged is kept: after any stop the same command continues. Failures are counted, never
    scored; a score names its judge and mode.

    Example: mpm-eval judge results/runs/mpm-tiny --judge openai:http://localhost:8000/v1#my-model
    """
    from mpm_eval.endpoint import Patience
    from mpm_eval.judging.judges import open_judge
    from mpm_eval.judging.quality import read_human
    from mpm_eval.progress import SampleProgress
    from mpm_eval.stages.judge import judge_run, judged_folders

    judged_folders(run_folder, task)  # before a large judge is loaded
    budget = _budget(max_requests, max_total_tokens, max_cost, price_in, price_out)
    scores = read_human(human) if human else None
    asked = open_judge(spec, Patience(timeout, tries, concurrency), budget)
    with SampleProgress() as progress:
        outcomes = judge_run(
            run_folder, asked, mode=mode, repeats=repeats, max_reply_tokens=max_tokens,
            tasks=task, human=scores, progress=progress,
        )  # fmt: skip
    _print(run_folder, outcomes, as_json)
    _stop_if_unfinished(outcomes)


def _print(run_folder: Path, outcomes: Sequence["Outcome"], as_json: bool) -> None:
    """Score what was judged, then print scores and the quality of the judge."""
    from mpm_eval.stages.score import score_run

    scored = [o.task for o in outcomes if not o.stopped or o.quality["num_judged"]]
    results = score_run(run_folder, scored) if scored else []
    if as_json:
        print_json({"results": results, "quality": [dict(o.quality) for o in outcomes]})
    else:
        print_results(results, run_folder, as_json=False)
        _print_quality(outcomes)


def _budget(
    requests: int | None,
    tokens: int | None,
    usd: float | None,
    price_in: float | None,
    price_out: float | None,
) -> "Budget":
    from mpm_eval.judging.budget import Budget, Limits

    if usd is not None and (price_in is None or price_out is None):
        raise UserError("--max-cost: needs --price-in and --price-out, dollars per million tokens")
    return Budget(Limits(requests, tokens, usd, price_in or 0.0, price_out or 0.0))


def _print_quality(outcomes: Sequence["Outcome"]) -> None:
    """Print what says how far the judge can be trusted; the failures go to stderr."""
    from mpm_eval.printing import print_table

    rows = []
    for outcome in outcomes:
        quality = outcome.quality
        swap, repeats = quality["order_swap"] or {}, quality["repeats_of_one_request"] or {}
        agreement = quality["agreement"] or {}
        rows.append(
            {
                "task": outcome.task,
                "judge": quality["judge"],
                "mode": quality["mode"],
                "judged": quality["num_judged"],
                "failed": quality["num_failed"],
                "not asked": quality["num_not_asked"],
                "same verdict swapped": _number(swap.get("same_verdict")),
                "first-place bonus": _number(swap.get("first_place_bonus")),
                "repeat variance": _number(repeats.get("mean_variance")),
                "spearman": _number(agreement.get("spearman")),
            }
        )
        reasons = sorted(quality["failures"].items(), key=lambda pair: (-pair[1], pair[0]))
        for reason, number in reasons[:_SHOWN_FAILURES]:
            print(f"{outcome.task}: {number} failed: {reason}", file=sys.stderr)
    print_table(rows)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _stop_if_unfinished(outcomes: Sequence["Outcome"]) -> None:
    """Raise UserError, for exit code 2, where a judge stopped before the end."""
    for outcome in outcomes:
        if outcome.stopped:
            quality = outcome.quality
            raise UserError(
                f"{outcome.task}: stopped with {quality['num_judged']} of "
                f"{quality['num_requests']} requests judged: {outcome.stopped}"
            )
