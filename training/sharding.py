"""Weights that lie in parts on several devices (FSDP): whole values from parts, and parts again."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn

from mpm_eval.errors import UserError

if TYPE_CHECKING:
    from accelerate import Accelerator


def check_sharding(accelerator: "Accelerator") -> None:
    """Raise UserError for a config of accelerate that this trainer cannot follow."""
    kind = accelerator.distributed_type.value
    if kind == "FSDP":
        plugin = accelerator.state.fsdp_plugin
        if plugin.fsdp_version != 2:
            raise UserError("accelerate's config asks for FSDP 1; set fsdp_version: 2")
        # Every process reads the weights itself, and from rank 0 tied ones would come untied.
        plugin.cpu_ram_efficient_loading = False
    elif kind in ("DEEPSPEED", "MEGATRON_LM"):
        raise UserError(
            f"accelerate's config asks for {kind}, which this trainer cannot follow; to spread "
            "weights over devices set distributed_type: FSDP and fsdp_version: 2"
        )


def is_sharded(accelerator: "Accelerator") -> bool:
    """Return whether a wrapped model's parameters are parts of what they were."""
    return bool(accelerator.distributed_type.value == "FSDP")


def blocks_of(model: nn.Module) -> list[str]:
    """Return the names of the classes that are sharded one by one: the blocks of transformers."""
    named = {name for m in model.modules() for name in getattr(m, "_no_split_modules", None) or ()}
    return sorted(named & {type(module).__name__ for module in model.modules()})


def whole(tensor: Tensor) -> Tensor:
    """Return all of a tensor, in memory where it was in parts; every process has to call it."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor().cpu() if isinstance(tensor, DTensor) else tensor


def whole_values(tensors: Mapping[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """Return all of each tensor; without `keep` nothing: this process only gives its parts."""
    found = {}
    for name, tensor in tensors.items():
        value = whole(tensor)  # one after the other, so that one at a time lies on the device
        if keep:
            found[name] = value
    return found


def cut(value: Tensor, like: Tensor) -> Tensor:
    """Return this process's part of a whole value, on the device and in the parts of another."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    value = value.to(like.device)
    if not isinstance(like, DTensor):
        return value
    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)


def reshard(module: nn.Module) -> None:
    """Forget gathered weights: after a forward pass without a backward one they would stay, and
    later changes of the parts would not be seen."""
    from torch.distributed.fsdp import FSDPModule

    for child in module.modules():
        if isinstance(child, FSDPModule):
            child.reshard()
