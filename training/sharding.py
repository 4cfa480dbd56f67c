"""What lies in parts on several devices (FSDP, ZeRO): whole values from parts, and parts again."""

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.torch_version import TorchVersion

from mpm_eval.errors import UserError
from training import zero

if TYPE_CHECKING:
    from accelerate import Accelerator


def check_sharding(accelerator: "Accelerator", precision: str) -> None:
    """Complete accelerate's config with what the recipe decides, among it the precision.

    Raises UserError for a config that this trainer cannot follow.
    """
    kind = accelerator.distributed_type.value
    if kind == "FSDP":
        _follow_fsdp(accelerator.state.fsdp_plugin, precision)
    elif kind == "DEEPSPEED":
        config = accelerator.state.deepspeed_plugin.deepspeed_config
        zero.follow(config, accelerator.num_processes, precision)
    elif kind == "MEGATRON_LM":
        raise UserError(
            "accelerate's config asks for MEGATRON_LM, which this trainer cannot follow; to spread "
            "weights over devices set distributed_type: FSDP and fsdp_version: 2"
        )


def _follow_fsdp(plugin: Any, precision: str) -> None:
    if plugin.fsdp_version != 2:
        raise UserError("accelerate's config asks for FSDP 1; set fsdp_version: 2")
    if TorchVersion(torch.__version__) < "2.9":  # older ones cannot mix precisions in one part
        raise UserError(f"FSDP here needs torch 2.9 or later; this is {torch.__version__}")
    from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy
    from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy

    if isinstance(plugin.cpu_offload, CPUOffloadPolicy):
        raise UserError("accelerate's config has FSDP offload: set fsdp_offload_params: false")
    # Every process reads the weights itself, and from rank 0 tied ones would come untied.
    # transformers looks at the environment.
    plugin.cpu_ram_efficient_loading = False
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
    plugin.auto_wrap_policy = transformer_auto_wrap_policy
    plugin.transformer_cls_names_to_wrap = None
    plugin.activation_checkpointing = False
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    if half is not None:  # gradients are added up in float32, as everywhere
        policy = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32)
        plugin.mixed_precision_policy = policy


def is_sharded(accelerator: "Accelerator") -> bool:
    """Return whether wrapping a model changes it for good."""
    return accelerator.distributed_type.value in ("FSDP", "DEEPSPEED")


def is_deepspeed(accelerator: "Accelerator") -> bool:
    """Return whether DeepSpeed takes the steps of the optimizer, each in a backward pass."""
    return bool(accelerator.distributed_type.value == "DEEPSPEED")


def keep_whole(accelerator: "Accelerator", modules: Sequence[nn.Module]) -> None:
    """Have FSDP leave parts of the next model alone: those that processes run unequally often."""
    if accelerator.distributed_type.value == "FSDP":
        accelerator.state.fsdp_plugin.ignored_modules = list(modules)


def autocast(accelerator: "Accelerator", precision: str) -> AbstractContextManager[Any]:
    """Return the context of a forward pass in the precision of the recipe."""
    if is_deepspeed(accelerator):  # for which accelerate would turn the weights themselves
        return torch.autocast(accelerator.device.type, torch.bfloat16, enabled=precision == "bf16")
    return accelerator.autocast()


def backward(accelerator: "Accelerator", loss: Tensor, last: bool) -> None:
    """Add the gradients of one micro-batch; with DeepSpeed, the last one takes the step."""
    if is_deepspeed(accelerator):
        accelerator.deepspeed_engine_wrapped.backward(loss, sync_gradients=last)
    else:
        accelerator.backward(loss)


def no_sync(
    accelerator: "Accelerator", module: nn.Module, last: bool
) -> AbstractContextManager[Any]:
    """Return the context of a micro-batch: gradients are exchanged once per step, after the last;
    those that are to lie in parts after each, for they would be whole until then."""
    return nullcontext() if last or is_sharded(accelerator) else accelerator.no_sync(module)


def blocks_of(model: nn.Module) -> list[str]:
    """Return the names of the classes that are sharded one by one: the blocks of transformers."""
    named = {name for m in model.modules() for name in getattr(m, "_no_split_modules", None) or ()}
    return sorted(named & {type(module).__name__ for module in model.modules()})


def whole(tensor: Tensor) -> Tensor:
    """Return all of a tensor, in memory where it was in parts; every process has to call it."""
    gather: Any = getattr(tensor, "full_tensor", None)  # of a DTensor, a class of newer torch
    return tensor if gather is None else gather().cpu()


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
    value, other = value.to(like.device), cast(Any, like)
    if not hasattr(other, "full_tensor"):
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, other.device_mesh, other.placements, src_data_rank=None)


def reshard(module: nn.Module) -> None:
    """Forget gathered weights: after a forward pass without a backward one they would stay, and
    later changes of the parts would not be seen."""
    for child in cast(Any, module.modules()):
        if hasattr(child, "reshard"):  # a module of FSDP 2
            child.reshard()
