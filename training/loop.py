"""The training loop: steps on any number of devices, validation, atomic saves, exact resume."""

import hashlib
import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from mpm_eval.errors import UserError
from training.chat_model import ChatModel
from training.optimizer import Optimizer, rate
from training.provenance import one_line
from training.recipe import EngineConfig
from training.sharding import (
    autocast,
    backward,
    blocks_of,
    check_sharding,
    cut,
    is_sharded,
    keep_whole,
    no_sync,
    reshard,
)
from training.stages.base import Context, Stage
from training.state import Copies, Progress, State
from training.tokenizer import Example

if TYPE_CHECKING:
    from accelerate import Accelerator

# stage, steps done, steps in all, mean loss of the last steps, examples per second
Report = Callable[[str, int, int, float, float], None]
_Context = Callable[[], AbstractContextManager[Any]]


@dataclass
class Run:
    """One recipe on its way: what it trains, on which devices, and where it is kept."""

    context: Context
    accelerator: "Accelerator"
    state: State
    progress: Progress
    copies: Copies
    optimizer_state: dict[str, Tensor]
    report: Report
    reopen: Callable[[], Any]  # the model as it is before a state is read into it


class _Step(nn.Module):
    """A stage as a module whose forward pass is the loss: what DDP and FSDP wrap.

    Validation of sharded weights is a forward pass too, for outside of one they are not whole.
    """

    def __init__(self, model: ChatModel, stage: Stage, autocast: _Context):
        super().__init__()
        self.model, self._stage, self._autocast = model, stage, autocast
        self._no_split_modules = blocks_of(model)

    def forward(self, batch: tuple[Sequence[Example], Sequence[Example]] | None) -> Tensor | float:
        with self._autocast():  # in here, for DeepSpeed turns off the one around it
            return self._stage.validation_loss() if batch is None else self._stage.loss(*batch)


def open_accelerator(engine: EngineConfig, folder: Any) -> "Accelerator":
    """Return accelerate's view of the devices; `accelerate launch` and its config decide on them.

    Raises UserError for a package that is not installed, a precision that the device lacks, and a
    config that this trainer cannot follow.
    """
    try:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState
        from accelerate.tracking import get_available_trackers
    except ImportError:
        raise UserError("training needs accelerate: pip install 'mpm-eval[train]'") from None
    if engine.tracker and engine.tracker not in map(str, get_available_trackers()):
        raise UserError(
            f"engine.tracker: {engine.tracker} is missing: pip install {engine.tracker}"
        )
    AcceleratorState._reset_state()  # a process may train one recipe after another
    try:
        accelerator = Accelerator(
            mixed_precision=engine.mixed_precision,
            log_with=engine.tracker or None,
            project_dir=str(folder),
        )
    except (ValueError, ImportError) as error:
        asked = "mixed precision" in str(error)
        where = "engine.mixed_precision" if asked else "accelerate's config"
        raise UserError(f"{where}: {one_line(error)}") from None
    check_sharding(accelerator, engine.mixed_precision)
    if accelerator.num_processes == 1 and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # Each process would train the whole batch by itself and write the same files.
        raise UserError(
            "several processes were launched, but accelerate sees one; without a GPU set "
            "ACCELERATE_USE_CPU=true"
        )
    if engine.tracker:
        accelerator.init_trackers("mpm-eval")
    return accelerator


def run_stage(stage: Stage, run: Run) -> None:
    """Train one stage from where it stands to its end and append its record.

    The result does not depend on where the run was interrupted: batch, dropout and noise of a step
    are functions of seed, stage and step.
    """
    _end(stage, run, _train(stage, run) if stage.config.steps else stage.validation_loss())


