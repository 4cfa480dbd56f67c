"""Weights in parts on several processes: the losses, weights and states of whole ones."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mpm_eval.errors import UserError
from tests.training.conftest import PLAIN
from tests.training.small_recipes import small_recipes
from training.interface import train
from training.sharding import check_sharding

pytestmark = pytest.mark.slow  # models are trained

REPOSITORY = Path(__file__).resolve().parents[2]
FSDP = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
}
# All that the loop can do, on a stage that trains the language model as on those that do not.
ALL = (
    *PLAIN,
    "engine.accumulation=3",
    "engine.ema=0.5",
    "engine.gradient_checkpointing=true",
    "instruct.train_language_model=true",
    "pretrain.steps=5",
    "pretrain.validate_every=2",
)
STEADY = ("engine.accumulation=2", "engine.mixed_precision=no")
HALF = (*PLAIN, "engine.mixed_precision=bf16", "instruct.train_language_model=true")
Runs = Sequence[tuple[str, Path, Sequence[str]]]


def launch(runs: Runs, list_of_runs: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    list_of_runs.write_text(json.dumps([[r, str(out), list(o)] for r, out, o in runs]))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    return subprocess.Popen(
        [*launcher, "-m", "tests.training.sharded_worker", str(list_of_runs)],
        cwd=REPOSITORY,
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def lines(process: subprocess.Popen[str]) -> Iterator[list[Any]]:
    assert process.stdout is not None
    yield from (json.loads(line) for line in process.stdout if line[:1] == "[")


def trained(runs: Runs, list_of_runs: Path, environment: dict[str, str]) -> list[list[Any]]:
    process = launch(runs, list_of_runs, environment)
    found = list(lines(process))
    assert process.wait(300) == 0, process.stderr.read() if process.stderr else ""
    return found


def losses_by_run(told: Sequence[list[Any]]) -> list[list[list[Any]]]:
    found: list[list[list[Any]]] = []
    for line in told:
        if line[0] == "recipe":
            found.append([])
        elif line[0] != "parts" and "features" not in line[0]:
            found[-1].append(line)
    return found


def assert_same_weights(found: Path, wanted: Path) -> None:
    values, expected = (load_file(folder / "model.safetensors") for folder in (found, wanted))
    assert values.keys() == expected.keys()
    for name, value in expected.items():  # half precision: one step of rounding
        torch.testing.assert_close(values[name], value, rtol=2e-3, atol=5e-4, msg=name)


def test_every_kind_of_recipe_trains_the_same_in_parts_as_whole(
    lm_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    """LoRA and a whole language model, tied and untied words, streams, towers, Muon."""
    small = small_recipes(tmp_path / "small", lm_folder)
    shipped = ("emoji_gemma_instruct", "emoji_gemma_memory", "siglip2_qwen", "viscpm")
    recipes = [*((name, [*small[name], *STEADY]) for name in shipped), ("tiny", ALL)]
    kinds = {"whole": {}, "parts": FSDP}
    told = {
        kind: trained(
            [
                (name, tmp_path / kind / str(number), overrides)
                for number, (name, overrides) in enumerate([*recipes, ("tiny", HALF)])
            ],
            tmp_path / f"{kind}.json",
            environment,
        )
        for kind, environment in kinds.items()
    }
    whole, parts = (losses_by_run(told[kind]) for kind in kinds)
    assert len(whole) == len(parts) == len(recipes) + 1
    for number, (name, _) in enumerate(recipes):
        assert [line[:2] for line in parts[number]] == [line[:2] for line in whole[number]]
        wanted = [line[2] for line in whole[number]]
        assert [line[2] for line in parts[number]] == pytest.approx(wanted, rel=5e-5), name
        assert_same_weights(tmp_path / "parts" / str(number), tmp_path / "whole" / str(number))
    # In half precision the parts are rounded before they are gathered.
    assert [line[2] for line in parts[-1]] == pytest.approx([line[2] for line in whole[-1]], 0.02)
    shares = {
        kind: [line[1] / line[2] for line in told[kind] if line[0] == "parts"] for kind in kinds
    }
    assert set(shares["whole"]) == {1.0} and max(shares["parts"]) < 0.52
    assert len(shares["parts"]) == len(shares["whole"]) > len(recipes)  # one for each stage


def test_a_run_that_was_killed_in_parts_continues_whole_and_the_other_way_round(
    tmp_path: Path, features: Path
) -> None:
    """With averaged and best weights and the state of the optimizers, Muon among them."""
    overrides = [*ALL, "save_every_s=0.0"]
    out, wanted = tmp_path / "out", train("tiny", tmp_path / "wanted", overrides, features=features)

    def stop(stage: str, done: int, *_: float) -> None:
        if (stage, done) == ("pretrain", 3):
            raise KeyboardInterrupt

    process = launch([("tiny", out, overrides)], tmp_path / "runs.json", FSDP)
    for line in lines(process):
        if line[:2] == ["align", 2]:
            process.send_signal(signal.SIGTERM)
    assert process.wait(120) != 0
    with pytest.raises(KeyboardInterrupt):
        train("tiny", out, overrides, stop, features)
    steps = trained([("tiny", out, overrides)], tmp_path / "runs.json", FSDP)
    assert next(line for line in steps if line[0] == "pretrain")[1] in (3, 4)
    assert_same_weights(out, wanted)


def accelerator(kind: str, **plugin: Any) -> Any:
    state = SimpleNamespace(fsdp_plugin=SimpleNamespace(cpu_ram_efficient_loading=True, **plugin))
    return SimpleNamespace(distributed_type=SimpleNamespace(value=kind), state=state)


def test_what_cannot_be_followed_is_refused_and_says_what_to_set() -> None:
    with pytest.raises(UserError, match="asks for FSDP 1; set fsdp_version: 2"):
        check_sharding(accelerator("FSDP", fsdp_version=1))
    with pytest.raises(UserError, match=r"asks for MEGATRON_LM, .* set distributed_type: FSDP"):
        check_sharding(accelerator("MEGATRON_LM"))
    follows = accelerator("FSDP", fsdp_version=2)
    check_sharding(follows)
    assert follows.state.fsdp_plugin.cpu_ram_efficient_loading is False
