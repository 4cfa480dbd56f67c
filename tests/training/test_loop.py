"""The training loop: any division of a batch, any interruption, any fault, and what is logged."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from mpm_eval.errors import UserError
from tests.training.conftest import PLAIN
from training.interface import architecture, train
from training.language_model import Block
from training.loop import Run, open_accelerator, run_stage
from training.optimizer import Optimizer, rate
from training.recipe import EngineConfig, load_recipe
from training.stages import open_stage
from training.stages.align import Align
from training.stages.base import Context, Stage
from training.stages.pretrain import Pretrain
from training.state import Copies, Progress, State
from training.tokenizer import Example

pytestmark = pytest.mark.slow  # models are trained

REPOSITORY = Path(__file__).resolve().parents[2]
STAGES = ("align", "spell", "pretrain", "instruct")
OneContext = Callable[..., Context]


@dataclass
class Trained:
    """A checkpoint with the mean loss so far after each step of each stage."""

    folder: Path
    losses: list[tuple[str, int, float]] = field(default_factory=list)

    @property
    def weights(self) -> dict[str, Tensor]:
        return load_file(self.folder / "model.safetensors")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, features: Path) -> Callable[..., Trained]:
    """Train PLAIN with some overrides."""

    def run(*overrides: str) -> Trained:
        found = Trained(tmp_path_factory.mktemp("trained") / "out")

        def told(stage: str, done: int, _total: int, loss: float, _speed: float) -> None:
            if stage in STAGES:
                found.losses.append((stage, done, loss))

        train("tiny", found.folder, [*PLAIN, *overrides], told, features)
        return found

    return run


@pytest.fixture(scope="module")
def plain(trained: Callable[..., Trained]) -> Trained:
    """One process, whole batches, float32: what every other way is compared with."""
    return trained()


def assert_same(found: Trained, plain: Trained, rel: float = 2e-5) -> None:
    assert [step[:2] for step in found.losses] == [step[:2] for step in plain.losses]
    for (_, _, loss), (stage, step, wanted) in zip(found.losses, plain.losses, strict=True):
        assert loss == pytest.approx(wanted, rel=rel), (stage, step)
    for name, wanted_weight in plain.weights.items():  # half precision: one step of rounding
        torch.testing.assert_close(
            found.weights[name], wanted_weight, rtol=2e-3, atol=3e-4, msg=name
        )


def same_bytes(
    a: Path, b: Path, names: Sequence[str] = ("model.safetensors", "training.json")
) -> bool:
    return all((a / name).read_bytes() == (b / name).read_bytes() for name in names)


def test_two_processes_give_the_losses_of_one_with_the_same_batch(
    plain: Trained, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    process = subprocess.run(
        [*launcher, "-m", "tests.training.worker", str(out), *PLAIN],
        cwd=REPOSITORY,
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    steps = [tuple(json.loads(line)) for line in process.stdout.splitlines() if line[:1] == "["]
    assert_same(Trained(out, [step for step in steps if step[0] in STAGES]), plain)
    assert not same_bytes(out, plain.folder, ["model.safetensors"])  # sums of another order


def test_accumulation_changes_neither_losses_nor_weights(
    trained: Callable[..., Trained], plain: Trained
) -> None:
    assert_same(trained("engine.accumulation=3"), plain)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("engine", ["engine.data_vocabulary=false", "engine.data_vocabulary=true"])
def test_the_losses_of_the_parts_of_a_batch_add_up(
    context_of: OneContext, stage: str, engine: str
) -> None:
    opened = open_stage(stage, context_of(engine))
    rng = random.Random(stage)
    for step in range(2):
        whole = opened.examples(step)
        with torch.no_grad():
            expected = float(opened.loss(whole, whole))
            for _ in range(3):
                shuffled = rng.sample(whole, len(whole))
                cuts = sorted(rng.sample(range(1, len(whole)), rng.randint(1, 4)))
                parts = [
                    shuffled[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)
                ]
                total = sum(float(opened.loss(part, whole)) for part in parts)
                assert total == pytest.approx(expected, rel=1e-5)


# Of the first step of each stage of PLAIN, by torch 2.13 on a CPU. Another torch may draw other
# random numbers; a change of the trainer that moves these changes what every recipe trains.
GOLDEN = {"align": 6.454466, "spell": 25.290846, "pretrain": 30.861679, "instruct": 12.931616}


def test_the_first_losses_of_a_fixed_recipe_are_the_recorded_ones(plain: Trained) -> None:
    first = {stage: loss for stage, step, loss in plain.losses if step == 1}
    assert first == pytest.approx(GOLDEN, rel=1e-4)


def test_bfloat16_trains_to_nearly_the_same_losses_with_weights_in_full_precision(
    trained: Callable[..., Trained], plain: Trained
) -> None:
    half = trained("engine.mixed_precision=bf16")
    losses = [loss for _, _, loss in half.losses]
    wanted = [loss for _, _, loss in plain.losses]
    assert losses == pytest.approx(wanted, rel=0.02)
    assert losses != pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("stage", ["align", "pretrain"])
def test_recomputing_activations_gives_the_same_gradients(
    context_of: OneContext, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []
    forward = Block.forward

    def counted(*arguments: Any) -> Tensor:
        passes.append(1)
        return forward(*arguments)

    monkeypatch.setattr(Block, "forward", counted)
    gradients, counts = [], []
    for recompute in ("false", "true"):
        context = context_of(
            f"engine.gradient_checkpointing={recompute}",
            "pretrain.matching=0.0",
            "pretrain.contrastive=0.0",
        )
        opened = open_stage(stage, context)
        context.model.train()
        context.model.requires_grad_(False)
        learned = [parameter.requires_grad_(True) for _, parameter in opened.parameters()]
        whole = opened.examples(0)
        passes.clear()
        gradients.append(torch.autograd.grad(opened.loss(whole, whole), learned))
        counts.append(len(passes))
    assert counts[1] > counts[0] == 2  # layers
    for plain_gradient, again in zip(*gradients, strict=True):
        torch.testing.assert_close(again, plain_gradient)


class Scripted(Pretrain):
    """Stage pretrain with given validation losses; notes what it was asked about."""

    values: Sequence[float]

    def validation_loss(self) -> float:
        seen = self.__dict__.setdefault("seen", [])
        seen.append(bridge(self.context))
        return self.values[len(seen) - 1]


def bridge(context: Context) -> Tensor:
    return context.model.bridge.queries.detach().clone()  # type: ignore[attr-defined]


def run_of(context: Context, folder: Path, told: Callable[..., None] = lambda *_: None) -> Run:
    recipe = context.recipe
    state = State(folder / "state.safetensors", recipe.sha256, architecture(recipe))
    progress, optimizer_state, copies = state.load(context.model)
    accelerator = open_accelerator(recipe.engine, folder)
    return Run(
        context, accelerator, state, progress, copies, optimizer_state, told, lambda: context.model
    )


def test_the_weights_of_the_lowest_validation_loss_are_kept(
    context_of: OneContext, tmp_path: Path
) -> None:
    context = context_of("pretrain.steps=5", "pretrain.validate_every=2")
    stage = Scripted(context, context.recipe.pretrain)  # type: ignore[arg-type]
    stage.values = [3.0, 1.0, 2.0]  # after steps 2 and 4, and at the end
    run = run_of(context, tmp_path)
    run_stage(stage, run)
    seen = stage.__dict__["seen"]
    assert len(seen) == 3 and not torch.equal(seen[1], seen[2])
    assert torch.equal(bridge(context), seen[1])
    assert run.progress.records[0].losses["validation"] == 1.0
    # Nothing of this stage is left over for the next one.
    assert (run.progress.best, run.copies) == (None, Copies())


def test_averaged_weights_are_the_known_mean_of_all_steps_and_replace_the_last(
    context_of: OneContext, tmp_path: Path
) -> None:
    decay = 0.75
    fast = ("pretrain.learning_rate=0.1", "pretrain.warmup_steps=1")
    context = context_of("pretrain.steps=4", f"engine.ema={decay}", *fast)
    weights = [bridge(context)]
    run = run_of(context, tmp_path, lambda *_: weights.append(bridge(context)))
    run_stage(open_stage("pretrain", context), run)
    average = weights[0]
    for value in weights[1:]:
        average = decay * average + (1 - decay) * value
    torch.testing.assert_close(bridge(context), average)
    assert not torch.allclose(average, weights[-1], atol=1e-4)


WATCHED = (
    *PLAIN,
    "engine.ema=0.5",
    "align.validate_every=2",
    "pretrain.steps=6",
    "pretrain.validate_every=2",
    "pretrain.learning_rate=0.3",  # too much, so that the best weights are not the last
    "pretrain.warmup_steps=1",
    "bridge.dropout=0.2",
)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train("tiny", tmp_path_factory.mktemp("watched") / "out", WATCHED)


def test_averages_and_best_weights_survive_kill_9(watched: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "tests.training.worker",
        str(out),
        *WATCHED,
        "save_every_s=0.0",
    ]
    for stage, step in (("pretrain", 3), ("pretrain", 5)):
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)[:2] == [stage, step]:
                break
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert {"average", "best"} <= {
        name.partition("|")[0] for name in load_file(out / "work" / "state.safetensors")
    }
    train("tiny", out, [*WATCHED, "save_every_s=0.0"])
    assert same_bytes(out, watched)


def test_best_weights_are_not_the_last_in_the_run_that_was_killed(watched: Path) -> None:
    """Without which the test above would prove little."""
    pretrain = json.loads((watched / "training.json").read_text())["stages"][2]
    assert pretrain["name"] == "pretrain"
    assert pretrain["losses"]["validation"] < pretrain["losses"]["last"]


def interrupted(out: Path, features: Path, stage: str, step: int, overrides: Sequence[str]) -> None:
    """Train until a step, and again to the end, as after Ctrl-C."""

    def stop(name: str, done: int, *_: float) -> None:
        if (name, done) == (stage, step):
            raise KeyboardInterrupt

    settings = [*PLAIN, *overrides, "save_every_s=0.0"]
    with pytest.raises(KeyboardInterrupt):
        train("tiny", out, settings, stop, features)
    train("tiny", out, settings, features=features)


def test_a_stage_that_trains_the_language_model_resumes_exactly(
    trained: Callable[..., Trained], features: Path, tmp_path: Path
) -> None:
    override = "instruct.train_language_model=true"
    interrupted(tmp_path / "out", features, "instruct", 3, [override])
    assert same_bytes(tmp_path / "out", trained(override).folder)


def finite(state: Path) -> bool:
    return all(bool(value.isfinite().all()) for value in load_file(state).values())


def test_a_loss_that_is_no_number_ends_in_one_line_and_leaves_a_whole_state(
    plain: Trained, features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = Align.loss

    def broken(self: Align, examples: Sequence[Example], whole: Sequence[Example]) -> Tensor:
        bad = float("nan") if len(self.context.__dict__.setdefault("calls", [])) == 2 else 1.0
        self.context.__dict__["calls"].append(1)
        return loss(self, examples, whole) * bad

    out, settings = tmp_path / "out", [*PLAIN, "save_every_s=0.0"]
    with monkeypatch.context() as patched:
        patched.setattr(Align, "loss", broken)
        with pytest.raises(UserError, match=r"align: loss nan, .*lower align\.learning_rate") as e:
            train("tiny", out, settings, features=features)
    assert "at step 2" in str(e.value) and "\n" not in str(e.value)
    assert finite(out / "work" / "state.safetensors")
    train("tiny", out, settings, features=features)
    assert same_bytes(out, plain.folder)


def test_a_learning_rate_that_blows_up_ends_in_one_line(features: Path, tmp_path: Path) -> None:
    settings = [*PLAIN, "align.learning_rate=1e30", "align.warmup_steps=1", "save_every_s=0.0"]
    with pytest.raises(UserError, match=r"^align: .*lower align\.learning_rate and start again$"):
        train("tiny", tmp_path, settings, features=features)


def test_a_validation_loss_that_is_no_number_ends_in_one_line(
    context_of: OneContext, tmp_path: Path
) -> None:
    context = context_of()
    stage = Scripted(context, context.recipe.pretrain)  # type: ignore[arg-type]
    stage.values = [float("nan")]
    with pytest.raises(UserError, match=r"pretrain: validation loss nan after 3 steps; lower"):
        run_stage(stage, run_of(context, tmp_path))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), None),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"), None),
        (RuntimeError("required rank 4 tensor to use channels_last memory format"), "rank 4"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), "mat1"),
    ],
)
def test_out_of_memory_says_what_to_lower_and_no_other_fault_is_taken_for_it(
    context_of: OneContext,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: RuntimeError,
    message: str | None,
) -> None:
    def fail(*_: Any) -> Tensor:
        raise error

    monkeypatch.setattr(Pretrain, "loss", fail)
    context = context_of()
    if message is not None:
        with pytest.raises(RuntimeError, match=message):
            run_stage(open_stage("pretrain", context), run_of(context, tmp_path))
        return
    with pytest.raises(UserError) as caught:
        run_stage(open_stage("pretrain", context), run_of(context, tmp_path))
    assert str(caught.value) == (
        "pretrain: out of memory with 8 examples per step; raise engine.accumulation, "
        "set engine.gradient_checkpointing, or lower pretrain.batch_size"
    )


def test_a_full_disk_while_saving_leaves_the_state_before_it_whole(
    plain: Trained, features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, settings = tmp_path / "out", [*PLAIN, "save_every_s=0.0"]
    state, kept = out / "work" / "state.safetensors", []
    fsync = os.fsync

    def full(handle: int) -> None:
        if state.is_file() and len(kept) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        kept.append(state.read_bytes() if state.is_file() else b"")
        fsync(handle)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(
            UserError, match=r"state\.safetensors: cannot be written \(No space"
        ) as e:
            train("tiny", out, settings, features=features)
    assert "what was there is unchanged" in str(e.value)
    assert state.read_bytes() not in kept  # the third save, which nothing overwrote
    assert [path.name for path in state.parent.iterdir()] == ["state.safetensors"]
    train("tiny", out, settings, features=features)
    assert same_bytes(out, plain.folder)


def test_more_processes_than_examples_are_told(context_of: OneContext, tmp_path: Path) -> None:
    context = context_of()
    context.process = (0, 9)
    with pytest.raises(UserError, match=r"pretrain\.batch_size: 8 examples .* among 9 processes"):
        run_stage(open_stage("pretrain", context), run_of(context, tmp_path))


def test_processes_that_do_not_see_each_other_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"accelerate sees one; .* set ACCELERATE_USE_CPU=true"):
        open_accelerator(EngineConfig(), tmp_path)


def test_without_accelerate_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(UserError, match=r"needs accelerate: pip install 'mpm-eval\[train\]'"):
        open_accelerator(EngineConfig(), tmp_path)


def test_a_config_that_accelerate_cannot_follow_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setattr("accelerate.accelerator.is_deepspeed_available", lambda: False)
    with pytest.raises(UserError, match=r"^accelerate's config: DeepSpeed is not installed"):
        open_accelerator(EngineConfig(), tmp_path)


@pytest.mark.parametrize("tracker", ["tensorboard", "trackio"])
def test_a_tracker_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tracker: str
) -> None:
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", lambda: [])
    with pytest.raises(
        UserError, match=f"engine.tracker: {tracker} is missing: pip install {tracker}"
    ):
        open_accelerator(EngineConfig(tracker=tracker), tmp_path)


def test_tensorboard_gets_the_losses_and_its_files_outlive_the_training(
    features: Path, tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    settings = [*PLAIN, "engine.tracker=tensorboard"]
    losses: list[float] = []

    def told(stage: str, done: int, _total: int, loss: float, _speed: float) -> None:
        if stage == "align":
            losses.append(loss)

    train("tiny", tmp_path / "out", settings, told, features)
    logs = EventAccumulator(str(next((tmp_path / "out" / "logs").rglob("events*")).parent)).Reload()
    values = [event.value for event in logs.Scalars("align/loss")]
    means = [sum(values[: n + 1]) / (n + 1) for n in range(len(values))]
    assert means == pytest.approx(losses, rel=1e-5)


def test_a_tracker_changes_no_recipe() -> None:
    plain, tracked = (
        load_recipe("tiny", [*PLAIN, s]) for s in ("seed=0", "engine.tracker=trackio")
    )
    assert plain.sha256 == tracked.sha256


def accelerator_of(folder: Path) -> Any:
    return open_accelerator(EngineConfig(), folder)


def test_a_step_with_gradients_that_are_no_numbers_changes_nothing(tmp_path: Path) -> None:
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = Optimizer([("x", parameter)], 0.1, muon=False)
    parameter.grad = torch.tensor([1.0, float("nan"), 1.0])
    norm = optimizer.step(accelerator_of(tmp_path))
    assert not torch.isfinite(norm) and parameter.tolist() == [1.0, 1.0, 1.0]


def test_an_older_torch_is_told_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.optim, "Muon")
    matrix = torch.nn.Parameter(torch.ones(2, 2))
    Optimizer([("x", matrix)], 0.1, muon=False)
    with pytest.raises(UserError, match=r"learns by torch\.optim\.Muon, .* install torch 2\.9"):
        Optimizer([("x", matrix)], 0.1, muon=True)


def test_gradients_are_clipped_to_norm_one(tmp_path: Path) -> None:
    parameter = torch.nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([30.0, 40.0])
    norm = Optimizer([("x", parameter)], 0.1, muon=False).step(accelerator_of(tmp_path))
    assert float(norm) == pytest.approx(50)
    assert parameter.grad.tolist() == pytest.approx([0.6, 0.8])
    assert parameter.tolist() == pytest.approx([-0.1, -0.1])  # Adam's first step: the sign


def test_a_resumed_optimizer_lies_where_its_parameters_are(tmp_path: Path) -> None:
    """Saved tensors come into memory; the model may be on another device ("meta" stands for it)."""
    first = torch.nn.Parameter(torch.ones(2, 2))
    optimizer = Optimizer([("x", first)], 0.1, muon=False)
    first.grad = torch.ones(2, 2)
    optimizer.step(accelerator_of(tmp_path))
    there = torch.nn.Parameter(torch.ones(2, 2, device="meta"))
    resumed = Optimizer([("x", there)], 0.1, muon=False)
    resumed.load_state(optimizer.state())
    found = {key: value.device.type for key, value in resumed.state().items()}
    assert found == {"x|step": "cpu", "x|exp_avg": "meta", "x|exp_avg_sq": "meta"}


def test_the_schedule_warms_up_and_falls_to_a_twentieth() -> None:
    assert rate(0, 1000, 10) == pytest.approx(0.1, rel=1e-3)
    assert rate(9, 1000, 10) == pytest.approx(1.0, rel=1e-3)
    assert rate(500, 1000, 10) == pytest.approx(0.525)
    assert rate(999, 1000, 10) == pytest.approx(0.05, rel=1e-3)
    assert rate(0, 1, 0) == 1.0
    falling = [rate(step, 1000, 10) for step in range(10, 1000)]
    assert falling == sorted(falling, reverse=True)


def test_every_stage_has_the_seam_of_the_loop(context_of: OneContext) -> None:
    context = context_of()
    for name in STAGES:
        stage: Stage = open_stage(name, context)
        assert stage.name == name and not stage.draws_own and stage.state() == {}
        assert {n.partition(".")[0] for n, _ in stage.parameters()} <= {"lm", "bridge"}


def test_an_unfinished_run_starts_where_its_state_says(
    context_of: OneContext, tmp_path: Path
) -> None:
    progress = Progress(context_of().recipe.sha256, stage=2, step=1, curve=[5.0], best=4.0)
    context = context_of()
    run = run_of(context, tmp_path)
    run.state.save(
        context.model, progress, None, Copies({"a": torch.ones(1)}, {"b": torch.zeros(2)})
    )
    again = run_of(context, tmp_path)
    assert again.progress == progress
    assert again.copies.average["a"].tolist() == [1] and again.copies.best["b"].tolist() == [0, 0]
