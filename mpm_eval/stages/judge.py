"""Stage judge: predictions to judgements, appended one by one; and judgements to scores."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from mpm_eval.errors import Interrupted, UserError, unknown
from mpm_eval.judging.judgements import (
    JUDGEMENTS,
    JudgementFile,
    read_judgements,
    read_judging,
)
from mpm_eval.judging.parse import HIGHEST, parse_scores
from mpm_eval.judging.protocol import (
    MODES,
    Judge,
    JudgeRequest,
    JudgeStopped,
    Judging,
    combine,
    judge_requests,
    judgement_of,
)
from mpm_eval.judging.quality import judge_quality
from mpm_eval.metrics import load_metric
from mpm_eval.schema import Judgement, Task
from mpm_eval.stages.result_schema import Note
from mpm_eval.stages.rows import Joined, Measured
from mpm_eval.stages.run_folder import join, open_task_folder, task_folders
from mpm_eval.strict import build, canonical_sha256, read_json, to_jsonable, write_json

Progress = Callable[[str, int, int], None]  # task, requests done, requests in all
QUALITY = "judge_quality.json"
_LOWEST = 1.0  # of the scale that the rule names; HIGHEST is the other end


@dataclass(frozen=True, slots=True)
class Outcome:
    """What judging one task folder came to."""

    task: str
    quality: Mapping[str, Any]  # see judging.quality.judge_quality
    stopped: str  # why the rest was not asked; "" where everything was


@dataclass(frozen=True, slots=True)
class Judged:
    """The judgements that a task folder's samples are scored with."""

    judging: Judging
    by_key: Mapping[tuple[str, str], tuple[Judgement, ...]]

    def joined(self, member: Joined) -> Joined:
        """Return the member with its pair of scores; without one where judging it failed."""
        found = self.by_key.get(member.sample.key, ())
        return replace(member, judgement=combine(self.judging, found))

    def record(self) -> dict[str, Any]:
        """Return the judge and protocol with a hash of all scores, for the result."""
        used = sorted((j.request_sha256, j.scores) for js in self.by_key.values() for j in js)
        return {**to_jsonable(self.judging), "judgements_sha256": canonical_sha256(used)}

    def notes(self, measured: Measured, subsets: Sequence[str]) -> list[Note]:
        """Return, per subset, what helps to read its score: means, failures with their bounds."""
        notes = []
        for subset in subsets:
            members = [j for j in measured.joined if j.within(subset)]
            if members:
                for name, value in self._facts(members).items():
                    metric = measured.metric.name
                    notes.append(Note(metric, measured.language, subset, name, value))
        return notes

    def _facts(self, members: Sequence[Joined]) -> dict[str, float | int | None]:
        pairs = [j.judgement for j in members if j.judgement is not None]
        facts: dict[str, float | int | None] = {}
        if pairs:
            facts["reference_mean"] = fmean(p[0] for p in pairs)
            facts["candidate_mean"] = fmean(p[1] for p in pairs)
        num_failed = len(members) - len(pairs)
        if num_failed:
            facts["n_judge_failed"] = sum(not j.failed and j.judgement is None for j in members)
            facts |= bounds(pairs, num_failed)
        if self.judging.mode == "llava":
            replies = [j.reply for m in members for j in self.by_key.get(m.sample.key, ())]
            facts["llava_parser_score"] = llava_parser_score([r for r in replies if r])
        return facts


def judge_run(
    run: Path,
    judge: Judge,
    *,
    mode: str = "llava",
    repeats: int = 1,
    max_reply_tokens: int | None = None,
    tasks: Sequence[str] | None = None,
    human: Mapping[tuple[str, str], float] | None = None,
    progress: Progress | None = None,
) -> list[Outcome]:
    """Judge the judged tasks of a run (all without `tasks`); what has scores is not asked again.

    A judge that stops (dead server, spent budget) ends the list: everything so far is kept, and
    the same call continues. Raises UserError for a run without a judged task and for judgements
    of another judge or mode in a folder; Interrupted after Ctrl-C.
    """
    if mode not in MODES:
        raise unknown("mode", mode, MODES, "--mode")
    if repeats < 1 or (repeats > 1 and not MODES[mode].repeatable):
        raise UserError(
            f"--repeats: {repeats} does not go with --mode {mode}; give 1, or a positive number "
            "with --mode robust"
        )
    judging = Judging(judge.name, dict(judge.settings), mode, repeats)
    if max_reply_tokens is not None:
        judging = replace(judging, max_reply_tokens=max_reply_tokens)
    outcomes: list[Outcome] = []
    for folder in judged_folders(run, tasks):
        outcomes.append(_judge_folder(folder, judge, judging, human, progress))
        if outcomes[-1].stopped:
            break
    return outcomes


