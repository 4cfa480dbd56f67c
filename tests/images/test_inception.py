"""The network of the FID: names and shapes of the published state dict, and its two resizings."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional as F

from mpm_eval.errors import UserError
from mpm_eval.images.extractors import open_extractor
from mpm_eval.images.inception import InceptionExtractor, InceptionV3

# mseitzer/pytorch-fid b9c1811 on torchvision 0.28: fid_inception_v3().state_dict(), some of each
# kind; all 564 names besides fc.weight and fc.bias, and features of random weights, were equal.
PUBLISHED = {
    "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
    "Conv2d_2a_3x3.bn.running_var": (32,),
    "Conv2d_3b_1x1.conv.weight": (80, 64, 1, 1),
    "Conv2d_4a_3x3.conv.weight": (192, 80, 3, 3),
    "Mixed_5b.branch5x5_2.conv.weight": (64, 48, 5, 5),
    "Mixed_5b.branch_pool.conv.weight": (32, 192, 1, 1),
    "Mixed_5d.branch3x3dbl_3.conv.weight": (96, 96, 3, 3),
    "Mixed_6a.branch3x3.conv.weight": (384, 288, 3, 3),
    "Mixed_6b.branch7x7_2.conv.weight": (128, 128, 1, 7),
    "Mixed_6c.branch7x7dbl_2.conv.weight": (160, 160, 7, 1),
    "Mixed_6e.branch7x7dbl_5.conv.weight": (192, 192, 1, 7),
    "Mixed_7a.branch3x3_2.conv.weight": (320, 192, 3, 3),
    "Mixed_7a.branch7x7x3_3.bn.bias": (192,),
    "Mixed_7b.branch3x3dbl_3b.conv.weight": (384, 384, 3, 1),
    "Mixed_7c.branch1x1.conv.weight": (320, 2048, 1, 1),
    "Mixed_7c.branch_pool.bn.num_batches_tracked": (),
}


@pytest.fixture(scope="module")
def network() -> InceptionV3:
    torch.manual_seed(0)
    return InceptionV3().eval()


def test_names_and_shapes_are_the_published_ones(network: InceptionV3) -> None:
    state = network.state_dict()
    assert {name: tuple(state[name].shape) for name in PUBLISHED} == PUBLISHED
    assert len(state) == 564
    # torchvision's inception_v3 has 23,834,568 parameters without auxiliary logits, its fc 2,049,000
    assert sum(value.numel() for value in network.parameters()) == 23_834_568 - 2_049_000
    assert {name.split(".")[0] for name in state} == {
        *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3"),
        *("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d"),
        *("Mixed_6e", "Mixed_7a", "Mixed_7b", "Mixed_7c"),
    }


@pytest.mark.slow
def test_maps_have_the_sizes_of_the_paper(network: InceptionV3) -> None:
    sizes: dict[str, int] = {}
    handles = [
        block.register_forward_hook(
            lambda _block, _in, out, name=name: sizes.__setitem__(name, out.shape[-1])
        )
        for name, block in network.named_children()
    ]
    with torch.inference_mode():
        network(torch.zeros(1, 3, 299, 299))
    for handle in handles:
        handle.remove()
    # Szegedy et al. 2015, table 1
    assert [sizes[f"Conv2d_{part}"] for part in ("1a_3x3", "2a_3x3", "2b_3x3")] == [149, 147, 147]
    assert [sizes[f"Conv2d_{part}"] for part in ("3b_1x1", "4a_3x3")] == [73, 71]
    assert [sizes[f"Mixed_{part}"] for part in ("5b", "5d", "6a", "6e", "7a", "7c")] == [
        *(35, 35, 17, 17, 8, 8)
    ]


def test_pooling_is_the_fids(network: InceptionV3) -> None:
    def pooled(name: str, x_BCHW: torch.Tensor) -> torch.Tensor:
        block = network.get_submodule(name)
        own, block.branch_pool = block.branch_pool, torch.nn.Identity()
        found = block._pooled(x_BCHW)
        block.branch_pool = own
        return found

    corner = torch.zeros(1, 1, 3, 3)
    corner[..., 0, 0] = 36.0
    # means leave the padding out: 4 places in the corner, 6 at an edge, 9 inside
    mean = torch.tensor([[9.0, 6.0, 0.0], [6.0, 4.0, 0.0], [0.0, 0.0, 0.0]])
    for name in ("Mixed_5b", "Mixed_6e", "Mixed_7b"):
        torch.testing.assert_close(pooled(name, corner)[0, 0], mean)
    largest = torch.tensor([[36.0, 36.0, 0.0], [36.0, 36.0, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(pooled("Mixed_7c", corner)[0, 0], largest)


@pytest.mark.slow
def test_features_have_2048_dimensions_and_do_not_depend_on_the_batch(
    network: InceptionV3,
) -> None:
    extractor = InceptionExtractor(network, "0" * 64)
    pictures = [Image.new("RGB", (40, 30), "red"), Image.new("L", (299, 299), 7)]
    both = extractor(pictures)
    assert both.shape == (2, 2048) == (2, extractor.dim)
    assert both.dtype == np.float32
    np.testing.assert_array_equal(both, extractor(pictures))
    np.testing.assert_allclose(both[1:], extractor(pictures[1:]), rtol=1e-4, atol=1e-6)
    assert extractor.distance == "FID"


def test_the_resizing_is_pytorch_fids(network: InceptionV3) -> None:
    x_HWC = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    found = InceptionExtractor(network, "")._prepared(Image.fromarray(x_HWC))
    x = torch.from_numpy(x_HWC).permute(2, 0, 1)[None].float() / 255
    expected = F.interpolate(x, size=(299, 299), mode="bilinear", align_corners=False)[0] * 2 - 1
    torch.testing.assert_close(found, expected)


def test_the_clean_resizing_is_pillows_bicubic_with_antialias(network: InceptionV3) -> None:
    row, column = np.linspace(0, 250, 600), np.linspace(0, 5, 500)
    x_HWC = np.repeat((row[:, None] + column)[..., None], 3, axis=2).astype(np.uint8)
    found = InceptionExtractor(network, "", "clean")._prepared(Image.fromarray(x_HWC))
    rounded = Image.fromarray(x_HWC).resize((299, 299), Image.Resampling.BICUBIC)
    expected = (torch.from_numpy(np.array(rounded)).permute(2, 0, 1).float() - 128) / 128
    assert 0 < (found - expected).abs().max() <= 1.01 / 128  # theirs is rounded, axis by axis


def test_the_signature_names_weights_filter_size_and_scale(network: InceptionV3) -> None:
    plain, clean = (InceptionExtractor(network, "abc", mode) for mode in ("", "clean"))
    assert plain.signature.startswith(
        "inception-v3-fid|sha256:abc|resize:bilinear,no-antialias:299|scale:2x/255-1|torch:"
    )
    assert "|resize:pil-bicubic,antialias:299|scale:(x-128)/128|" in clean.signature


@pytest.mark.slow
def test_a_file_of_weights_is_opened_by_either_format(network: InceptionV3, tmp_path: Path) -> None:
    state = {**network.state_dict(), "fc.weight": torch.zeros(1008, 2048)}
    del state["Mixed_7c.branch_pool.bn.num_batches_tracked"]  # old files have none
    torch.save(state, tmp_path / "fid.pth")
    save_file(state, tmp_path / "fid.safetensors")
    picture = [Image.new("RGB", (20, 20), "blue")]
    pth = open_extractor(f"inception:{tmp_path / 'fid.pth'}")
    safe = open_extractor(f"inception:{tmp_path / 'fid.safetensors'}:clean")
    assert (pth.name, safe.name) == ("inception", "inception-clean")
    assert len(pth.sha256) == 64 and pth.sha256 != safe.sha256
    np.testing.assert_array_equal(pth(picture), InceptionExtractor(network, "")(picture))


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("code from a file of weights ran",))


def test_a_file_that_holds_code_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"Conv2d_1a_3x3.conv.weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match=r"evil\.pth: cannot be read as weights"):
        open_extractor(f"inception:{tmp_path / 'evil.pth'}")
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_mistakes_are_named(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    (tmp_path / "broken.safetensors").write_bytes(b"no weights")
    torch.save([1], tmp_path / "list.pth")
    for spec, message in (
        ("inception:", "no such file or folder; give one"),
        ("inception:./none.pth", "no such file or folder"),
        (f"inception:{tmp_path / 'other.pth'}", "'Conv2d_1a_3x3.conv.weight' is missing"),
        (f"inception:{tmp_path / 'broken.safetensors'}", "cannot be read as weights"),
        (f"inception:{tmp_path / 'list.pth'}", "no state dict, a list"),
        ("inceptoin:x", "unknown extractor 'inceptoin:x'; did you mean 'inception'"),
        ("efficientnet_lite0:x", "unknown extractor"),
    ):
        with pytest.raises(UserError, match=message):
            open_extractor(spec)


def test_no_pictures_are_a_mistake_of_the_program(network: InceptionV3) -> None:
    with pytest.raises(ValueError, match="no pictures"):
        InceptionExtractor(network, "")([])
