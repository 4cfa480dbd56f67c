"""Vision towers of Hugging Face as the eye: CLIP, SigLIP (2), DINO, BEiT, ViT.

Shapes: B batch, C channels, H, W, P patches.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mpm_eval.errors import UserError, unknown
from mpm_eval.strict import build, read_json
from training.provenance import Provenance, locate, one_line, weights_sha256
from training.quiet import quiet


@dataclass(frozen=True)
class TowerConfig:
    """Which vision tower, and which of its features are read."""

    kind: str = "tower"
    source: str = ""  # id on the hub or folder
    revision: str = ""  # branch, tag or commit of the hub
    layer: int = -2  # whose hidden states are read: 1 the first block's, -1 the last's
    keep_class_token: bool = False  # as the first of the patches
    unfreeze: int = 0  # blocks to train, counted from the one that is read downwards


@dataclass(frozen=True, slots=True)
class _Family:
    """What differs between the towers of transformers."""

    model: str  # name of the class
    norm: str  # attribute of the norm after the last block, which hidden states do not pass
    class_token: bool = True
    any_size: bool = False  # of pictures, so that the preprocessor decides it
    pooler: bool = False  # the class builds one unless told otherwise


_FAMILIES = {
    "clip_vision_model": _Family("CLIPVisionModel", "post_layernorm"),
    "siglip_vision_model": _Family("SiglipVisionModel", "post_layernorm", class_token=False),
    "dinov2": _Family("Dinov2Model", "layernorm", any_size=True),
    "dinov2_with_registers": _Family("Dinov2WithRegistersModel", "layernorm", any_size=True),
    "dinov3_vit": _Family("DINOv3ViTModel", "norm", any_size=True),
    "beit": _Family("BeitModel", "layernorm", pooler=True),
    "vit": _Family("ViTModel", "layernorm", pooler=True),
}
_DUAL_ENCODERS = ("clip", "siglip")  # whose vision part is one of the families
# A frozen tower must see the same in training as in evaluation.
_NOT_RANDOM: Mapping[str, float | None] = {
    "attention_dropout": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "hidden_dropout_prob": 0.0,
    "drop_path_rate": 0.0,
    "pos_embed_shift": None,
    "pos_embed_jitter": None,
    "pos_embed_rescale": None,
}


@dataclass(frozen=True, slots=True)
class _Pixels:
    """How a tower wants its pictures."""

    image_size: int  # pixels per side
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)


@dataclass(frozen=True, slots=True)
class _Preprocessor:
    """What is read of a preprocessor_config.json."""

    image_mean: tuple[float, float, float] | None = None
    image_std: tuple[float, float, float] | None = None
    do_normalize: bool = True
    rescale_factor: float = 1 / 255
    do_center_crop: bool = False
    crop_size: Any = None
    size: Any = None


class Tower(nn.Module):
    """A vision tower up to the block that is read; frozen until `unfreeze`.

    What lies behind that block (later blocks, last norm, pooling) is not part of it.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, model: Any, pixels: _Pixels, keep_class_token: bool):
        super().__init__()
        family = _FAMILIES[model.config.model_type]
        owner = next(
            m for m in model.modules() if isinstance(getattr(m, family.norm, None), nn.Module)
        )
        setattr(owner, family.norm, nn.Identity())
        _own_position_index(model)
        self.model = model
        self.dim: int = model.config.hidden_size
        self.image_size = pixels.image_size
        # How it reads pictures comes with the source, not with the weights: not in a checkpoint.
        for name, value in (("pixel_mean", pixels.mean), ("pixel_std", pixels.std)):
            self.register_buffer(name, torch.tensor(value)[:, None, None], persistent=False)
        self._keep_class_token = keep_class_token
        # What decides features beside weights and size: part of the hash of cached features.
        self.settings = f"{keep_class_token} {pixels.mean} {pixels.std}"
        registers: int = getattr(model.config, "num_register_tokens", 0)
        self._num_special = family.class_token + registers
        grid = pixels.image_size // model.config.patch_size
        self.num_patches = grid * grid + keep_class_token
        self.requires_grad_(False)
        self.unfrozen: dict[str, nn.Parameter] = {}  # by `unfreeze`; a loop freezes and thaws them

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return z_BPC for pictures x_BCHW in 0..1 of `image_size` pixels per side.

        The rows of the grid follow each other, after the class token if it is kept; register
        tokens never appear. Raises ValueError for another size.
        """
        if x_BCHW.shape[-2:] != (self.image_size, self.image_size):
            raise ValueError(f"expected {self.image_size} pixels per side, got {x_BCHW.shape[-2:]}")
        x_BCHW = self.normalise(x_BCHW).to(self.model.dtype)
        z_BPC = self.model(pixel_values=x_BCHW).last_hidden_state
        patches_BPC = z_BPC[:, self._num_special :]
        if self._keep_class_token:
            return torch.cat([z_BPC[:, :1], patches_BPC], dim=1)
        return patches_BPC

    def normalise(self, x_BCHW: Tensor) -> Tensor:
        """Return pictures in 0..1 as the model's own image processor gives them, in float32."""
        return (x_BCHW.float() - self.pixel_mean.float()) / self.pixel_std.float()

    def unfreeze(self, last_n_blocks: int) -> dict[str, nn.Parameter]:
        """Train the last n blocks and freeze the rest; return what is trained, by its name in
        `state_dict`. Raises UserError when there are fewer blocks."""
        blocks = self._blocks()
        if not 0 <= last_n_blocks <= len(blocks):
            raise UserError(
                f"unfreeze: the tower is read after block {len(blocks)}; give 0 to {len(blocks)}, "
                f"got {last_n_blocks}"
            )
        self.requires_grad_(False)
        for block in blocks[len(blocks) - last_n_blocks :]:
            block.requires_grad_(True)
        self.unfrozen = {name: p for name, p in self.named_parameters() if p.requires_grad}
        return self.unfrozen

    def checkpoint_gradients(self, on: bool) -> None:
        """Compute the blocks' activations again in the backward pass instead of keeping them;
        in training mode alone."""
        # The older name of the pair still works in newer releases, with a warning.
        prefix = (
            "activation" if hasattr(self.model, "activation_checkpointing_enable") else "gradient"
        )
        if on:
            getattr(self.model, f"{prefix}_checkpointing_enable")({"use_reentrant": False})
        else:
            getattr(self.model, f"{prefix}_checkpointing_disable")()

    def _blocks(self) -> nn.ModuleList:
        number = self.model.config.num_hidden_layers
        return next(
            m for m in self.model.modules() if isinstance(m, nn.ModuleList) and len(m) == number
        )


