"""DeepSpeed's ZeRO 1 and 2: optimizer and gradients in parts, weights whole on every device."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mpm_eval.errors import UserError


def follow(config: dict[str, Any], num_processes: int, precision: str) -> None:
    """Complete a DeepSpeed config with what the recipe decides.

    Weights stay in float32, so that every checkpoint has them, and bfloat16 is a matter of
    autocast. Raises UserError for what the trainer cannot follow.
    """
    zero = config.get("zero_optimization", {})
    if zero.get("stage") not in (1, 2):
        raise UserError(
            f"accelerate's config asks for DeepSpeed's ZeRO {zero.get('stage')}; set zero_stage: 2 "
            "or 1, or, to spread weights over devices, distributed_type: FSDP and fsdp_version: 2"
        )
    if zero.get("offload_optimizer", {}).get("device", "none") != "none":
        raise UserError(
            "accelerate's config has DeepSpeed offload the optimizer, which brings one of its own; "
            "set offload_optimizer_device: none"
        )
    if precision == "fp16":
        raise UserError("engine.mixed_precision: with DeepSpeed set bf16 or no, not fp16")
    fp16 = config.get("fp16", {}).get("enabled") is True
    for key in [*(key for key in ("optimizer", "scheduler") if key in config), *["fp16"] * fp16]:
        raise UserError(f"DeepSpeed's config: {key}: the recipe decides this; remove the key")
    for key in [key for key, value in zero.items() if value == "auto"]:
        del zero[key]
    config |= {
        "bf16": {"enabled": False},
        "fp16": {"enabled": False},
        "gradient_clipping": 1.0,
        # Bookkeeping of DeepSpeed's own; the loop divides batches.
        "gradient_accumulation_steps": 1,
        "train_micro_batch_size_per_gpu": 1,
        "train_batch_size": num_processes,
    }


def optimizer_state(
    optimizer: Any, named: Mapping[str, nn.Parameter], keep: bool
) -> dict[str, Tensor]:
    """Return the whole state by "parameter name|state name", as the optimizer alone would have it.

    Every process has to call it; without `keep` it only gives its parts, and the result is empty.
    """
    from deepspeed.utils import lazy_init_hp_params_optimizer_state, safe_get_full_optimizer_state

    names = {id(parameter): name for name, parameter in named.items()}
    found: dict[str, Tensor] = {}
    for flat, parameters in _groups(optimizer):
        state = optimizer.optimizer.state.get(flat, {})
        if state:  # which DeepSpeed ties to the parameters of the first group only
            lazy_init_hp_params_optimizer_state(parameters, flat, optimizer.optimizer.state)
        for key, value in state.items():
            for parameter in parameters:
                whole = safe_get_full_optimizer_state(parameter, key) if value.dim() else value
                if keep:
                    found[f"{names[id(parameter)]}|{key}"] = whole.detach().cpu().clone()
    return found


def load_optimizer_state(
    optimizer: Any, named: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]
) -> None:
    """Put back what `optimizer_state` returned, or what an optimizer alone had."""
    from deepspeed.utils import lazy_init_hp_params_optimizer_state, safe_set_full_optimizer_state

    names = {id(parameter): name for name, parameter in named.items()}
    for flat, parameters in _groups(optimizer):
        keys = {key.partition("|")[2] for key in tensors}
        first = names[id(parameters[0])]
        state = {
            key: torch.zeros_like(flat) if value.dim() else value.clone()
            for key in keys
            for value in [tensors[f"{first}|{key}"]]
        }
        optimizer.optimizer.state[flat] = state
        lazy_init_hp_params_optimizer_state(parameters, flat, optimizer.optimizer.state)
        for parameter in parameters:
            for key, value in state.items():
                if value.dim():
                    whole = tensors[f"{names[id(parameter)]}|{key}"].to(flat.device)
                    safe_set_full_optimizer_state(parameter, whole, key)


def _groups(optimizer: Any) -> Iterator[tuple[nn.Parameter, list[nn.Parameter]]]:
    """Yield (this process's part of a group as one flat parameter, the group's parameters)."""
    yield from zip(optimizer.single_partition_of_fp32_groups, optimizer.bit16_groups, strict=True)
