"""Weights and optimizers in parts on two processes: losses, weights and states of whole ones."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.fsdp import CPUOffloadPolicy
from torch.torch_version import TorchVersion

from mpm_eval.errors import UserError
from tests.training.conftest import PLAIN
from tests.training.paint_parts import small_diffusion
from tests.training.small_recipes import small_recipes
from training.optimizer import Optimizer
from training.sharding import check_sharding

pytestmark = pytest.mark.slow  # models are trained

REPOSITORY = Path(__file__).resolve().parents[2]
needs_deepspeed = pytest.mark.skipif(find_spec("deepspeed") is None, reason="deepspeed is missing")
VARIANTS: dict[str, tuple[str, ...]] = {
    "exact": ("engine.accumulation=2", "engine.mixed_precision=no"),
    # All that the loop can do, in stages that train the language model and in those that do not.
    "everything": (
        "engine.accumulation=3",
        "engine.mixed_precision=no",
        "engine.ema=0.5",
        "engine.gradient_checkpointing=true",
        "instruct.train_language_model=true",
        "align.steps=6",
        "align.learning_rate=0.005",
        "pretrain.steps=6",
        "pretrain.validate_every=2",
        "pretrain.learning_rate=0.005",
        "pretrain.warmup_steps=2",
    ),
    "half": ("engine.mixed_precision=bf16", "language_model.dtype=bfloat16"),
}
# LoRA and a whole language model, tied and untied words, towers, a UNet; `tiny` learns by Muon.
STREAMED = [
    ("siglip2_qwen", "exact"),
    ("viscpm", "exact"),
    ("viscpm", "half"),
    ("sd21_paint", "exact"),
]
COMPARED = {
    "fsdp": [*STREAMED, ("tiny", "everything")],
    "zero2": [*STREAMED, ("emoji_gemma_instruct", "everything")],
    "zero1": [("viscpm", "exact")],
}
CASES = [
    pytest.param(kind, *case, marks=[needs_deepspeed] if "zero" in kind else [])
    for kind, cases in COMPARED.items()
    for case in cases
]


@dataclass
class Trained:
    """What one run left."""

    folder: Path
    losses: list[list[Any]] = field(default_factory=list)  # stage, step, mean of the last losses
    shares: list[list[float]] = field(
        default_factory=list
    )  # by stage: of weights, of the optimizer
    autocast: list[bool] = field(default_factory=list)  # of what its language model computed
    stopped: int = 0


@pytest.fixture(scope="module")
def runs(
    lm_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Trained]:
    """Return all runs by "kind recipe variant", from one launch: it is what takes time."""
    root = tmp_path_factory.mktemp("sharded")
    small = small_recipes(root / "small", lm_folder)
    small["tiny"] = list(PLAIN)
    # Two captions in a micro-batch: of one length or of two, which are read one after the other.
    more = ["stream_paint.batch_size=8", "stream_refine.batch_size=8"]
    small["sd21_paint"] = [*small_diffusion(root / "sd", lm_folder), *more]
    small["emoji_gemma_instruct"] += ["align.noise=0.0", "bridge.dropout=0.0"]
    kinds = [kind for kind in COMPARED if find_spec("deepspeed") or "zero" not in kind]
    cases = {("whole", *case): None for kind in kinds for case in COMPARED[kind]}
    listed: list[list[Any]] = []
    for kind, recipe, variant in [*cases, *((k, *case) for k in kinds for case in COMPARED[k])]:
        name, settings = f"{kind} {recipe} {variant}", [*small[recipe], *VARIANTS[variant]]
        listed.append([name, recipe, str(root / name), settings, kind, None])
    for kind, recipe in (("fsdp", "tiny"), ("zero2", "emoji_gemma_instruct")):
        name, settings = f"resumed {kind}", [*small[recipe], *VARIANTS["everything"]]
        settings.append("save_every_s=0.0")
        for part, stop in ((kind, ["align", 3]), ("whole", ["pretrain", 3]), (kind, None)):
            if kind in kinds:
                listed.append([name, recipe, str(root / name), settings, part, stop])
    return launch(listed, root / "runs.json")


def launch(listed: list[Any], path: Path) -> dict[str, Trained]:
    path.write_text(json.dumps(listed))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    process = subprocess.run(
        [*launcher, "-m", "tests.training.sharded_worker", str(path)],
        cwd=REPOSITORY,
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    faults = [line for line in process.stderr.splitlines() if line.startswith("[rank0]")]
    assert process.returncode == 0, "\n".join(faults or [process.stderr])
    found = {name: Trained(Path(out)) for name, _, out, _, _, _ in listed}
    for line in process.stdout.splitlines():
        if line[:2] != '["':  # DeepSpeed's own words
            continue
        name, what, *values = json.loads(line)
        if what == "shares":
            found[name].shares.append(values)
        elif what == "autocast":
            found[name].autocast = values[0]
        elif what == "stopped":
            found[name].stopped += 1
        else:
            found[name].losses.append([what, *values])
    return found


@pytest.mark.parametrize(("kind", "recipe", "variant"), CASES)
def test_a_recipe_trains_the_same_in_parts_as_whole(
    runs: dict[str, Trained], kind: str, recipe: str, variant: str
) -> None:
    found, wanted = runs[f"{kind} {recipe} {variant}"], runs[f"whole {recipe} {variant}"]
    assert [line[:2] for line in found.losses] == [line[:2] for line in wanted.losses]
    rounding = 0.02 if variant == "half" else 5e-5  # FSDP gathers weights in half precision
    losses, expected = ([line[2] for line in run.losses] for run in (found, wanted))
    assert losses == pytest.approx(expected, rel=rounding)
    if recipe != "tiny" and "paint" not in recipe:
        assert found.autocast == wanted.autocast == [variant == "half"]
    if variant != "half":
        assert_same_weights(found.folder, wanted.folder)
    assert len(found.shares) == len(wanted.shares) >= 1  # stages with steps
    for (weights, updated), (all_weights, all_updated) in zip(
        found.shares, wanted.shares, strict=True
    ):
        assert all_weights == all_updated == 1
        if kind == "fsdp":  # a painter's language model is never in parts
            assert weights < (1 if "paint" in recipe else 0.52)
        else:
            assert weights == 1
        assert updated < 0.52


@pytest.mark.parametrize(
    ("kind", "recipe"),
    [
        ("fsdp", "tiny"),
        pytest.param("zero2", "emoji_gemma_instruct", marks=needs_deepspeed),
    ],
)
def test_a_run_that_stopped_in_parts_continues_whole_and_the_other_way_round(
    runs: dict[str, Trained], kind: str, recipe: str
) -> None:
    """With averaged and best weights and the state of the optimizers, Muon among them."""
    found, wanted = runs[f"resumed {kind}"], runs[f"whole {recipe} everything"]
    assert found.stopped == 2
    assert len(found.losses) == len(wanted.losses) + 2  # the steps that were not saved yet
    losses = {(stage, step): loss for stage, step, loss in found.losses}
    expected = {(stage, step): loss for stage, step, loss in wanted.losses}
    assert losses == pytest.approx(expected, rel=5e-5)
    assert_same_weights(found.folder, wanted.folder)


def assert_same_weights(found: Path, wanted: Path) -> None:
    values, expected = (load_file(folder / "model.safetensors") for folder in (found, wanted))
    assert values.keys() == expected.keys()
    for name, value in expected.items():  # half precision: one step of rounding
        torch.testing.assert_close(values[name], value, rtol=2e-3, atol=5e-4, msg=name)


def accelerator(kind: str, **plugin: Any) -> Any:
    state = SimpleNamespace(
        fsdp_plugin=SimpleNamespace(**{"cpu_offload": None, **plugin}),
        deepspeed_plugin=SimpleNamespace(deepspeed_config=plugin),
    )
    return SimpleNamespace(
        distributed_type=SimpleNamespace(value=kind), state=state, num_processes=4
    )


ZERO_2 = {"zero_optimization": {"stage": 2}}


@pytest.mark.parametrize(
    ("kind", "plugin", "precision", "message"),
    [
        ("FSDP", {"fsdp_version": 1}, "no", r"asks for FSDP 1; set fsdp_version: 2"),
        ("MEGATRON_LM", {}, "no", r"asks for MEGATRON_LM, .* set distributed_type: FSDP"),
        (
            "FSDP",
            {"fsdp_version": 2, "cpu_offload": CPUOffloadPolicy()},
            "no",
            r"FSDP offload: set fsdp_offload_params: false",
        ),
        ("DEEPSPEED", {"zero_optimization": {"stage": 3}}, "no", r"ZeRO 3; set zero_stage: 2 or 1"),
        ("DEEPSPEED", {"zero_optimization": {"stage": 0}}, "no", r"ZeRO 0; set zero_stage: 2 or 1"),
        (
            "DEEPSPEED",
            {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}},
            "no",
            r"offload the optimizer, .* set offload_optimizer_device: none",
        ),
        ("DEEPSPEED", ZERO_2, "fp16", r"engine\.mixed_precision: with DeepSpeed set bf16 or no"),
        (
            "DEEPSPEED",
            {**ZERO_2, "optimizer": {"type": "Adam"}},
            "no",
            r"config: optimizer: the recipe",
        ),
        (
            "DEEPSPEED",
            {**ZERO_2, "fp16": {"enabled": True}},
            "no",
            r"config: fp16: the recipe decides",
        ),
    ],
)
def test_a_config_that_cannot_be_followed_says_what_to_set(
    kind: str, plugin: dict[str, Any], precision: str, message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        check_sharding(accelerator(kind, **plugin), precision)
    assert "\n" not in str(caught.value)


def test_an_fsdp_config_is_completed_with_what_the_recipe_decides(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FSDP_CPU_RAM_EFFICIENT_LOADING", "true")
    given = accelerator(
        "FSDP", fsdp_version=2, auto_wrap_policy=None, activation_checkpointing=True
    )
    check_sharding(given, "bf16")
    plugin = given.state.fsdp_plugin
    assert plugin.auto_wrap_policy.__name__ == "transformer_auto_wrap_policy"
    assert plugin.activation_checkpointing is plugin.cpu_ram_efficient_loading is False
    assert os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] == "false"  # transformers reads it
    policy = plugin.mixed_precision_policy
    assert (policy.param_dtype, policy.reduce_dtype) == (torch.bfloat16, torch.float32)
    assert policy.output_dtype is None


def test_fsdp_on_an_older_torch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.8.1"))
    with pytest.raises(UserError, match=r"FSDP here needs torch 2\.9 or later; this is 2\.8\.1"):
        check_sharding(accelerator("FSDP", fsdp_version=2), "no")


def test_a_deepspeed_config_is_completed_with_what_the_recipe_decides() -> None:
    config: dict[str, Any] = {
        "bf16": {"enabled": True},
        "fp16": {"enabled": "auto"},
        "gradient_accumulation_steps": 8,
        "train_micro_batch_size_per_gpu": "auto",
        "zero_optimization": {"stage": 2, "reduce_bucket_size": "auto", "overlap_comm": True},
    }
    deepspeed = accelerator("DEEPSPEED", **config)
    check_sharding(deepspeed, "bf16")
    assert deepspeed.state.deepspeed_plugin.deepspeed_config == {
        "bf16": {"enabled": False},
        "fp16": {"enabled": False},
        "gradient_accumulation_steps": 1,
        "gradient_clipping": 1.0,
        "train_batch_size": 4,
        "train_micro_batch_size_per_gpu": 1,
        "zero_optimization": {"stage": 2, "overlap_comm": True},
    }


def test_two_optimizers_are_one_too_many_for_deepspeed() -> None:
    weights = [(name, torch.nn.Parameter(torch.ones(2, 2))) for name in ("a", "embedding")]
    optimizer = Optimizer(weights, 0.1, muon=True)
    deepspeed = accelerator("DEEPSPEED")
    with pytest.raises(UserError, match=r"takes one optimizer, .* set distributed_type: FSDP"):
        optimizer.prepare(deepspeed, torch.nn.Identity(), torch.nn.Identity())
