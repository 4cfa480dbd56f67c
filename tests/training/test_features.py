"""Features of a frozen eye: computed once, and again when anything that decides them differs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mpm_eval.data._emoji_data import emoji_data
from mpm_eval.errors import UserError
from training.chat_model import ChatModel
from training.features import load_pictures, picture_features
from training.stages.base import Context

pytestmark = pytest.mark.slow  # torch is loaded


@pytest.fixture(scope="module")
def context(context_of: Callable[..., Context]) -> Context:
    """The eye of the small recipe is new; with larger weights it tells pictures apart."""
    context = context_of()
    torch.manual_seed(0)
    for parameter in context.model.vision.parameters():  # type: ignore[attr-defined]
        if parameter.dim() > 1:
            torch.nn.init.kaiming_normal_(parameter)
    return context


def compute(
    model: ChatModel, keys: list[str], cache: Path, **changed: Any
) -> tuple[torch.Tensor, list[tuple[int, int]]]:
    """Return (features z_ANPC, what was reported): nothing is reported when nothing is computed."""
    told: list[tuple[int, int]] = []
    settings = {"views": 2, "seed": 0, **changed}
    report = lambda *step: told.append(step)  # noqa: E731
    return picture_features(model, emoji_data(), keys, cache=cache, report=report, **settings), told


@pytest.fixture(scope="module")
def keys(context: Context) -> list[str]:
    return [picture.key for picture in context.pictures[:6]]


def test_the_first_view_is_the_picture_as_the_model_later_sees_it(
    context: Context, keys: list[str], tmp_path: Path
) -> None:
    features, _ = compute(context.model, keys, tmp_path / "f.safetensors")
    assert features.shape == (2, 6, 1, context.model.vision.dim)
    assert features.dtype == torch.float16
    with torch.inference_mode():
        alone = torch.cat(
            [context.model.image_features(x[None]) for x in load_pictures(emoji_data(), keys)]
        )
    torch.testing.assert_close(features[0].float(), alone, rtol=1e-3, atol=1e-3)
    assert (features[1].float() - alone).abs().max() > 0.05  # augmented


def test_equal_features_are_computed_once(
    context: Context, keys: list[str], tmp_path: Path
) -> None:
    cache = tmp_path / "f.safetensors"
    first, told = compute(context.model, keys, cache)
    assert told == [(6, 12), (12, 12)]
    again, told = compute(context.model, keys, cache)
    assert told == [] and torch.equal(first, again)


@pytest.mark.parametrize("change", ["seed", "views", "keys", "image size", "weights"])
def test_features_are_computed_again_when_what_decides_them_differs(
    context: Context,
    keys: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
) -> None:
    cache, model = tmp_path / "f.safetensors", context.model
    first, _ = compute(model, keys, cache)
    settings: dict[str, Any] = {"seed": {"seed": 1}, "views": {"views": 1}}.get(change, {})
    chosen = keys[::-1] if change == "keys" else keys
    if change == "image size":
        monkeypatch.setattr(model, "image_size", 64)
    bias = next(model.vision.parameters())  # type: ignore[attr-defined]
    kept = bias.detach().clone()
    with torch.no_grad():
        bias.view(-1)[0] += 1.0 if change == "weights" else 0.0
    try:
        found, told = compute(model, chosen, cache, **settings)
    finally:
        with torch.no_grad():
            bias.copy_(kept)
    assert told and not (found.shape == first.shape and torch.equal(found, first))


def test_a_damaged_cache_is_told(context: Context, keys: list[str], tmp_path: Path) -> None:
    cache = tmp_path / "f.safetensors"
    compute(context.model, keys, cache)
    cache.write_bytes(cache.read_bytes()[:-50])
    with pytest.raises(UserError, match=r"f\.safetensors: truncated"):
        compute(context.model, keys, cache)


def test_a_file_of_other_features_is_replaced(
    context: Context, keys: list[str], tmp_path: Path
) -> None:
    cache = tmp_path / "f.safetensors"
    save_file({"features": torch.zeros(2, 6, 1, 8)}, cache)
    features, told = compute(context.model, keys, cache)
    assert told and torch.equal(load_file(cache)["features"], features)
