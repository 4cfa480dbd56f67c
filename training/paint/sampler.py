"""From noise to a picture: schedulers of diffusers, classifier-free guidance, one seed each.

Shapes: B batch, Z channels of a canvas, H and W its sides.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mpm_eval.errors import UserError

# z_1ZHW, timestep -> prediction
Predict = Callable[[Tensor, Tensor], Tensor]

_CLASSES = {
    "dpm": "DPMSolverMultistepScheduler",
    "ddim": "DDIMScheduler",
    "ddpm": "DDPMScheduler",
}


def diffusers() -> Any:
    """Return the package; UserError names the extra when it is missing."""
    try:
        import diffusers as package
    except ImportError:
        raise UserError("painting needs diffusers: pip install 'mpm-eval[paint]'") from None
    return package


def open_scheduler(sampler: str, config: Mapping[str, Any], clip: bool) -> Any:
    """Return a scheduler of diffusers for the noise schedule that the model was trained with.

    With `clip` the predicted picture stays within -1..1 at every step, as pixels do.
    """
    # "trailing" begins where the noise does begin (Lin et al. 2023, arXiv 2305.08891).
    settings: dict[str, Any] = {"timestep_spacing": "trailing"}
    if sampler == "dpm":
        # Its only way to clip: with this largest value the dynamic threshold is always 1. The
        # cosine schedule ends in noise alone, where the solver's half log-SNR would be infinite.
        settings |= {"thresholding": clip, "sample_max_value": 1.0, "lambda_min_clipped": -5.1}
    else:
        settings["clip_sample"] = clip
    return getattr(diffusers(), _CLASSES[sampler]).from_config(dict(config), **settings)


def guided(empty: Tensor, prompt: Tensor, guidance: float) -> Tensor:
    """Return empty + guidance (prompt - empty), classifier-free guidance (Ho & Salimans 2022)."""
    return empty + guidance * (prompt - empty)


def sample(
    predict: Predict,
    scheduler: Any,
    shape: tuple[int, ...],
    seed: int,
    steps: int,
    device: torch.device,
) -> Tensor:
    """Return z_1ZHW, painted from the seed's noise in `steps` steps.

    All randomness is made on the CPU, so a seed begins with the same noise on every device. Values
    that are not finite are returned as they are.
    """
    # torch's generator of a CPU reads 32 bits of a seed: two seeds could begin with one noise.
    first = np.random.default_rng(seed).standard_normal((1, *shape), dtype=np.float32)
    noise = torch.from_numpy(first).to(device)
    generator = torch.Generator().manual_seed(seed)
    scheduler.set_timesteps(steps, device=device)
    z = noise * scheduler.init_noise_sigma
    for time in scheduler.timesteps:
        wanted = predict(scheduler.scale_model_input(z, time), time)
        z = scheduler.step(wanted.float(), time, z, generator=generator).prev_sample
    return z