def open_tower(config: TowerConfig, dtype: torch.dtype = torch.float32) -> tuple[Tower, Provenance]:
    """Return a tower with its weights, and where they came from.

    Of a dual encoder (CLIP, SigLIP) the vision part alone is read. Code that comes with a model is
    never run. Raises UserError without transformers, for a source that cannot be found, read or
    used, and for pickled, truncated or missing weights.
    """
    transformers = _transformers(config.source)
    folder, revision = locate(config.source, config.revision)
    where = str(folder / "config.json")
    vision = _read_up_to(config, _vision_config(read_json(folder / "config.json"), where), where)
    family = _FAMILIES[vision.model_type]
    pixels = _read_pixels(folder, vision, family)
    provenance = Provenance(config.source, revision, weights_sha256(folder))
    options = {"add_pooling_layer": False} if family.pooler else {}
    try:
        with quiet():
            model, info = getattr(transformers, family.model).from_pretrained(
                folder,
                config=vision,
                dtype=dtype,
                use_safetensors=True,
                output_loading_info=True,
                **options,
            )
    except Exception as error:  # a broken file raises whatever its reader does
        raise UserError(f"{config.source}: cannot be loaded: {one_line(error)}") from None
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise UserError(
            f"{config.source}: the weights lack {len(missing)} tensors (first: {missing[0]}), "
            "which would be random; give a folder whose weights fit its config.json"
        )
    tower = Tower(model, pixels, config.keep_class_token)
    tower.unfreeze(config.unfreeze)
    return tower, provenance


def build_tower(hf_config: Mapping[str, Any], config: TowerConfig | None = None) -> Tower:
    """Return a tower with fresh weights from the content of a config.json, e.g. for a dry run.

    Pictures have the size that `hf_config` names, mean and standard deviation 0.5. On the device
    "meta" no weights are made: `with torch.device("meta"): build_tower(hf_config)`.
    """
    config = config or TowerConfig()
    transformers = _transformers("a vision tower")
    vision = _read_up_to(config, _vision_config(hf_config, "config"), "config")
    family = _FAMILIES[vision.model_type]
    options = {"add_pooling_layer": False} if family.pooler else {}
    model = getattr(transformers, family.model)(vision, **options)
    tower = Tower(model, _Pixels(vision.image_size), config.keep_class_token)
    tower.unfreeze(config.unfreeze)
    return tower


