"""The plain bridge: its tokens are those of a plain MLP, pooled by hand, at the scale of words."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mpm_eval.errors import UserError
from training.mlp_bridge import MLPBridge, MLPConfig

WORDS_VD = torch.randn(50, 24, generator=torch.Generator().manual_seed(1)) * 0.03


def features(number: int = 64, patches: int = 16, channels: int = 12) -> torch.Tensor:
    """Return z_NPC with a mean and a scale of its own in each channel."""
    generator = torch.Generator().manual_seed(2)
    scale = torch.logspace(-1, 1, channels)
    return torch.randn(number, patches, channels, generator=generator) * scale + 5 * scale


def bridge(pool: int = 1, num_layers: int = 2) -> MLPBridge:
    torch.manual_seed(0)
    return MLPBridge(MLPConfig(pool=pool, num_layers=num_layers), 12, 24)


def test_a_token_is_the_mlp_of_its_patch_at_the_scale_of_words() -> None:
    built = bridge()
    built.fit_features(features())
    z_BPC = features()[:3]
    first, second = built.layers
    flat = features().flatten(0, 1)
    expected = second(F.gelu(first((z_BPC - flat.mean(0)) / flat.std(0))))
    expected = expected * WORDS_VD.square().mean().sqrt()
    torch.testing.assert_close(built(z_BPC, WORDS_VD), expected)


def test_pooling_averages_squares_of_the_grid_in_row_order() -> None:
    built = bridge(pool=2)
    z_BPC = features()[:2]
    grid = z_BPC.reshape(2, 4, 4, 12)
    averages = [
        grid[:, r : r + 2, c : c + 2].flatten(1, 2).mean(1) for r in (0, 2) for c in (0, 2)
    ]  # fmt: skip
    expected = bridge()(torch.stack(averages, dim=1), WORDS_VD)
    found = built(z_BPC, WORDS_VD)
    assert found.shape == (2, 4, 24)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("pool", [1, 2])
def test_fresh_tokens_are_as_large_as_words(num_layers: int, pool: int) -> None:
    torch.manual_seed(0)
    built = MLPBridge(MLPConfig(num_layers=num_layers, pool=pool), 256, 512)
    z_NPC = features(channels=256)
    built.fit_features(z_NPC)
    words_VD = torch.randn(50, 512) * 0.03
    tokens = built(z_NPC, words_VD).detach()
    assert float(tokens.square().mean().sqrt()) == pytest.approx(0.03, rel=0.1)


def test_depth_is_the_number_of_linear_layers() -> None:
    layers = [layer for layer in bridge(num_layers=3).layers if isinstance(layer, nn.Linear)]
    sizes = [(layer.in_features, layer.out_features) for layer in layers]
    assert sizes == [(12, 24), (24, 24), (24, 24)]


def test_a_batch_gives_what_its_pictures_give_alone() -> None:
    built = bridge(pool=2)
    z_BPC = features()[:5]
    alone = torch.cat([built(z[None], WORDS_VD) for z in z_BPC])
    torch.testing.assert_close(built(z_BPC, WORDS_VD), alone)


def test_words_get_no_gradient_and_the_statistics_are_saved() -> None:
    words_VD = WORDS_VD.clone().requires_grad_()
    built = bridge()
    built.fit_features(features())
    built(features()[:1], words_VD).sum().backward()
    assert words_VD.grad is None
    assert all(parameter.grad is not None for parameter in built.parameters())
    other = bridge()
    other.load_state_dict(built.state_dict())
    z_BPC = features()[:1]
    assert torch.equal(other(z_BPC, WORDS_VD), built(z_BPC, WORDS_VD))


def test_a_constant_channel_stays_finite() -> None:
    built = bridge()
    built.fit_features(torch.ones(4, 16, 12))
    assert bool(built(torch.ones(1, 16, 12), WORDS_VD).isfinite().all())


@pytest.mark.parametrize(
    ("config", "num_patches", "tokens"),
    [
        (MLPConfig(), 16, 16),
        (MLPConfig(), 17, 17),  # nothing is pooled: a class token does no harm
        (MLPConfig(pool=2), 16, 4),
        (MLPConfig(pool=3), 729, 81),
        (MLPConfig(pool=4), 16, 1),
    ],
)
def test_there_is_a_token_for_each_square(config: MLPConfig, num_patches: int, tokens: int) -> None:
    assert config.num_tokens(num_patches) == tokens
    built = MLPBridge(config, 4, 8)
    assert built(torch.zeros(1, num_patches, 4), torch.ones(3, 8)).shape == (1, tokens, 8)


@pytest.mark.parametrize(
    ("config", "num_patches", "message"),
    [
        (MLPConfig(pool=2), 17, "pool: 17 patches are not a square grid"),
        (MLPConfig(pool=2), 81, "pool: a grid of 9 x 9 patches cannot be divided into squares of 2; give one of 1, 3, 9"),
        (MLPConfig(pool=5), 16, "give one of 1, 2, 4"),
        (MLPConfig(pool=0), 16, "pool: must be at least 1, got 0"),
        (MLPConfig(num_layers=0), 16, "num_layers: must be at least 1, got 0"),
    ],
)  # fmt: skip
def test_a_grid_that_cannot_be_pooled_is_one_clear_line(
    config: MLPConfig, num_patches: int, message: str
) -> None:
    for use in (config.check, config.num_tokens):
        with pytest.raises(UserError) as caught:
            use(num_patches)
        assert message in str(caught.value) and "\n" not in str(caught.value)
