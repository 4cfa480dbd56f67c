"""Overrides that shrink every shipped chat recipe: tiny backbones of the same classes, few steps."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from tests.training.conftest import SMALL
from tests.training.test_vision_tower import write as write_tower

ENGINE = ("threads=1", "engine.tracker=", "engine.accumulation=2")
CHAT = tuple(line for line in SMALL if not line.startswith(("language_model", "threads")))
LM = ("language_model.dtype=float32", "language_model.lora_rank=2")


def picture(number: int) -> Image.Image:
    return Image.new("RGB", (40 + number, 30), (9 * number, 200, 255 - 9 * number))


def encoded(number: int) -> bytes:
    stream = io.BytesIO()
    picture(number).save(stream, "PNG")
    return stream.getvalue()


def write_streams(folder: Path) -> tuple[str, str]:
    """Return (tars of captions, one of them corrupt, and lines of conversations)."""
    folder.mkdir(parents=True)
    for shard in range(2):
        with tarfile.open(folder / f"captions-{shard}.tar", "w") as tar:
            for number in range(12):
                content = encoded(number) if (shard, number) != (1, 5) else b"no picture"
                for name, data in (("png", content), ("txt", f"a thing {number}".encode())):
                    info = tarfile.TarInfo(f"{number:03}.{name}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    with (folder / "talk.jsonl").open("w", encoding="utf-8") as lines:
        for number in range(16):
            (folder / f"{number}.png").write_bytes(encoded(number))
            turns = [
                {"from": "human", "value": "<image>\nWhat is this?"},
                {"from": "gpt", "value": f"a thing {number}"},
                {"from": "human", "value": "Sure?"},
                {"from": "gpt", "value": "yes"},
            ]
            row = {"id": str(number), "image": f"{number}.png", "conversations": turns}
            row["language"] = "zh" if number % 4 == 0 else "en"
            lines.write(json.dumps(row) + "\n")
    return str(folder / "captions-{0..1}.tar"), str(folder / "talk.jsonl")


def small_recipes(root: Path, lm_folder: Callable[[str], Path]) -> dict[str, list[str]]:
    """Write the backbones and streams below `root` and return the overrides by recipe."""
    captions, talk = write_streams(root / "streams")
    towers = {name: write_tower(name, root / name) for name in ("siglip", "beit")}
    streamed = [
        *ENGINE,
        "language_model.dtype=float32",
        f"stream_pretrain.data.source={captions}",
        f"stream_instruct.data.source={talk}",
        "stream_pretrain.data.max_bad=0.1",
        *(f"stream_{s}.{k}" for s in ("pretrain", "instruct") for k in ("steps=2", "batch_size=4")),
        *(f"stream_{stage}.held_out=3" for stage in ("pretrain", "instruct")),
    ]
    emoji = [
        *ENGINE,
        *CHAT,
        *LM,
        f"language_model.source={lm_folder('gemma3')}",
        "align.steps=2",
        "spell.steps=2",
        "spell.batch_size=4",
    ]
    tiny = [*SMALL, "align.steps=2", "pretrain.steps=2", "instruct.steps=2"]
    without = [line for line in emoji if not line.startswith("instruct")]
    memory = [
        *(line for line in emoji if line.split(".")[0] in ("engine", "vision", "language_model")),
        "bridge.width=6",
        "remember.max_pictures=24",
    ]
    return {
        "tiny": tiny,
        "tiny_no_pivot": tiny,
        "tiny_study": tiny,
        "emoji_gemma": without,
        "emoji_gemma_instruct": emoji,
        "emoji_gemma_memory": [*memory, "align.steps=2"],
        "emoji_gemma_study": [*memory, "instruct.steps=2", "instruct.batch_size=4"],
        "siglip2_qwen": [
            *streamed,
            f"language_model.source={lm_folder('qwen2')}",
            "language_model.lora_rank=2",
            f"vision.source={towers['siglip']}",
            "bridge.pool=1",
        ],
        "viscpm": [
            *streamed,
            f"language_model.source={lm_folder('llama')}",
            f"vision.source={towers['beit']}",
            "bridge.width=16",
            "bridge.num_heads=2",
            "bridge.num_tokens=4",
            "stream_instruct.data.language_column=language",
        ],
    }
