"""The training loop: steps, validation, atomic saves, exact resume."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mpm_eval.errors import UserError
from mpm_eval.schema import StageRecord
from mpm_eval.strict import build, to_jsonable
from training.checkpoint import read_tensors, write_tensors
from training.optimizer import Optimizer, rate
from training.stages import Context, Stage, make_record

# stage, steps done, steps in all, mean loss of the last steps, examples per second
Report = Callable[[str, int, int, float, float], None]


@dataclass
class Progress:
    """Where a training run stands; everything a resumed run needs beside the tensors."""

    recipe_sha256: str
    stage: int = 0
    step: int = 0
    curve: list[float] = field(default_factory=list)
    records: list[StageRecord] = field(default_factory=list)


class State:
    """The file that makes a run resumable: parameters, optimizer and progress, written at once."""

    def __init__(self, path: Path, recipe_sha256: str):
        self.path, self.recipe_sha256 = path, recipe_sha256

    def load(self, model: torch.nn.Module) -> tuple[Progress, dict[str, torch.Tensor]]:
        """Return (progress, optimizer tensors) and fill the model; a fresh start without a file.

        Raises UserError when the file belongs to another recipe.
        """
        if not self.path.is_file():
            return Progress(self.recipe_sha256), {}
        tensors, content = read_tensors(self.path)
        if content["recipe_sha256"] != self.recipe_sha256:
            raise UserError(
                f"{self.path.parent}: holds an unfinished run of another recipe or other settings; "
                "give another --out or delete the folder"
            )
        model.load_state_dict(
            {k.removeprefix("model|"): v for k, v in tensors.items() if k.startswith("model|")}
        )
        records = [build(StageRecord, r, str(self.path)) for r in content.pop("records")]
        progress = Progress(**content, records=records)
        optimizer = {
            k.removeprefix("optimizer|"): v
            for k, v in tensors.items()
            if k.startswith("optimizer|")
        }
        return progress, optimizer

    def save(self, model: torch.nn.Module, progress: Progress, optimizer: Optimizer | None) -> None:
        """Write everything in one step; kill -9 leaves the previous state whole."""
        tensors = {f"model|{k}": v.contiguous() for k, v in model.state_dict().items()}
        if optimizer is not None:
            tensors |= {f"optimizer|{k}": v for k, v in optimizer.state().items()}
        write_tensors(self.path, tensors, _content(progress))


def _content(progress: Progress) -> dict[str, Any]:
    content: dict[str, Any] = to_jsonable(progress)
    return content


def run_stage(
    stage: Stage,
    context: Context,
    state: State,
    progress: Progress,
    optimizer_state: dict[str, torch.Tensor],
    report: Report,
) -> None:
    """Train one stage from `progress.step` to its end and append its record.

    The result does not depend on where the run was interrupted: batch, dropout and noise of a step
    are functions of seed, stage and step.
    """
    config, model = stage.config, context.model
    model.requires_grad_(False)
    parameters = stage.parameters()
    for _, parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = Optimizer(parameters, config.learning_rate, stage.muon)
    optimizer.load_state(optimizer_state)
    model.train()
    saved = began = time.monotonic()
    first = progress.step
    for step in range(first, config.steps):
        torch.manual_seed(_seed(context.recipe.seed, stage.name, step))
        loss = stage.loss(stage.examples(step))
        if not torch.isfinite(loss):
            raise UserError(
                f"{stage.name}: the loss is {float(loss)} at step {step}; lower "
                f"{stage.name}.learning_rate and start again"
            )
        optimizer.step(loss, rate(step, config.steps, config.warmup_steps))
        progress.curve.append(float(loss.detach()))
        progress.step = step + 1
        recent = progress.curve[-100:]
        speed = (step + 1 - first) * config.batch_size / (time.monotonic() - began)
        report(stage.name, step + 1, config.steps, sum(recent) / len(recent), speed)
        if time.monotonic() - saved > context.recipe.save_every_s:
            state.save(model, progress, optimizer)
            saved = time.monotonic()
    model.eval()
    record = make_record(stage, context, progress.curve, stage.validation_loss())
    progress.records.append(record)
    progress.stage, progress.step, progress.curve = progress.stage + 1, 0, []
    state.save(model, progress, None)


def _seed(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:7], "big")
