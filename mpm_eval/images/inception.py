"""Inception-v3 as the FID uses it: the network of 2015-12-05, its weights given by the user.

Shapes: B batch, C channels, H, W. Modules are named as in the published state dict.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpm_eval.errors import UserError
from mpm_eval.images.pictures import as_rgb
from mpm_eval.images.weights import from_hub, one_line
from mpm_eval.strict import file_sha256

if TYPE_CHECKING:
    from PIL.Image import Image

DIM = 2048
SIZE = 299  # pixels, both sides
RESIZES = {
    "": "bilinear,no-antialias:299",  # pytorch-fid
    "clean": "pil-bicubic,antialias:299",  # clean-fid
}
_BATCH = 16


class _Conv(nn.Module):
    """Convolution without bias, batch norm, ReLU; padded to the same size unless told."""

    def __init__(
        self,
        cin: int,
        cout: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        pad: bool | None = None,
    ):
        super().__init__()
        high, wide = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        same = stride == 1 if pad is None else pad
        padding = (high // 2, wide // 2) if same else (0, 0)
        self.conv = nn.Conv2d(cin, cout, (high, wide), stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(cout, eps=1e-3)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x_BCHW)))


# name in the state dict, channels, kernel, stride
_Layer = tuple[str, int, "int | tuple[int, int]", int]
# layers one after another; a list of two at the end is run side by side
_Branch = tuple["_Layer | list[_Layer]", ...]


class _Mixed(nn.Module):
    """Branches side by side, the last one a pooling, joined by channels."""

    def __init__(self, cin: int, branches: Sequence[_Branch], pool: str, pooled: int = 0):
        super().__init__()
        self.paths: list[tuple[tuple[str, ...], ...]] = []
        width = pooled or cin
        for branch in branches:
            channels, path = cin, []
            for step in branch:
                side_by_side = step if isinstance(step, list) else [step]
                for name, cout, kernel, stride in side_by_side:
                    self.add_module(name, _Conv(channels, cout, kernel, stride))
                path.append(tuple(layer[0] for layer in side_by_side))
                channels = sum(layer[1] for layer in side_by_side)
            self.paths.append(tuple(path))
            width += channels
        self.pool = pool
        if pooled:
            self.branch_pool = _Conv(cin, pooled, 1)
        self.width = width

    def forward(self, x_BCHW: Tensor) -> Tensor:
        found = []
        for path in self.paths:
            y = x_BCHW
            for names in path:
                y = torch.cat([self.get_submodule(name)(y) for name in names], dim=1)
            found.append(y)
        return torch.cat([*found, self._pooled(x_BCHW)], dim=1)

    def _pooled(self, x_BCHW: Tensor) -> Tensor:
        if self.pool == "halve":
            return F.max_pool2d(x_BCHW, 3, stride=2)
        if self.pool == "max":
            y = F.max_pool2d(x_BCHW, 3, stride=1, padding=1)
        else:  # TensorFlow leaves the padding out of the mean
            y = F.avg_pool2d(x_BCHW, 3, stride=1, padding=1, count_include_pad=False)
        return self.branch_pool(y)


def _a(cin: int, pooled: int) -> _Mixed:
    return _Mixed(
        cin,
        [
            (("branch1x1", 64, 1, 1),),
            (("branch5x5_1", 48, 1, 1), ("branch5x5_2", 64, 5, 1)),
            (
                ("branch3x3dbl_1", 64, 1, 1),
                ("branch3x3dbl_2", 96, 3, 1),
                ("branch3x3dbl_3", 96, 3, 1),
            ),
        ],
        "mean",
        pooled,
    )


def _b(cin: int) -> _Mixed:
    return _Mixed(
        cin,
        [
            (("branch3x3", 384, 3, 2),),
            (
                ("branch3x3dbl_1", 64, 1, 1),
                ("branch3x3dbl_2", 96, 3, 1),
                ("branch3x3dbl_3", 96, 3, 2),
            ),
        ],
        "halve",
    )


def _c(cin: int, inner: int) -> _Mixed:
    row, column = (1, 7), (7, 1)
    return _Mixed(
        cin,
        [
            (("branch1x1", 192, 1, 1),),
            (
                ("branch7x7_1", inner, 1, 1),
                ("branch7x7_2", inner, row, 1),
                ("branch7x7_3", 192, column, 1),
            ),
            (
                ("branch7x7dbl_1", inner, 1, 1),
                ("branch7x7dbl_2", inner, column, 1),
                ("branch7x7dbl_3", inner, row, 1),
                ("branch7x7dbl_4", inner, column, 1),
                ("branch7x7dbl_5", 192, row, 1),
            ),
        ],
        "mean",
        192,
    )


def _d(cin: int) -> _Mixed:
    return _Mixed(
        cin,
        [
            (("branch3x3_1", 192, 1, 1), ("branch3x3_2", 320, 3, 2)),
            (
                ("branch7x7x3_1", 192, 1, 1),
                ("branch7x7x3_2", 192, (1, 7), 1),
                ("branch7x7x3_3", 192, (7, 1), 1),
                ("branch7x7x3_4", 192, 3, 2),
            ),
        ],
        "halve",
    )


def _e(cin: int, pool: str) -> _Mixed:
    row, column = (1, 3), (3, 1)
    return _Mixed(
        cin,
        [
            (("branch1x1", 320, 1, 1),),
            (
                ("branch3x3_1", 384, 1, 1),
                [("branch3x3_2a", 384, row, 1), ("branch3x3_2b", 384, column, 1)],
            ),
            (
                ("branch3x3dbl_1", 448, 1, 1),
                ("branch3x3dbl_2", 384, 3, 1),
                [("branch3x3dbl_3a", 384, row, 1), ("branch3x3dbl_3b", 384, column, 1)],
            ),
        ],
        pool,
        192,
    )


class InceptionV3(nn.Module):
    """Szegedy et al. 2015 (arXiv 1512.00567), x_BCHW in -1..1 of 299 pixels to z_BC, C = 2048.

    As ported for the FID: means leave the padding out, and the last block takes a maximum where
    the paper takes a mean.
    """

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _Conv(3, 32, 3, 2)
        self.Conv2d_2a_3x3 = _Conv(32, 32, 3, pad=False)
        self.Conv2d_2b_3x3 = _Conv(32, 64, 3)
        self.Conv2d_3b_1x1 = _Conv(64, 80, 1)
        self.Conv2d_4a_3x3 = _Conv(80, 192, 3, pad=False)
        self.Mixed_5b = _a(192, 32)
        self.Mixed_5c = _a(self.Mixed_5b.width, 64)
        self.Mixed_5d = _a(self.Mixed_5c.width, 64)
        self.Mixed_6a = _b(self.Mixed_5d.width)
        self.Mixed_6b = _c(self.Mixed_6a.width, 128)
        self.Mixed_6c = _c(self.Mixed_6b.width, 160)
        self.Mixed_6d = _c(self.Mixed_6c.width, 160)
        self.Mixed_6e = _c(self.Mixed_6d.width, 192)
        self.Mixed_7a = _d(self.Mixed_6e.width)
        self.Mixed_7b = _e(self.Mixed_7a.width, "mean")
        self.Mixed_7c = _e(self.Mixed_7b.width, "max")

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x_BCHW)))
        x = F.max_pool2d(x, 3, stride=2)
        x = F.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)), 3, stride=2)
        for name, block in self.named_children():
            if name.startswith("Mixed"):
                x = block(x)
        return x.mean(dim=(2, 3))


class InceptionExtractor:
    """The features of the FID, resized as pytorch-fid does, or as clean-fid does."""

    distance = "FID"
    dim = DIM

    def __init__(self, network: InceptionV3, sha256: str, resize: str = "") -> None:
        self.name = "inception-clean" if resize else "inception"
        self.sha256 = sha256
        self._network, self._resize = network.eval(), resize
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._network.to(self._device)
        scale = "(x-128)/128" if resize else "2x/255-1"
        self.signature = (
            f"inception-v3-fid|sha256:{sha256[:16]}|resize:{RESIZES[resize]}|scale:{scale}"
            f"|torch:{torch.__version__}|device:{self._device.type}"
        )

    @torch.inference_mode()
    def __call__(self, images: "Sequence[Image]") -> np.ndarray:
        """Return features_NC in single precision, in order."""
        if not images:
            raise ValueError("images: no pictures to look at")
        found = []
        for start in range(0, len(images), _BATCH):
            batch = [as_rgb(image) for image in images[start : start + _BATCH]]
            x_BCHW = torch.stack([self._prepared(image) for image in batch])
            found.append(self._network(x_BCHW.to(self._device)).float().cpu().numpy())
        return np.concatenate(found)

    def _prepared(self, image: "Image") -> Tensor:
        """Return x_CHW of 299 pixels as the network reads it."""
        x_HWC = np.array(image, dtype=np.float32)
        if self._resize == "clean":
            return (torch.from_numpy(_clean(x_HWC)).permute(2, 0, 1) - 128) / 128
        x_CHW = torch.from_numpy(x_HWC).permute(2, 0, 1) / 255
        x = F.interpolate(x_CHW[None], (SIZE, SIZE), mode="bilinear", align_corners=False)
        return 2 * x[0] - 1


def _clean(x_HWC: np.ndarray) -> np.ndarray:
    """Return a picture resized as clean-fid does (Parmar et al. 2022, arXiv 2104.11222): Pillow's
    bicubic with antialias on floating-point channels, cut to 0..255 and not rounded."""
    from PIL import Image

    channels = [
        np.asarray(
            Image.fromarray(x_HWC[..., channel]).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        )
        for channel in range(3)
    ]
    return np.stack(channels, axis=-1).clip(0, 255)


def open_inception(argument: str) -> InceptionExtractor:
    """Return the extractor of a weights file, or of a model of the hub, "OWNER/NAME@REVISION".

    ":clean" at the end resizes as clean-fid does. The weights are those of pytorch-fid
    (pt_inception-2015-12-05, .pth or .safetensors). Raises UserError when they cannot be had or are
    of another network.
    """
    resize = ""
    if argument.endswith(":clean"):
        argument, resize = argument.removesuffix(":clean"), "clean"
    path = _locate(argument)
    network = InceptionV3()
    _fill(network, _read(path), path)
    return InceptionExtractor(network, file_sha256(path), resize)


def _locate(argument: str) -> Path:
    where = f"extractor 'inception:{argument}'"
    path = Path(argument).expanduser()
    if argument and path.is_file():
        return path
    patterns = ("*inception*.safetensors", "*inception*.pth")
    folder = from_hub(argument, where, patterns).folder
    found = sorted(path for pattern in patterns for path in folder.rglob(pattern))
    if len(found) != 1:
        raise UserError(
            f"{where}: {len(found)} files of weights named inception there, 1 expected; give the "
            "path of pt_inception-2015-12-05-6726825d.pth of pytorch-fid"
        )
    return found[0]


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file raises whatever its reader does
        raise UserError(f"{path}: cannot be read as weights: {one_line(error)}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: no state dict, a {type(content).__name__}")
    return content


def _fill(network: InceptionV3, state: dict[str, Tensor], path: Path) -> None:
    """Load a state dict; what counts batches is not needed, nor is the classifier."""
    needed = {
        name: value
        for name, value in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    for name, value in needed.items():
        found = state.get(name)
        if not isinstance(found, Tensor) or found.shape != value.shape:
            got = "missing" if not isinstance(found, Tensor) else f"of shape {tuple(found.shape)}"
            raise UserError(
                f"{path}: not the weights of the FID's Inception-v3: '{name}' is {got}, "
                f"{tuple(value.shape)} expected"
            )
    network.load_state_dict({name: state[name] for name in needed}, strict=False)
