"""Muon for hidden matrices, AdamW for the rest, one warm-up and cosine schedule for both."""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mpm_eval.errors import UserError
from training import zero
from training.sharding import cut, is_deepspeed, whole

if TYPE_CHECKING:
    from accelerate import Accelerator

_MUON_FACTOR = 5.0  # Muon's updates are orthogonal, so its learning rate lives on another scale


class Optimizer:
    """Both optimizers behind one face, with a state that is plain tensors.

    Muon (Jordan 2024; torch.optim.Muon) reached a lower loss in the same number of steps of the
    align stage than AdamW alone; training/LOG.md has the figures.
    """

    def __init__(
        self, parameters: Iterable[tuple[str, nn.Parameter]], learning_rate: float, muon: bool
    ):
        matrices: dict[str, nn.Parameter] = {}
        others: dict[str, nn.Parameter] = {}
        for name, parameter in parameters:
            hidden = muon and parameter.dim() == 2 and "embedding" not in name
            (matrices if hidden else others)[name] = parameter
        self._named = {**matrices, **others}
        self._zero = False
        self._parts: list[tuple[Any, float]] = []
        if matrices:
            if not hasattr(torch.optim, "Muon"):
                raise UserError(
                    "a new language model learns by torch.optim.Muon, which torch "
                    f"{torch.__version__} lacks: install torch 2.9 or later"
                )
            inner = torch.optim.Muon(list(matrices.values()), lr=learning_rate, weight_decay=0.01)
            self._parts.append((inner, learning_rate * _MUON_FACTOR))
        if others:
            decayed = [p for p in others.values() if p.dim() > 1]
            plain = [p for p in others.values() if p.dim() <= 1]
            groups = [
                {"params": decayed, "weight_decay": 0.0 if muon else 0.05},
                {"params": plain, "weight_decay": 0.0},
            ]
            groups = [group for group in groups if group["params"]]
            adam = torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98))
            self._parts.append((adam, learning_rate))

    def prepare(
        self, accelerator: "Accelerator", module: nn.Module, model: nn.Module
    ) -> tuple[nn.Module, dict[str, nn.Parameter]]:
        """Hand module and optimizers to accelerate; return the wrapped module and what learns in
        its part `model`, by name: sharding puts new parameters in the place of the old."""
        self._zero = is_deepspeed(accelerator)
        if self._zero and len(self._parts) > 1:
            raise UserError(
                "DeepSpeed takes one optimizer, and a new language model learns by two (Muon and "
                "AdamW): set distributed_type: FSDP and fsdp_version: 2, or MULTI_GPU"
            )
        wrapped, *optimizers = accelerator.prepare(module, *(inner for inner, _ in self._parts))
        bases = [base for _, base in self._parts]
        self._parts = list(zip(optimizers, bases, strict=True))
        self._named = {name: model.get_parameter(name) for name in self._named}
        return wrapped, self._named

    def start(self, rate: float) -> None:
        """Forget all gradients and scale the learning rates by `rate` in 0..1 for the next step."""
        for optimizer, base in self._parts:
            optimizer.zero_grad()
            for group in optimizer.param_groups:
                group["lr"] = base * rate

    def step(self, accelerator: "Accelerator", clip: float = 1.0) -> Tensor:
        """Clip gradients, update the parameters and return the gradients' norm before clipping.

        A norm that is not finite changes nothing, but DeepSpeed has taken its step by now.
        """
        if self._zero:
            norm = torch.tensor(accelerator.deepspeed_engine_wrapped.get_global_grad_norm())
            return norm if norm >= 0 else norm.new_tensor(float("inf"))  # -1: not finite
        accelerator.unscale_gradients()
        norm = whole(nn.utils.clip_grad_norm_(self._named.values(), clip))
        if bool(torch.isfinite(norm)) or accelerator.scaler is not None:
            for optimizer, _ in self._parts:
                optimizer.step()
        return norm

    def state(self, keep: bool = True) -> dict[str, Tensor]:
        """Return all state tensors by "parameter name|state name", in parts where parameters are.

        With ZeRO they are whole, and every process has to call this, all but one without `keep`.
        """
        if self._zero:
            return zero.optimizer_state(self._parts[0][0].optimizer, self._named, keep)
        tensors: dict[str, Tensor] = {}
        for name, parameter in self._named.items():
            for optimizer, _ in self._parts:
                for key, value in optimizer.state.get(parameter, {}).items():
                    tensors[f"{name}|{key}"] = torch.as_tensor(value)
        return tensors

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `state` returned, from whole tensors."""
        if self._zero and tensors:
            zero.load_optimizer_state(self._parts[0][0].optimizer, self._named, tensors)
            return
        for optimizer, _ in self._parts:
            mine = {id(p) for group in optimizer.param_groups for p in group["params"]}
            for name, parameter in self._named.items():
                if id(parameter) in mine:
                    found = {
                        # the number of steps, a scalar, stays in memory
                        key.partition("|")[2]: cut(value.clone(), parameter)
                        if value.dim()
                        else value.clone()
                        for key, value in tensors.items()
                        if key.partition("|")[0] == name
                    }
                    if found:
                        optimizer.state[parameter] = found


def rate(step: int, num_steps: int, warmup_steps: int) -> float:
    """Return the learning rate's factor: linear warm-up, then cosine down to 5 %."""
    warm = min(1.0, (step + 1) / max(1, warmup_steps))
    return warm * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / num_steps)))