def judged_folders(run: Path, tasks: Sequence[str] | None = None) -> list[Path]:
    """Return the folders of a run's tasks that need a judge; UserError when there is none."""
    found = {folder.name: folder for folder in task_folders(run)}
    for name in tasks or ():
        if name not in found:
            raise unknown("task", name, found, f"{run}: --task")
    wanted = [folder for name, folder in found.items() if tasks is None or name in tasks]
    judged = [f for f in wanted if needs_judge(build_task(f))]
    if not judged:
        raise UserError(
            f"{run}: no task in it needs a judge; judged tasks have the metric 'relative_score', "
            "e.g. llava_qa90_zh"
        )
    return judged


def build_task(folder: Path) -> Task:
    """Return the task that a folder's predictions were made with."""
    path = folder / "task.json"
    return build(Task, read_json(path), str(path))


def needs_judge(task: Task) -> bool:
    """Return whether a metric of the task reads judgements."""
    return task.kind != "probe" and any(
        getattr(load_metric(name), "judged", False) for name in task.metrics
    )


def read_judged(folder: Path, joined: Mapping[str, Sequence[Joined]]) -> Judged:
    """Return the judgements of exactly these outputs; older ones of other outputs are left out.

    Raises UserError when nothing was judged yet.
    """
    judging, found = read_judging(folder), read_judgements(folder)
    if judging is None:
        raise UserError(
            f"{folder}: not judged yet; the answers are kept, judge them with: "
            f"mpm-eval judge {folder.parent} --judge embedded (or another judge)"
        )
    by_key: dict[tuple[str, str], tuple[Judgement, ...]] = {}
    for request in _requests(judging, joined):
        if request.sha256 in found:
            key = (request.id, request.language)
            by_key[key] = (*by_key.get(key, ()), found[request.sha256])
    return Judged(judging, by_key)


def bounds(pairs: Sequence[tuple[float, float]], num_failed: int) -> dict[str, float]:
    """Return the score if every failed sample had been judged best, and worst, of scale 1 to 10.

    Best is 10 for the answer and 1 for the reference, worst the reverse.
    """
    reference, candidate = sum(p[0] for p in pairs), sum(p[1] for p in pairs)
    low, high = num_failed * _LOWEST, num_failed * HIGHEST
    return {
        "score_if_failed_best": 100 * (candidate + high) / (reference + low),
        "score_if_failed_worst": 100 * (candidate + low) / (reference + high),
    }


def llava_parser_score(replies: Sequence[str]) -> float | None:
    """Return the number LLaVA's own script prints, for comparison with published ones only.

    It averages the (-1, -1) of replies that it cannot read, and rounds on the way
    (llava/eval/summarize_gpt_review.py).
    """
    pairs = [parse_scores(reply, "llava") for reply in replies]
    means = [round(fmean(p[side] for p in pairs if p), 3) for side in (0, 1)] if pairs else [0, 0]
    if not all(map(math.isfinite, means)) or means[0] == 0:
        return None
    return round(means[1] / means[0] * 100, 1)


def _requests(judging: Judging, joined: Mapping[str, Sequence[Joined]]) -> list[JudgeRequest]:
    """Return the requests about every answer; a failed prediction is not judged."""
    return [
        request
        for members in joined.values()
        for member in members
        if not member.failed
        for request in judge_requests(judging, member.sample, member.prediction.output)
    ]


def _judge_folder(
    folder: Path,
    judge: Judge,
    judging: Judging,
    human: Mapping[tuple[str, str], float] | None,
    progress: Progress | None,
) -> Outcome:
    opened = open_task_folder(folder)
    requests = _requests(judging, join(opened))
    name, stopped = opened.task.name, ""
    with JudgementFile.open(folder, judging) as file:
        known = read_judgements(folder)
        pending = [r for r in requests if r.sha256 not in known or known[r.sha256].error]
        try:
            for number, (request, reply) in enumerate(judge.answers(pending), start=1):
                judgement = judgement_of(judging, request, reply)
                file.append(judgement)
                known[request.sha256] = judgement
                if progress:
                    progress(name, len(requests) - len(pending) + number, len(requests))
        except JudgeStopped as error:
            stopped = str(error)
        except KeyboardInterrupt:
            raise Interrupted(
                f"{name}: stopped; every judgement so far is in {folder / JUDGEMENTS}, run the "
                "same command again to continue"
            ) from None
        judgements = [known[r.sha256] for r in requests if r.sha256 in known]
        quality = judge_quality(judging, judgements, len(requests), human)
        write_json(folder / QUALITY, quality)
    return Outcome(name, quality, stopped)