def _train(stage: Stage, run: Run) -> float:
    """Take the steps that are left and return the validation loss of the weights that are kept."""
    context, progress = run.context, run.progress
    trainer = _Trainer(stage, run)
    context.model.train()
    saved = began = time.monotonic()
    first = progress.step
    for step in range(first, stage.config.steps):
        progress.curve.append(trainer.step(step))
        progress.step = step + 1
        recent = progress.curve[-100:]
        speed = (step + 1 - first) * stage.config.batch_size / (time.monotonic() - began)
        run.report(stage.name, step + 1, stage.config.steps, sum(recent) / len(recent), speed)
        every = stage.config.validate_every
        if every and (step + 1) % every == 0 and step + 1 < stage.config.steps:
            trainer.validate()
        if trainer.agreed(time.monotonic() - saved > context.recipe.save_every_s):
            trainer.save()
            saved = time.monotonic()
    return trainer.finish()


def _end(stage: Stage, run: Run, validation: float) -> None:
    context, progress = run.context, run.progress
    context.model.eval()
    progress.records.append(stage.record(progress.curve, validation))
    progress.stage, progress.step, progress.curve = progress.stage + 1, 0, []
    progress.best, progress.stream = None, []
    run.copies, run.optimizer_state = Copies(), {}
    run.state.save(context.model, progress, write=run.accelerator.is_main_process)
    run.accelerator.wait_for_everyone()
    if is_sharded(run.accelerator):  # the old model goes before the new one comes
        context.model = cast(Any, None)
        run.accelerator.free_memory()
        context.model = run.reopen()
        run.state.load(context.model)
        context.model.eval()
    else:
        run.accelerator.free_memory()


