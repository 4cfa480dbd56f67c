"""The painter's parts: padding, guidance, targets, conditions, seeds, what is not finite."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mpm_eval.errors import UserError
from tests.training.paint_parts import SMALL_PAINT
from training.paint.canvas import Patches, open_canvas
from training.paint.checkpoint import open_painter
from training.paint.condition import (
    Bridge,
    Condition,
    Reader,
    Sketch,
    caption_states,
    pad_states,
)
from training.paint.model import MPMPaint
from training.paint.reading import open_lm
from training.paint.recipe import (
    CheckpointLM,
    ConditionConfig,
    PaintRecipe,
    PixelUNet,
    build_recipe,
)
from training.paint.sampler import guided, open_scheduler
from training.pretrained_lm import PretrainedConfig
from training.recipe import read_recipe

pytestmark = pytest.mark.slow  # diffusers is imported
Folder = Callable[[str], Path]


def recipe_of(*overrides: str) -> PaintRecipe:
    return build_recipe(*read_recipe("tiny_paint", [*SMALL_PAINT, *overrides]))


@pytest.fixture(scope="module")
def painter() -> MPMPaint:
    """An untrained painter whose UNet says something: its last layer starts away from nothing."""
    model, _ = open_painter(recipe_of())
    torch.manual_seed(3)
    for parameter in model.unet.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    return model.eval()


def padded(condition: Condition, more: int) -> Condition:
    """Return a condition with garbage behind its real positions."""
    count, _, layers, width = condition.h_BTLD.shape
    garbage = torch.full((count, more, layers, width), 7.0)
    unseen = torch.zeros(count, more, dtype=torch.bool)
    return Condition(
        torch.cat([condition.h_BTLD, garbage], dim=1),
        torch.cat([condition.mask_BT, unseen], dim=1),
        condition.language_B,
    )


def condition_of(painter: MPMPaint, prompts: list[str]) -> Condition:
    rows = painter.bridge.rows(["en"] * len(prompts))
    return pad_states(painter.reader.states(prompts), rows)


@torch.no_grad()
def predicted(painter: MPMPaint, condition: Condition, **more: Any) -> torch.Tensor:
    count = len(condition.language_B)
    z = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    time_B = torch.full((count,), 400)
    return painter.predict(z, time_B, painter.guide(condition, **more))


def test_padded_positions_change_nothing(painter: MPMPaint) -> None:
    condition = condition_of(painter, ["red apple", "dog"])
    plain, more = predicted(painter, condition), predicted(painter, padded(condition, 9))
    torch.testing.assert_close(plain, more, rtol=0, atol=1e-6)
    unmasked = padded(condition, 9)
    unmasked.mask_BT[:] = True
    assert (plain - predicted(painter, unmasked)).abs().max() > 1e-4


def test_a_prompt_beside_a_longer_one_gives_what_it_gives_alone(painter: MPMPaint) -> None:
    reader = Reader(painter.lm, painter.tokenizer, ConditionConfig(layers=(-1,)))
    short, long = reader.states(["dog", "person in suit levitating, light skin tone"])
    assert len(short) < len(long)
    rows = painter.bridge.rows(["en", "en"])
    together = predicted(painter, pad_states([short, long], rows))
    alone = predicted(painter, pad_states([short], rows[:1]))
    # Matrix products of one and of two rows round differently; a padded position that is seen
    # changes a hundred times as much.
    torch.testing.assert_close(together[:1], alone, rtol=0, atol=5e-6)


def test_a_dropped_prompt_leaves_no_trace_of_its_words(painter: MPMPaint) -> None:
    dropped = torch.tensor([True])
    one = predicted(painter, condition_of(painter, ["dog"]), dropped_B=dropped)
    other = condition_of(painter, ["red apple"])
    longer = pad_states([torch.cat([other.h_BTLD[0]] * 2)], other.language_B)
    found = predicted(painter, longer, dropped_B=dropped)
    torch.testing.assert_close(one, found, rtol=0, atol=1e-6)
    assert not torch.equal(one, predicted(painter, condition_of(painter, ["dog"])))


@pytest.fixture
def sketch() -> Sketch:
    """A sketch that remembers two pictures, each of one value."""
    found = Sketch(2, 1, 4)
    key_BTLD = torch.tensor([[[[0.0, 0, 0, 0]]], [[[6.0, 0, 0, 0]]]])
    values = torch.tensor([-0.5, 1.0])[:, None, None, None].expand(2, 3, 32, 32)
    found.fit(key_BTLD, torch.ones(2, 1, dtype=torch.bool), values)
    return found


@pytest.mark.parametrize(("place", "expected"), [(0, -0.5), (6, 1.0), (3, 0.25), (2.5, -0.1528)])
def test_a_sketch_is_the_mean_weighted_by_a_gaussian(
    sketch: Sketch, place: float, expected: float
) -> None:
    h_BTLD = torch.tensor([[[[place, 0.0, 0, 0]]]])
    found = sketch(h_BTLD, torch.ones(1, 1, dtype=torch.bool))
    assert found.shape == (1, 3, 32, 32)
    # Of squared distances a and b the weights are as exp(-a/5) and exp(-b/5): at 2.5 as 1 and 0.3012.
    assert found.mean().item() == pytest.approx(expected, abs=2e-3)


def test_a_sketch_sees_real_positions_alone_and_all_layers() -> None:
    torch.manual_seed(0)
    sketch = Sketch(5, 2, 6)
    sketch.fit(
        torch.randn(5, 3, 2, 6), torch.ones(5, 3, dtype=torch.bool), torch.rand(5, 3, 32, 32)
    )
    h_BTLD, mask_BT = torch.randn(2, 3, 2, 6), torch.ones(2, 3, dtype=torch.bool)
    plain = sketch(h_BTLD, mask_BT)
    garbage = torch.cat([h_BTLD, torch.full((2, 4, 2, 6), 9.0)], dim=1)
    unseen = torch.cat([mask_BT, torch.zeros(2, 4, dtype=torch.bool)], dim=1)
    torch.testing.assert_close(sketch(garbage, unseen), plain)
    for layer in (0, 1):
        other = h_BTLD.clone()
        other[:, 1, layer] += 3
        assert (sketch(other, mask_BT) - plain).abs().max() > 1e-3


def test_a_forgotten_concept_gives_nothing_to_the_sketch(sketch: Sketch) -> None:
    h_BTLD, mask_BT = torch.zeros(3, 1, 1, 4), torch.ones(3, 1, dtype=torch.bool)
    found = sketch(h_BTLD, mask_BT, torch.tensor([-1, 0, 1]))
    assert found[:, 0, 0, 0].tolist() == pytest.approx([-0.5, 1.0, -0.5], abs=2e-3)


def test_the_unet_sees_the_sketch_and_of_a_dropped_prompt_none(painter: MPMPaint) -> None:
    condition = condition_of(painter, ["dog"])
    guide = painter.guide(condition)
    assert guide.sketch_BCHW is not None
    z, time_B = torch.randn(1, 3, 8, 8), torch.tensor([400])
    other = replace(guide, sketch_BCHW=guide.sketch_BCHW + 1)
    with torch.no_grad():
        change = painter.predict(z, time_B, guide) - painter.predict(z, time_B, other)
    assert change.abs().max() > 1e-4
    dropped = painter.guide(condition, torch.tensor([True]))
    assert dropped.sketch_BCHW is not None and not dropped.sketch_BCHW.any()


def test_noise_on_the_states_reaches_the_condition_and_is_training_s(painter: MPMPaint) -> None:
    condition = condition_of(painter, ["dog"])
    plain, noisy = painter.guide(condition), painter.guide(condition, noise=1.0)
    assert not torch.equal(plain.c_BTC, noisy.c_BTC)
    assert torch.equal(plain.c_BTC, painter.guide(condition).c_BTC)


@pytest.mark.parametrize(
    ("guidance", "expected"), [(0.0, 2.0), (1.0, 5.0), (3.0, 11.0), (7.5, 24.5)]
)
def test_guidance_goes_from_the_empty_prediction_through_that_of_the_prompt(
    guidance: float, expected: float
) -> None:
    found = guided(torch.tensor([2.0]), torch.tensor([5.0]), guidance)
    assert found.item() == pytest.approx(expected)  # 2 + g (5 - 2)


def test_guidance_1_paints_what_the_prompt_alone_does(painter: MPMPaint) -> None:
    (plain,) = painter.paint(["dog"], ["en"], [5], guidance=1.0)
    usual = painter.bridge.null_C.data.clone()
    painter.bridge.null_C.data.fill_(float("nan"))
    (other,) = painter.paint(["dog"], ["en"], [5], guidance=1.0)
    painter.bridge.null_C.data.copy_(usual)
    (guided_one,) = painter.paint(["dog"], ["en"], [5], guidance=3.0)
    assert plain is not None and other is not None and guided_one is not None
    assert plain.tobytes() == other.tobytes() != guided_one.tobytes()


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_target_is_noise_or_velocity(prediction: str) -> None:
    from diffusers import DDPMScheduler

    model = open_painter(recipe_of(f"unet.prediction={prediction}"))[0]
    z, noise = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
    time_B = torch.tensor([10, 900])
    found = model.target(z, noise, time_B)
    if prediction == "epsilon":
        assert torch.equal(found, noise)
        return
    schedule = DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
    torch.testing.assert_close(found, schedule.get_velocity(z, noise, time_B))
    alpha = schedule.alphas_cumprod[time_B].sqrt()[:, None, None, None]
    sigma = (1 - schedule.alphas_cumprod[time_B]).sqrt()[:, None, None, None]
    torch.testing.assert_close(found, alpha * noise - sigma * z)  # Salimans & Ho 2022, appendix D


@pytest.mark.parametrize("sampler", ["dpm", "ddim", "ddpm"])
def test_a_picture_depends_on_prompt_and_seed_alone(painter: MPMPaint, sampler: str) -> None:
    alone = painter.paint(["dog"], ["en"], [2**62 + 1], sampler=sampler)[0]
    prompts, languages = ["red apple", "dog", "dog"], ["en", "en", "en"]
    together = painter.paint(prompts, languages, [4, 2**62 + 1, 1], sampler=sampler)
    assert alone is not None and all(picture is not None for picture in together)
    content = [picture.tobytes() for picture in together if picture is not None]
    assert content[1] == alone.tobytes()
    assert len(set(content)) == 3


@pytest.mark.parametrize("sampler", ["dpm", "ddim"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_a_perfect_prediction_leads_to_the_picture(sampler: str, prediction: str) -> None:
    noise = {"beta_schedule": "squaredcos_cap_v2", "prediction_type": prediction}
    scheduler = open_scheduler(sampler, noise, clip=True)
    scheduler.set_timesteps(10)
    clean = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(1)) * 2 - 1
    z = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    for time in scheduler.timesteps:
        alpha = scheduler.alphas_cumprod[time].sqrt()
        sigma = (1 - scheduler.alphas_cumprod[time]).sqrt()
        eps = (z - alpha * clean) / sigma
        told = eps if prediction == "epsilon" else alpha * eps - sigma * clean
        z = scheduler.step(told, time, z).prev_sample
    torch.testing.assert_close(z, clean, rtol=0, atol=0.02)


def test_values_that_are_not_finite_are_no_picture(
    painter: MPMPaint, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = painter.canvas.decode
    calls: list[int] = []

    def broken(z: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return whole(z) * (float("nan") if len(calls) == 2 else 1.0)

    monkeypatch.setattr(painter.canvas, "decode", broken)
    found = painter.paint(["dog"] * 3, ["en"] * 3, [1, 2, 3])
    assert [picture is None for picture in found] == [False, True, False]


def test_patches_keep_every_pixel() -> None:
    x = torch.randn(2, 3, 8, 8)
    canvas = Patches(2)
    z = canvas.encode(x, random=True)
    assert z.shape[1:] == canvas.shape(8) == (12, 4, 4)
    assert torch.equal(canvas.decode(z), x)


def test_a_centred_language_has_the_pivots_mean() -> None:
    torch.manual_seed(0)
    bridge = Bridge(ConditionConfig(centre=True), 6, 4, ("en", "de"))
    english = [torch.randn(3, 1, 6) for _ in range(40)]
    german = [h_TLD + 5 for h_TLD in english]
    bridge.fit(english, {"en": english, "de": german})
    en, de = bridge.rows(["en"]), bridge.rows(["de"])
    mask = torch.ones(1, 3, dtype=torch.bool)
    for a, b in zip(english, german, strict=True):
        left = bridge.standardised(Condition(a[None], mask, en))
        right = bridge.standardised(Condition(b[None], mask, de))
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-4)


def test_a_language_without_a_mean_has_that_of_its_base_or_of_all() -> None:
    bridge = Bridge(ConditionConfig(centre=True), 6, 4, ("en", "zh"))
    assert bridge.rows(["zh", "zh-Hant", "sw"]).tolist() == [1, 1, 2]
    bridge.fit([torch.ones(2, 1, 6)], {"en": [torch.ones(2, 1, 6)], "zh": [torch.zeros(2, 1, 6)]})
    assert bridge.mean_GLD[:, 0, 0].tolist() == [1.0, 0.0, 0.5]


def test_without_centring_the_language_changes_nothing(painter: MPMPaint) -> None:
    assert painter.bridge.rows(["en", "de", "xx"]).tolist() == [0, 0, 0]


@pytest.mark.parametrize("family", ["qwen2", "gemma3"])
def test_states_are_the_hidden_states_of_the_prompt(lm_folder: Folder, family: str) -> None:
    from transformers import AutoModelForCausalLM

    lm = open_lm(PretrainedConfig(source=str(lm_folder(family))))
    found = Reader(lm.lm, lm.tokenizer, ConditionConfig(layers=(0, 1, -1))).states(["a dog"])[0]
    ids = lm.tokenizer.prompt("", "a dog").ids
    whole = AutoModelForCausalLM.from_pretrained(lm_folder(family)).eval()
    with torch.no_grad():
        hidden = whole(torch.tensor([ids]), output_hidden_states=True).hidden_states
    expected = torch.stack([hidden[layer][0] for layer in (0, 1, -1)], dim=1)
    head = len(lm.tokenizer.frame.head)
    torch.testing.assert_close(found, expected[head:], rtol=1e-5, atol=1e-5)


def test_with_positions_question_the_words_of_the_prompt_are_not_seen(painter: MPMPaint) -> None:
    question = len(painter.tokenizer.prompt("What is this?", "dog").ids)
    short, long = painter.reader.states(["dog", "red apple"])
    assert len(short) == len(long) < question


def test_a_prompt_is_cut_at_its_limit(painter: MPMPaint) -> None:
    config = ConditionConfig(max_tokens=4)
    words = "one two three four five six seven eight nine ten"
    after = (
        len(painter.tokenizer.prompt("", "x").ids) - painter.tokenizer.prompt("", "x").source.stop
    )
    assert len(Reader(painter.lm, painter.tokenizer, config).states([words])[0]) == 4 + after


def test_states_of_captions_are_read_once(painter: MPMPaint, tmp_path: Path) -> None:
    reader, sha256 = painter.reader, "a model"
    first = caption_states(reader, ["dog", "red apple", "dog"], sha256, tmp_path / "c.safetensors")

    class Never(Reader):
        def states(self, prompts: Any) -> Any:
            raise AssertionError("read again")

    never = Never(reader.lm, reader.tokenizer, reader.config)
    again = caption_states(never, ["red apple", "dog"], sha256, tmp_path / "c.safetensors")
    for caption in ("dog", "red apple"):
        assert torch.equal(first.of([caption])[0], again.of([caption])[0])
        assert torch.equal(first.of([caption])[0], reader.states([caption])[0])
    with pytest.raises(AssertionError, match="read again"):
        caption_states(never, ["dog"], "another model", tmp_path / "c.safetensors")


def test_the_mean_of_layers_is_a_mean() -> None:
    config = ConditionConfig(layers=(0, 1), mix="mean")
    bridge = Bridge(config, 6, 4, ())
    h_BTLD = torch.randn(1, 3, 2, 6)
    torch.testing.assert_close(bridge(h_BTLD), bridge.norm(bridge.linear(h_BTLD.mean(2))))


def test_an_empty_prompt_is_refused(painter: MPMPaint) -> None:
    with pytest.raises(ValueError, match="empty prompt"):
        painter.paint([" "], ["en"], [0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sampler": "dmp"}, "unknown sampler 'dmp'; did you mean 'dpm'"),
        ({"steps": 1001}, "steps: must be from 1 to 1000, got 1001"),
    ],
)
def test_bad_settings_are_one_clear_line(
    painter: MPMPaint, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        painter.paint(["dog"], ["en"], [0], **settings)
    assert message in str(caught.value)


def test_a_layer_that_is_not_there_is_named(painter: MPMPaint) -> None:
    reader = Reader(painter.lm, painter.tokenizer, ConditionConfig(layers=(9,)))
    with pytest.raises(UserError, match=r"there is no layer 9; this language model has 0 .* to 4"):
        reader.states(["dog"])


def test_an_unknown_language_model_is_named() -> None:
    with pytest.raises(UserError, match="no folder and no model card 'mpm-tinny'"):
        open_lm(CheckpointLM(source="mpm-tinny"))


def test_without_diffusers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(UserError, match=r"pip install 'mpm-eval\[paint\]'"):
        open_canvas(PixelUNet(), 16)


def test_a_picture_has_the_values_of_the_canvas(painter: MPMPaint) -> None:
    from training.paint.model import _to_picture

    x = torch.tensor([-1.0, 1.0, 0.0]).reshape(3, 1, 1).expand(3, 2, 2)
    picture = _to_picture(x * 1.0)
    assert picture is not None
    assert np.asarray(picture)[0, 0].tolist() == [0, 255, 128]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["paint.stepz=3"], "unknown key 'stepz'; did you mean 'steps'?"),
        (["paint.drop=1.0"], "paint.drop: must be at least 0 and below 1, got 1.0"),
        (["paint.noise=-0.1"], "paint.noise: must be at least 0, got -0.1"),
        (["paint.noise=nan"], "paint.noise: must be at least 0, got nan"),
        (["paint.forget=1.0"], "paint.forget: must be at least 0 and below 1, got 1.0"),
        (["condition.layers=[]"], "condition.layers: is empty"),
        (["condition.question=''"], "condition.positions: there is no question"),
        (["condition.mix=max"], "condition.mix: unknown mix 'max'"),
        (["unet.size=9"], "unet.size: must be a multiple of 2, got 9"),
        (["unet.channels=[8]"], "channels and attention have different lengths"),
        (["unet.channels=[8,18]"], "unet.channels: must be multiples of num_groups (4)"),
        (["language_model.kind=tiny_decoder", "language_model.source=1"], "unknown key 'source'"),
        (['languages=["de"]'], "pivot 'en' is not among languages"),
        (["sampling.steps=0"], "sampling.steps: must be at least 1, got 0"),
    ],
)
def test_a_mistake_in_a_recipe_is_one_clear_line(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        recipe_of(*overrides)
    assert message in str(caught.value) and "\n" not in str(caught.value)
