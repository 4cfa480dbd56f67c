"""MPM paint: a frozen language model reads, a UNet paints what it says.

Shapes: B batch, T positions, Z channels of the canvas, H and W its sides, C of the condition.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpm_eval.errors import UserError, unknown
from training.paint.canvas import Canvas
from training.paint.condition import Bridge, Condition, Reader, Sketch, pad_states
from training.paint.recipe import SAMPLERS, SamplingConfig
from training.paint.sampler import Predict, diffusers, guided, open_scheduler, sample

if TYPE_CHECKING:
    from PIL.Image import Image


PARTS = ("bridge", "sketch")  # what a painter can be made to do without


@dataclass(frozen=True)
class Guide:
    """What the UNet is told about the picture: attention to the condition, and its sketch."""

    c_BTC: Tensor
    mask_BT: Tensor
    sketch_BCHW: Tensor | None


class MPMPaint(nn.Module):
    """Hidden states of a frozen language model, a bridge, the cross-attention of a UNet."""

    def __init__(
        self,
        reader: Reader,
        bridge: Bridge,
        unet: Any,
        canvas: Canvas,
        sketch: Sketch | None,
        noise: Mapping[str, Any],
        size: int,
        sampling: SamplingConfig,
    ):
        super().__init__()
        self.lm, self.bridge, self.unet, self.canvas = reader.lm, bridge, unet, canvas
        self.sketch = sketch
        self.reader, self.noise, self.size, self.sampling = reader, noise, size, sampling
        self._schedule = diffusers().DDPMScheduler.from_config(dict(noise))

    @property
    def device(self) -> torch.device:
        return self.bridge.null_C.device

    @property
    def tokenizer(self) -> Any:
        return self.reader.tokenizer

    @property
    def never_sharded(self) -> tuple[nn.Module, ...]:
        """The language model: it reads prompts of one length at a time, so that processes run it
        unequally often, and those that share weights have to run them together."""
        return (self.lm,) if isinstance(self.lm, nn.Module) else ()

    def train(self, mode: bool = True) -> "MPMPaint":
        """Set the mode of what learns; language model and VAE stay as they are used."""
        super().train(mode)
        for part in (self.lm, self.canvas):
            if isinstance(part, nn.Module):
                part.eval()
        return self

    @property
    def num_times(self) -> int:
        """Steps of the noise schedule."""
        return int(self._schedule.config.num_train_timesteps)

    def guide(
        self,
        condition: Condition,
        dropped_B: Tensor | None = None,
        forgotten_B: Tensor | None = None,
        noise: float = 0.0,
    ) -> Guide:
        """Return what prompts tell the UNet; of dropped ones the learned null and no sketch.

        For training: `forgotten_B` as `Sketch` takes it; `noise` is the deviation of what is added
        to the standardised states.
        """
        h_BTLD, mask_BT = self.bridge.standardised(condition), condition.mask_BT
        if noise:
            h_BTLD = h_BTLD + noise * torch.randn_like(h_BTLD)
        sketch_BCHW = None
        if self.sketch is not None:
            sketch_BCHW = self.sketch(h_BTLD, mask_BT, forgotten_B)
            if dropped_B is not None:
                sketch_BCHW = sketch_BCHW * ~dropped_B[:, None, None, None]
        return Guide(self.bridge(h_BTLD, dropped_B), mask_BT, sketch_BCHW)

    def losses(
        self,
        x_BCHW: Tensor,
        guide: Guide,
        time_B: Tensor,
        noise_BZHW: Tensor,
    ) -> Tensor:
        """Return the mean squared error of each picture (in -1..1) at its time.

        The target is the noise, or v where the schedule says so (Salimans & Ho 2022).
        """
        z_BZHW = self.canvas.encode(x_BCHW, random=self.training)
        noisy_BZHW = self._schedule.add_noise(z_BZHW, noise_BZHW, time_B)
        found = self.predict(noisy_BZHW, time_B, guide)
        error = F.mse_loss(found.float(), self.target(z_BZHW, noise_BZHW, time_B), reduction="none")
        return error.mean(dim=(1, 2, 3))

    def target(self, z_BZHW: Tensor, noise_BZHW: Tensor, time_B: Tensor) -> Tensor:
        """Return what the UNet is to predict."""
        if self._schedule.config.prediction_type == "v_prediction":
            return self._schedule.get_velocity(z_BZHW, noise_BZHW, time_B)
        return noise_BZHW

    def predict(self, z_BZHW: Tensor, time_B: Tensor, guide: Guide) -> Tensor:
        """Return the UNet's prediction; padded positions get no attention."""
        if guide.sketch_BCHW is not None:
            size = z_BZHW.shape[-1] * self.size // self.canvas.shape(self.size)[-1]
            drawn_BZHW = self.canvas.encode(_resized(guide.sketch_BCHW, size), random=False)
            z_BZHW = torch.cat([z_BZHW, drawn_BZHW.to(z_BZHW.dtype)], dim=1)
        return self.unet(
            z_BZHW,
            time_B,
            encoder_hidden_states=guide.c_BTC,
            encoder_attention_mask=guide.mask_BT,
        ).sample

    def settings(self, steps: int = 0, guidance: float = -1.0, sampler: str = "") -> SamplingConfig:
        """Return how to paint; 0, -1 and "" stand for what the recipe says.

        Raises UserError for an unknown sampler, and more steps than the noise schedule has.
        """
        usual = self.sampling
        scale = usual.guidance if guidance < 0 else guidance
        found = SamplingConfig(sampler or usual.sampler, steps or usual.steps, scale)
        if found.sampler not in SAMPLERS:
            raise unknown("sampler", found.sampler, SAMPLERS)
        if not 1 <= found.steps <= self.num_times:
            raise UserError(f"steps: must be from 1 to {self.num_times}, got {found.steps}")
        return found

    def unlearn(self, part: str) -> None:
        """Take away what a part learned, to paint the floor that it is measured against.

        "bridge": its weights are drawn anew, its fixed statistics stay; "sketch": it is empty, as
        for a dropped prompt. Raises UserError for another part, and one that the model lacks.
        """
        if part not in PARTS:
            raise unknown("part", part, PARTS)
        if part == "bridge":
            torch.manual_seed(0)
            self.bridge.linear.reset_parameters()
            self.bridge.norm.reset_parameters()
            nn.init.normal_(self.bridge.null_C)
            nn.init.zeros_(self.bridge.mix_L)
        elif self.sketch is None:
            raise UserError("this painter has no sketch to do without")
        else:
            self.sketch.picture_NCHW.zero_()

    @torch.no_grad()
    def paint(
        self,
        prompts: Sequence[str],
        languages: Sequence[str],
        seeds: Sequence[int],
        steps: int = 0,
        guidance: float = -1.0,
        sampler: str = "",
    ) -> "list[Image | None]":
        """Return one RGB picture per prompt; None where the values were not finite.

        Settings as `settings` takes them. Every picture is painted by itself: matrix products
        round differently in batches, and a picture must depend on prompt and seed alone. Raises
        ValueError for a blank prompt, and UserError as `settings` does.
        """
        told = self.settings(steps, guidance, sampler)
        pictures: list[Image | None] = []
        for prompt, language, seed in zip(prompts, languages, seeds, strict=True):
            condition = pad_states(self.reader.states([prompt]), self.bridge.rows([language]))
            z = sample(
                self._predictor(condition.to(self.device), told.guidance),
                open_scheduler(told.sampler, self.noise, self.canvas.clips),
                self.canvas.shape(self.size),
                seed,
                told.steps,
                self.device,
            )
            pictures.append(_to_picture(self.canvas.decode(z)[0]))
        return pictures

    def _predictor(self, condition: Condition, guidance: float) -> Predict:
        """Return the UNet under guidance of one prompt; without any the empty one is not run."""
        if guidance == 1:
            alone = self.guide(condition)
            return lambda z_BZHW, time: self.predict(z_BZHW, time, alone)
        twice = Condition(*(torch.cat([v, v]) for v in (
            condition.h_BTLD, condition.mask_BT, condition.language_B)))  # fmt: skip
        dropped_B = torch.tensor([True, False], device=self.device)
        guide = self.guide(twice, dropped_B)

        def predict(z_BZHW: Tensor, time: Tensor) -> Tensor:
            both = self.predict(torch.cat([z_BZHW, z_BZHW]), time, guide)
            return guided(both[:1], both[1:], guidance)

        return predict


def _resized(x_BCHW: Tensor, size: int) -> Tensor:
    """Return pictures with `size` pixels on both sides; smaller ones are means of areas."""
    if x_BCHW.shape[-1] == size:
        return x_BCHW
    if x_BCHW.shape[-1] > size:
        return F.interpolate(x_BCHW, size=size, mode="area")
    return F.interpolate(x_BCHW, size=size, mode="bilinear")


def _to_picture(x_CHW: Tensor) -> "Image | None":
    """Return values in -1..1 as an RGB picture; None when any is not finite."""
    from PIL import Image

    if not bool(torch.isfinite(x_CHW).all()):
        return None
    x_HWC = (x_CHW.float().clamp(-1, 1) * 127.5 + 127.5).round().byte().permute(1, 2, 0)
    return Image.fromarray(x_HWC.cpu().numpy())
