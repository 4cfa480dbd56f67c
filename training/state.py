"""The file that makes a run resumable: weights, optimizer and progress, written at once."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mpm_eval.errors import UserError
from mpm_eval.schema import StageRecord
from mpm_eval.strict import build, to_jsonable
from training.backbones import Architecture, kept_state
from training.chat_model import ChatModel
from training.checkpoint import read_tensors, write_tensors
from training.optimizer import Optimizer
from training.sharding import whole_values


@dataclass
class Progress:
    """Where a training run stands; everything a resumed run needs beside the tensors."""

    recipe_sha256: str
    stage: int = 0
    step: int = 0
    curve: list[float] = field(default_factory=list)
    best: float | None = None  # the lowest validation loss of this stage so far
    stream: list[dict[str, Any]] = field(default_factory=list)  # the stage's state by process
    records: list[StageRecord] = field(default_factory=list)


@dataclass
class Copies:
    """Other values of what learns, by parameter name: averaged, and best on validation."""

    average: dict[str, Tensor] = field(default_factory=dict)
    best: dict[str, Tensor] = field(default_factory=dict)


class State:
    """Reads and writes the state of a run."""

    def __init__(self, path: Path, recipe_sha256: str, parts: Architecture):
        self.path, self.recipe_sha256, self.parts = path, recipe_sha256, parts

    def load(self, model: ChatModel) -> tuple[Progress, dict[str, Tensor], Copies]:
        """Return (progress, optimizer tensors, copies) and fill the model; a fresh start without
        a file. Raises UserError when the file belongs to another recipe.
        """
        if not self.path.is_file():
            return Progress(self.recipe_sha256), {}, Copies()
        tensors, content = read_tensors(self.path)
        if content["recipe_sha256"] != self.recipe_sha256:
            raise UserError(
                f"{self.path.parent}: holds an unfinished run of another recipe or other settings; "
                "give another --out or delete the folder"
            )
        own = _named(tensors, "model")
        for name, parameter in model.named_parameters():
            if name in own:  # what learned did so in float32, whatever it is opened in
                parameter.data = parameter.data.to(own[name].dtype)
        model.load_state_dict(own, strict=False)
        records = [build(StageRecord, r, str(self.path)) for r in content.pop("records")]
        copies = Copies(_named(tensors, "average"), _named(tensors, "best"))
        return Progress(**content, records=records), _named(tensors, "optimizer"), copies

    def kept(self, model: ChatModel) -> dict[str, Tensor]:
        """Return what of the model is written: what is trained, or to be had nowhere else."""
        return kept_state(model, self.parts)

    def save(
        self,
        model: ChatModel,
        progress: Progress,
        optimizer: Optimizer | None = None,
        copies: Copies | None = None,
        write: bool = True,
    ) -> None:
        """Write everything in one step; kill -9 leaves the previous state whole.

        Where weights lie in parts, every process has to call this, all but one without `write`.
        """
        groups: dict[str, dict[str, Tensor]] = {"model": self.kept(model)}
        if optimizer is not None:
            groups["optimizer"] = optimizer.state(keep=write)
        if copies is not None:
            groups |= {"average": copies.average, "best": copies.best}
        named = {f"{group}|{name}": v for group, own in groups.items() for name, v in own.items()}
        tensors = {name: v.contiguous() for name, v in whole_values(named, keep=write).items()}
        if write:
            content: dict[str, Any] = to_jsonable(progress)
            write_tensors(self.path, tensors, content)


def _named(tensors: dict[str, Tensor], group: str) -> dict[str, torch.Tensor]:
    prefix = f"{group}|"
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
