"""How often the drawing that looks most alike is of the right concept: the floor of captions.

    python benchmarks/eye_floor.py [mpm-gemma-emoji]

For a checkpoint with a memory bridge, by the cosine of the eye's plain features and by the weights
of the memory. Fluent is the validation style, OpenMoji the test style; seen concepts only. Cost:
two minutes on one core.
"""

import sys

import numpy as np
import torch

from mpm_eval.data._emoji_data import codepoints, emoji_data
from mpm_eval.resources import shipped
from training.corpus import training_pictures
from training.interface import load_checkpoint
from training.memory_bridge import MemoryBridge


@torch.inference_mode()
def main() -> None:
    """Print one line per style."""
    name = sys.argv[1] if len(sys.argv) > 1 else "mpm-gemma-emoji"
    model, _ = load_checkpoint(shipped("model_cards") / name)
    bridge, data = model.bridge, emoji_data()
    if not isinstance(bridge, MemoryBridge):
        sys.exit(f"{name}: its bridge is not a memory")

    def look(keys: list[str]) -> torch.Tensor:
        pixels = (np.array(data.load_image(key).convert("RGB")) for key in keys)
        pictures = [torch.from_numpy(x).permute(2, 0, 1)[None].float() / 255 for x in pixels]
        return torch.cat([model.image_features(x_BCHW) for x_BCHW in pictures])

    trained = training_pictures(data)
    row = {p.concept.id: int(bridge.owner_N[i]) for i, p in enumerate(trained)}
    known_NF = bridge._unit(look([p.key for p in trained]))
    for style in ("fluent", "openmoji"):
        concepts = [c for c in data.concepts if c.split == "train" and style in c.pictures]
        z_BPC = look([f"{style}/{codepoints(c.pictures[style][0])}" for c in concepts])
        right_B = torch.tensor([row[c.id] for c in concepts])
        plain_B = bridge.owner_N[(bridge._unit(z_BPC) @ known_NF.T).argmax(-1)]
        memory_B = bridge.weights(z_BPC).argmax(-1)
        plain, memory = (100 * (x == right_B).float().mean() for x in (plain_B, memory_B))
        print(f"{style}: n {len(concepts)}, plain features {plain:.1f} %, memory {memory:.1f} %")


if __name__ == "__main__":
    main()
