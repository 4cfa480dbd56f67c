"""Trains recipes with and without FSDP or DeepSpeed on processors; one launch for many runs.

accelerate follows such settings on accelerators only; here its state is told that it has some. All
else is its own.
"""

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import DistributedType
from accelerate.state import AcceleratorState, PartialState
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from training.interface import train
from training.optimizer import Optimizer
from training.pretrained_lm import PretrainedLM

KINDS: dict[str, dict[str, str]] = {
    "whole": {},
    "fsdp": {
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_VERSION": "2",
        "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",  # as `accelerate launch --use_fsdp` sets it
    },
    "zero1": {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "1"},
    "zero2": {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"},
}
_open, _prepare, _hidden = AcceleratorState.__init__, Optimizer.prepare, PretrainedLM.hidden


def open_sharded(self: AcceleratorState, *args: Any, **named: Any) -> None:
    _open(self, *args, **named)
    fsdp, deepspeed = named.get("fsdp_plugin"), named.get("deepspeed_plugin")
    if fsdp is not None:
        self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp
        if self._mixed_precision != "no":
            fsdp.set_mixed_precision(self._mixed_precision)
    if deepspeed is not None:
        self.distributed_type, self.deepspeed_plugins = DistributedType.DEEPSPEED, deepspeed
        deepspeed.set_mixed_precision(self._mixed_precision)
        deepspeed.select(_from_accelerator_state=True)
        self._mixed_precision = "no"
    PartialState._shared_state["distributed_type"] = self.distributed_type


def without_compiler() -> None:
    """Have DeepSpeed's processes talk through gloo alone, not through an extension it compiles."""
    # Not as an attribute of deepspeed.comm, where that name is torch itself.
    backend: Any = importlib.import_module("deepspeed.comm.torch")
    backend.build_shm_op = lambda: None


def tell(name: str, *line: Any) -> None:
    if os.environ["RANK"] == "0":
        print(json.dumps([name, *line]), flush=True)


def shares(optimizer: Optimizer, model: nn.Module) -> tuple[float, float]:
    """Return the shares of a model's weights, and of what the optimizer updates, that are here."""
    weights = list(model.parameters())
    updated = [p for part, _ in optimizer._parts for g in part.param_groups for p in g["params"]]
    learned = sum(p.numel() for p in optimizer._named.values())
    return (
        sum(map(here, weights)) / sum(w.numel() for w in weights),
        sum(map(here, updated)) / learned,
    )


def here(weight: Tensor) -> int:
    return (weight.to_local() if isinstance(weight, DTensor) else weight).numel()


def run(name: str, recipe: str, out: str, overrides: list[str], kind: str, stop: Any) -> None:
    """Train one recipe; with `stop`, a stage and a step, until there. Prints JSON by step."""

    def prepare(self: Optimizer, accelerator: Any, module: nn.Module, model: nn.Module) -> Any:
        found = _prepare(self, accelerator, module, model)
        tell(name, "shares", *shares(self, model))
        return found

    def told(stage: str, done: int, _total: int, loss: float, _speed: float) -> None:
        if "features" not in stage:
            tell(name, stage, done, loss)
        if [stage, done] == stop:
            raise KeyboardInterrupt

    precisions: set[bool] = set()

    def hidden(self: PretrainedLM, *arguments: Any) -> Any:
        if torch.is_grad_enabled():
            precisions.add(torch.is_autocast_enabled("cpu"))
        return _hidden(self, *arguments)

    Optimizer.prepare = prepare  # type: ignore[method-assign]
    PretrainedLM.hidden = hidden  # type: ignore[method-assign]
    for key in {key for settings in KINDS.values() for key in settings}:
        os.environ.pop(key, None)
    os.environ.update(KINDS[kind])
    if PartialState._shared_state:  # of the run before
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_CPU
    try:
        train(recipe, Path(out), overrides, told)
    except KeyboardInterrupt:
        tell(name, "stopped")
    tell(name, "autocast", sorted(precisions))


def main(runs: str) -> None:
    """Do what a file lists as runs."""
    AcceleratorState.__init__ = open_sharded
    listed = json.loads(Path(runs).read_text())
    if any(kind.startswith("zero") for _, _, _, _, kind, _ in listed):
        without_compiler()
    for line in listed:
        run(*line)


if __name__ == "__main__":
    main(*sys.argv[1:])
