"""Trains recipes with FSDP on processors, for tests that launch several processes.

accelerate follows its FSDP settings on accelerators only; here its state is told that it has some.
All else is its own.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from accelerate import DistributedType
from accelerate.state import AcceleratorState, PartialState
from torch import nn
from torch.distributed.tensor import DTensor

from training.interface import train
from training.optimizer import Optimizer

_open, _prepare = AcceleratorState.__init__, Optimizer.prepare


def open_sharded(self: AcceleratorState, *args: Any, fsdp_plugin: Any = None, **named: Any) -> None:
    _open(self, *args, fsdp_plugin=fsdp_plugin, **named)
    if fsdp_plugin is None:
        return
    PartialState._shared_state["distributed_type"] = DistributedType.FSDP
    self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin
    if self._mixed_precision != "no":
        fsdp_plugin.set_mixed_precision(self._mixed_precision)


def tell(*line: Any) -> None:
    if os.environ.get("RANK", "0") == "0":
        print(json.dumps(line), flush=True)


def prepare(self: Optimizer, accelerator: Any, module: nn.Module, model: nn.Module) -> Any:
    """Also tell how many of the model's numbers this process holds, and how many there are."""
    found = _prepare(self, accelerator, module, model)
    weights = list(model.parameters())
    here = [w.to_local() if isinstance(w, DTensor) else w for w in weights]
    tell("parts", sum(w.numel() for w in here), sum(w.numel() for w in weights))
    return found


def main(runs: str) -> None:
    """Train what a file lists as [recipe, folder, overrides]; print a line of JSON per step."""
    AcceleratorState.__init__ = open_sharded
    Optimizer.prepare = prepare  # type: ignore[method-assign]
    for recipe, folder, overrides in json.loads(Path(runs).read_text()):

        def told(stage: str, done: int, _total: int, loss: float, _speed: float) -> None:
            tell(stage, done, loss)

        tell("recipe", recipe)
        train(recipe, Path(folder), overrides, told)


if __name__ == "__main__":
    main(*sys.argv[1:])
