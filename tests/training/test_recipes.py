"""Every shipped recipe builds from shrunken backbones of the same classes and takes two steps."""

import io
import json
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from mpm_eval.errors import UserError
from mpm_eval.resources import shipped
from mpm_eval.zero_shot import label
from tests.training.conftest import SMALL
from tests.training.test_vision_tower import write as write_tower
from training.interface import load_checkpoint, plan, train

pytestmark = pytest.mark.slow  # models are trained

SHIPPED = {path.stem for path in shipped("recipes").glob("*.toml")}
ENGINE = ("threads=1", "engine.tracker=", "engine.accumulation=2")
CHAT = tuple(line for line in SMALL if not line.startswith(("language_model", "threads")))
LM = ("language_model.dtype=float32", "language_model.lora_rank=2")


def picture(number: int) -> Image.Image:
    return Image.new("RGB", (40 + number, 30), (9 * number, 200, 255 - 9 * number))


def encoded(number: int) -> bytes:
    stream = io.BytesIO()
    picture(number).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def streams(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Return (tars of captions, one of them corrupt, and lines of conversations)."""
    folder = tmp_path_factory.mktemp("streams")
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


@pytest.fixture(scope="module")
def settings(
    lm_folder: Callable[[str], Path],
    streams: tuple[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, list[str]]:
    """Return the overrides that shrink each shipped chat recipe."""
    captions, talk = streams
    towers = {
        name: write_tower(name, tmp_path_factory.mktemp("towers") / name)
        for name in ("siglip", "beit")
    }
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


def test_every_shipped_chat_recipe_is_tried(settings: dict[str, list[str]]) -> None:
    painting = {name for name in SHIPPED if name.endswith("_paint")}
    assert settings.keys() == SHIPPED - painting


@pytest.mark.parametrize("name", sorted(n for n in SHIPPED if not n.endswith("_paint")))
def test_a_recipe_takes_two_steps_and_answers(
    name: str, settings: dict[str, list[str]], tmp_path: Path
) -> None:
    planned = plan(name, settings[name])
    folder = train(name, tmp_path / "out", settings[name])
    model, record = load_checkpoint(folder)
    assert record is not None
    assert [stage.name for stage in record.stages] == [stage.name for stage in planned.stages]
    for stage, expected in zip(record.stages, planned.stages, strict=True):
        assert set(stage.trained) == set(expected.trained)
        if expected.multimodal_samples is not None:
            assert stage.multimodal_samples == expected.multimodal_samples
    visual = model.encode_pictures([picture(1), picture(2)])
    answers = model.generate(["What is this?", "Was?"], visual, 4)
    assert len(answers) == 2
    again = load_checkpoint(folder)[0].generate(["What is this?", "Was?"], visual, 4)
    assert again == answers


def test_a_stream_counts_its_languages_and_its_broken_pictures(
    settings: dict[str, list[str]], tmp_path: Path
) -> None:
    longer = [*settings["viscpm"], "stream_pretrain.steps=8", "stream_instruct.steps=8"]
    _, record = load_checkpoint(train("viscpm", tmp_path / "out", longer))
    assert record is not None
    pretrain, instruct = record.stages
    assert pretrain.multimodal_samples == {"en": 32} and pretrain.num_skipped >= 1
    assert set(instruct.multimodal_samples) == {"en", "zh"}
    assert instruct.trained == ("bridge", "lm") and pretrain.trained == ("bridge",)
    assert label(record, "zh") != "zero-shot"


def test_a_streamed_run_that_was_stopped_ends_as_one_that_was_not(
    settings: dict[str, list[str]], tmp_path: Path
) -> None:
    longer = [*settings["siglip2_qwen"], "stream_instruct.steps=5", "save_every_s=0.0"]

    def stop(stage: str, done: int, *_: float) -> None:
        if (stage, done) == ("instruct", 3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train("siglip2_qwen", tmp_path / "stopped", longer, stop)
    stopped = train("siglip2_qwen", tmp_path / "stopped", longer)
    whole = train("siglip2_qwen", tmp_path / "whole", longer)
    for name in ("model.safetensors", "training.json"):
        assert (stopped / name).read_bytes() == (whole / name).read_bytes()


def test_too_many_broken_pictures_stop_training(
    settings: dict[str, list[str]], tmp_path: Path
) -> None:
    strict = [*settings["viscpm"], "stream_pretrain.data.max_bad=0.0", "stream_pretrain.steps=8"]
    with pytest.raises(UserError, match=r"captions-1\.tar:005") as caught:
        train("viscpm", tmp_path / "out", strict)
    assert "\n" not in str(caught.value)


def test_a_dry_run_says_what_training_would_come_to_and_trains_nothing(
    settings: dict[str, list[str]],
    mpm_eval: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
) -> None:
    overrides = [part for line in settings["siglip2_qwen"] for part in ("--set", line)]
    done = mpm_eval("train", "siglip2_qwen", "--dry-run", *overrides)
    assert done.returncode == 0, done.stderr
    assert "memory (estimate)" in done.stdout and "streamed" in done.stdout
    assert not list(tmp_path.iterdir())


def test_planned_parameters_are_those_of_the_model(settings: dict[str, list[str]]) -> None:
    from training.interface import _context
    from training.recipe import load_recipe

    planned = plan("emoji_gemma", settings["emoji_gemma"])
    context, _ = _context(load_recipe("emoji_gemma", settings["emoji_gemma"]))
    for part, count in planned.parameters.items():
        assert count == sum(p.numel() for p in getattr(context.model, part).parameters())