class _Trainer:
    """One stage's module and optimizer on accelerate's devices."""

    def __init__(self, stage: Stage, run: Run):
        self.stage, self.run, self.model = stage, run, run.context.model
        self.sharded = is_sharded(run.accelerator)
        if stage.config.batch_size < run.context.process[1]:
            raise UserError(
                f"{stage.name}.batch_size: {stage.config.batch_size} examples cannot be divided "
                f"among {run.context.process[1]} processes; raise it"
            )
        self.model.requires_grad_(False)
        parameters = stage.parameters()
        for _, parameter in parameters:
            parameter.requires_grad_(True)
            # In half precision small updates would be rounded away.
            parameter.data = parameter.data.float()
        if any(name.startswith("lm.") for name, _ in parameters):
            self.model.lm.unsettle()
        elif not self.sharded:  # settling keeps whole weights aside
            self.model.lm.settle()
        self.optimizer = Optimizer(parameters, stage.config.learning_rate, stage.muon)
        self._resume_stage()
        keep_whole(run.accelerator, getattr(self.model, "never_sharded", ()))
        precision = run.context.recipe.engine.mixed_precision
        step = _Step(self.model, stage, partial(autocast, run.accelerator, precision))
        self.module, self.learned = self.optimizer.prepare(run.accelerator, step, self.model)
        self.optimizer.load_state(run.optimizer_state)
        copies = run.copies  # a state is read into memory
        copies.average = {name: cut(v, self.learned[name]) for name, v in copies.average.items()}
        copies.best = {name: cut(v, self.learned[name]) for name, v in copies.best.items()}
        if run.context.recipe.engine.ema and not copies.average:
            copies.average = self._values()

    def _resume_stage(self) -> None:
        (rank, world), states = self.run.context.process, self.run.progress.stream
        if not any(states):  # a stage that keeps no place in a stream
            return
        if len(states) != world:
            raise UserError(
                f"{self.stage.name}: {len(states)} processes saved their places in the stream, "
                f"and {world} cannot take them up; launch {len(states)} again"
            )
        self.stage.resume(states[rank])

    def step(self, step: int) -> float:
        """Take one step and return its loss over the whole batch."""
        run, stage, accelerator = self.run, self.stage, self.run.accelerator
        recipe = run.context.recipe
        whole = stage.examples(step)
        rank, world = run.context.process
        mine = whole if stage.draws_own else whole[rank::world]
        torch.manual_seed(_seed(recipe.seed, stage.name, step) + rank)
        self.optimizer.start(rate(step, stage.config.steps, stage.config.warmup_steps))
        # As many parts in every process: sharded weights are gathered by all at once.
        count = min(recipe.engine.accumulation, max(1, stage.config.batch_size // world))
        cuts = [len(mine) * n // count for n in range(count + 1)]
        parts = [mine[start:stop] for start, stop in pairwise(cuts)]
        total = torch.zeros((), device=accelerator.device)
        try:
            for part in parts:
                last = part is parts[-1]
                with no_sync(accelerator, self.module, last):
                    loss = self.module((part, whole))
                # DDP averages gradients over processes, and the parts' losses are to add up.
                backward(accelerator, loss * world, last)
                total += loss.detach()
        except RuntimeError as error:
            raise _out_of_memory(error, stage) or error from None
        total = accelerator.reduce(total, "sum")
        norm = self.optimizer.step(accelerator)
        value = float(total)
        if not (torch.isfinite(total) and (torch.isfinite(norm) or accelerator.scaler is not None)):
            raise UserError(
                f"{stage.name}: loss {value}, gradient norm {float(norm)} at step {step}; lower "
                f"{stage.name}.learning_rate and start again"
            )
        self._average(recipe.engine.ema)
        if recipe.engine.tracker:
            accelerator.log({f"{stage.name}/loss": value}, step=step)
        return value

    def _values(self) -> dict[str, Tensor]:
        return {name: p.detach().float().clone() for name, p in self.learned.items()}

    @torch.no_grad()
    def _average(self, decay: float) -> None:
        for name, average in self.run.copies.average.items():
            average.lerp_(self.learned[name].detach().float(), 1 - decay)

    @torch.no_grad()
    def _set(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            self.learned[name].copy_(value)

    def validate(self, final: bool = False) -> float:
        """Return the validation loss of the averaged weights if there are any, else of the last
        ones. The best so far are kept; `final` leaves them in the model."""
        progress, copies = self.run.progress, self.run.copies
        last = self._values() if copies.average else {}
        self._set(copies.average)
        self.model.eval()
        loss = self._validation_loss()
        if not math.isfinite(loss):
            raise UserError(
                f"{self.stage.name}: validation loss {loss} after {progress.step} steps; lower "
                f"{self.stage.name}.learning_rate and start again"
            )
        best = progress.best is None or loss < progress.best
        if best:
            progress.best = loss
        if best and not final:
            copies.best = self._values()
        if final:
            self._set({} if best else copies.best)
        else:
            self._set(last)
            self.model.train()
        return loss

    @torch.no_grad()
    def _validation_loss(self) -> float:
        if not self.sharded:
            return self.stage.validation_loss()
        loss = float(self.module(None))
        reshard(self.module)
        return loss

    def agreed(self, due: bool) -> bool:
        """Return the main process's answer on every process: clocks differ, and all must save."""
        accelerator = self.run.accelerator
        if accelerator.num_processes == 1:
            return due
        mine = torch.tensor(float(due and accelerator.is_main_process), device=accelerator.device)
        return bool(accelerator.reduce(mine, "sum") > 0)

    def save(self) -> None:
        """Write everything that a resumed run needs."""
        from accelerate.utils import gather_object

        self.run.progress.stream = gather_object([self.stage.state()])
        run, write = self.run, self.run.accelerator.is_main_process
        run.state.save(self.model, run.progress, self.optimizer, run.copies, write)

    def finish(self) -> float:
        """Leave the weights that are to be kept in the model and return their validation loss."""
        self.validate(final=True)
        assert self.run.progress.best is not None
        return self.run.progress.best


def _out_of_memory(error: RuntimeError, stage: Stage) -> UserError | None:
    text = "out of memory" if isinstance(error, torch.OutOfMemoryError) else str(error).lower()
    if "out of memory" not in text and "allocate memory" not in text:
        return None
    return UserError(
        f"{stage.name}: out of memory with {stage.config.batch_size} examples per step; raise "
        f"engine.accumulation, set engine.gradient_checkpointing, or lower {stage.name}.batch_size"
    )


def _seed(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:7], "big")