def _own_position_index(model: nn.Module) -> None:
    """Give each block of BEiT the index of its position biases for good.

    Its own is in a cache of the process: once made in inference mode or on "meta", it would fail
    in training, or on the CPU.
    """
    module: Any
    for module in model.modules():
        if hasattr(module, "generate_relative_position_index"):
            with torch.inference_mode(False), torch.device("cpu"):
                index = module.generate_relative_position_index(module.window_size).clone()
            module.generate_relative_position_index = lambda _, index=index: index


def _transformers(what: str) -> Any:
    try:
        import transformers
    except ImportError:
        raise UserError(f"{what}: needs transformers; pip install 'mpm-eval[hf]'") from None
    return transformers


def _vision_config(content: Any, where: str) -> Any:
    """Return the vision part of a config.json as an object of transformers."""
    from transformers import CONFIG_MAPPING

    if not isinstance(content, Mapping):
        raise UserError(f"{where}: expected an object {{…}}")
    kind = str(content.get("model_type", ""))
    if kind not in _FAMILIES and kind not in _DUAL_ENCODERS:
        raise unknown("kind of vision tower", kind, [*_FAMILIES, *_DUAL_ENCODERS], where)
    try:
        with quiet():
            whole = CONFIG_MAPPING[kind].from_dict(dict(content))
    except Exception as error:  # a wrong value raises whatever the class of the config does
        raise UserError(f"{where}: not a configuration of '{kind}': {one_line(error)}") from None
    vision = getattr(whole, "vision_config", whole)
    for key in ("image_size", "patch_size"):
        if not isinstance(getattr(vision, key), int):
            raise UserError(
                f"{where}: {key}: expected one integer, as pictures and patches are square"
            )
    if vision.num_channels != 3:
        raise UserError(f"{where}: num_channels: expected 3 (RGB), got {vision.num_channels}")
    return vision


def _read_up_to(config: TowerConfig, vision: Any, where: str) -> Any:
    """Return `vision` for a model that ends with the block that is read, without dropout."""
    number = vision.num_hidden_layers
    if not 1 <= abs(config.layer) <= number:
        raise UserError(
            f"layer: {where} has {number} blocks; give 1 to {number}, or -{number} to -1 (the "
            f"last), got {config.layer}"
        )
    if config.keep_class_token and not _FAMILIES[vision.model_type].class_token:
        raise UserError(
            f"keep_class_token: {where}: a '{vision.model_type}' has no class token; set it to "
            "false"
        )
    vision.num_hidden_layers = config.layer if config.layer > 0 else number + 1 + config.layer
    for key, value in _NOT_RANDOM.items():
        if hasattr(vision, key):
            setattr(vision, key, value)
    if hasattr(vision, "vision_use_head"):
        vision.vision_use_head = False
    return vision


def _read_pixels(folder: Path, vision: Any, family: _Family) -> _Pixels:
    """Return how pictures are prepared, from what the image processor wrote."""
    path = folder / "preprocessor_config.json"
    if not path.is_file() and (folder / "processor_config.json").is_file():
        path = folder / "processor_config.json"
    content = read_json(path)
    where = str(path)
    if isinstance(content, Mapping):
        content = content.get("image_processor", content)
        known = {field.name for field in dataclasses.fields(_Preprocessor)}
        content = {k: v for k, v in content.items() if k in known and v is not None}
    found = build(_Preprocessor, content, where)
    if not math.isclose(found.rescale_factor, 1 / 255, rel_tol=1e-4):
        raise UserError(f"{where}: rescale_factor: expected 1/255, got {found.rescale_factor}")
    size = vision.image_size
    if family.any_size:
        size = (found.crop_size if found.do_center_crop else found.size) or size
    if not found.do_normalize:
        return _Pixels(_side(size, where), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    if found.image_mean is None or found.image_std is None or min(found.image_std) <= 0:
        raise UserError(
            f"{where}: image_mean and image_std (above 0) are missing; save the image processor "
            "again"
        )
    return _Pixels(_side(size, where), found.image_mean, found.image_std)


def _side(size: Any, where: str) -> int:
    """Return the side of a square that is written as a number or as {height, width}."""
    sides = set(size.values()) if isinstance(size, Mapping) else {size}
    if len(sides) != 1 or not isinstance(side := sides.pop(), int):
        raise UserError(f"{where}: pictures are not square: {size}")
    return side
