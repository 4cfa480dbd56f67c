"""Samples per second and peak memory of stage pretrain against Hugging Face's Trainer.

    python benchmarks/training_step.py [--steps 5] [--rounds 2] [--recipe emoji_gemma] [--threads 1]

Same modules, same examples, same batch size, caption loss alone; every mode is a process of its
own, and modes take turns, so that a busy machine slows all of them. `trainer` is what one writes
first: the eye looks at every picture in every step, and the language model computes its loss from
`labels`. The other rows are our loop with one trick off. Cost: about 10 minutes on one core.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MODES = {
    "ours": "",
    "trainer": "transformers.Trainer on the same modules",
    "all_words": "softmax over the whole vocabulary",
    "all_positions": "softmax over the whole vocabulary at every position",
    "live_eye": "the frozen eye looks at every picture in every step",
    "float32": "the frozen language model in float32",
}
_PICTURES = 128
_WARM = 2  # steps that are not timed


def open_context(arguments: argparse.Namespace, mode: str) -> Any:
    """Return the trainer's context with features of a few pictures."""
    from training import interface

    off = {
        "all_words": ["engine.data_vocabulary=false"],
        "float32": ["language_model.dtype=float32"],
    }
    settings = [
        f"threads={arguments.threads}",
        f"pretrain.max_pictures={_PICTURES}",
        "pretrain.augmentations=1",
        "pretrain.contrastive=0.0",
        "pretrain.matching=0.0",
        "bridge.dropout=0.0",
        *off.get("all_words" if mode == "all_positions" else mode, []),
    ]
    recipe = interface.load_recipe(arguments.recipe, settings)
    torch.set_num_threads(arguments.threads)
    context, _ = interface._context(recipe)
    interface._list_pictures(context)
    from training.features import load_pictures

    keys = [picture.key for picture in context.pictures]
    pictures = load_pictures(context.corpus.data, keys)
    with torch.inference_mode():
        features = torch.cat([context.model.image_features(x) for x in pictures.split(32)])
    context.features_ANPC = features[None].clone()
    context.model.bridge.fit_features(context.features_ANPC[0])
    context.model.lm.settle()
    return context, pictures


def run_ours(arguments: argparse.Namespace, mode: str) -> dict[str, Any]:
    """Time our loop's step, whole or with one trick off."""
    from training.loop import Run, _Trainer, open_accelerator
    from training.stages import open_stage, pretrain
    from training.state import Copies, Progress

    context, pictures = open_context(arguments, mode)
    model = context.model
    if mode == "live_eye":

        def look(_: Any, examples: Any) -> Tensor:
            with torch.no_grad():
                return model.image_features(pictures[[e.image for e in examples]])

        pretrain.views = look
    if mode == "all_positions":
        model.answer_loss = lambda *given: every_position(model, *given)
    context.words  # noqa: B018 - made before the clock starts
    stage = open_stage("pretrain", context)
    accelerator = open_accelerator(context.recipe.engine, ".")
    progress = Progress(context.recipe.sha256)
    run = Run(
        context,
        accelerator,
        None,  # type: ignore[arg-type]
        progress,
        Copies(),
        {},
        lambda *_: None,
        lambda: model,
    )
    trainer = _Trainer(stage, run)
    model.train()
    losses, times = [], []
    for step in range(_WARM + arguments.steps):
        began = time.perf_counter()
        losses.append(trainer.step(step))
        times.append(time.perf_counter() - began)
    return result(losses, times, context)


def every_position(model: Any, batch: Any, state_BTD: Tensor, num_tokens: int, _: Any) -> Tensor:
    """Return the caption loss from logits at all positions, as `labels=` computes it."""
    logits = model.lm.logits(state_BTD).float()
    labels = batch.ids_BT[:, 1:].masked_fill(~batch.answer_BT[:, 1:], -100)
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum") / num_tokens


class Plain(nn.Module):
    """Eye, bridge and language model as one writes them first."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor, input_ids: Tensor, source: Tensor, labels: Tensor) -> Any:
        with torch.no_grad():
            features = self.model.image_features(pixels)
        visual = self.model.visual_tokens(features)
        x_BTD = self.model.lm.embed(input_ids)
        x_BTD = x_BTD.masked_scatter(source[..., None], visual.to(x_BTD.dtype))
        return self.model.lm.model(inputs_embeds=x_BTD, labels=labels, use_cache=False)


def run_trainer(arguments: argparse.Namespace) -> dict[str, Any]:
    """Time transformers' Trainer on the examples of our steps."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from training.stages import open_stage

    context, pictures = open_context(arguments, "trainer")
    model, times, began = context.model, [], [0.0]
    stage = open_stage("pretrain", context)
    model.requires_grad_(False)
    for _, parameter in stage.parameters():
        parameter.requires_grad_(True)
    steps = _WARM + arguments.steps
    rows = [example for step in range(steps) for example in stage.examples(step)]

    def collate(examples: list[Any]) -> dict[str, Tensor]:
        batch = model.collate([model.tokenizer.example(e) for e in examples])
        labels = batch.ids_BT.masked_fill(~batch.answer_BT, -100)
        pixels = pictures[[e.image for e in examples]]
        return {
            "pixels": pixels,
            "input_ids": batch.ids_BT,
            "source": batch.source_BT,
            "labels": labels,
        }

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            began[0] = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append(time.perf_counter() - began[0])

    settings = TrainingArguments(
        output_dir="trainer", max_steps=steps, per_device_train_batch_size=stage.config.batch_size,
        learning_rate=stage.config.learning_rate, logging_steps=1, save_strategy="no",
        report_to=[], remove_unused_columns=False, use_cpu=True, disable_tqdm=True,
        dataloader_drop_last=True, warmup_steps=stage.config.warmup_steps,
    )  # fmt: skip
    trainer = Trainer(
        Plain(model), settings, data_collator=collate, train_dataset=rows, callbacks=[Clock()]
    )
    trainer._get_train_sampler = lambda *_: torch.utils.data.SequentialSampler(rows)  # type: ignore[method-assign]
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return result(losses, times, context)


def result(losses: list[float], times: list[float], context: Any) -> dict[str, Any]:
    """Return what a mode's process reports."""
    return {
        "samples_per_s": context.recipe.pretrain.batch_size / statistics.median(times[_WARM:]),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "losses": losses,
    }


def main() -> None:
    """Run every mode in a process of its own and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--recipe", default="emoji_gemma")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--mode", choices=MODES)
    arguments = parser.parse_args()
    if arguments.mode:
        one = (
            run_trainer(arguments)
            if arguments.mode == "trainer"
            else run_ours(arguments, arguments.mode)
        )
        print("RESULT " + json.dumps(one))
        return
    found: dict[str, list[dict[str, Any]]] = {mode: [] for mode in MODES}
    for _ in range(arguments.rounds):
        for mode, rounds in found.items():
            rounds.append(run_mode(mode))
            print(mode, rounds[-1], file=sys.stderr, flush=True)
    print_table(found)


def run_mode(mode: str) -> dict[str, Any]:
    """Return what a process of this mode reports."""
    command = [sys.executable, str(Path(__file__)), *sys.argv[1:], "--mode", mode]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        sys.exit(f"{mode}: {done.stderr[-2000:]}")
    return json.loads(lines[0].removeprefix("RESULT "))


def print_table(found: dict[str, list[dict[str, Any]]]) -> None:
    """Print the best round of each mode: a busy machine only ever takes time away."""
    speeds = {mode: max(one["samples_per_s"] for one in rounds) for mode, rounds in found.items()}
    print("| mode | samples/s | times the Trainer | peak memory, MB | loss of the first steps |")
    print("|---|--:|--:|--:|---|")
    for mode, speed in speeds.items():
        one = found[mode][0]
        losses = " ".join(f"{loss:.3f}" for loss in one["losses"][:4])
        ratio, peak = speed / speeds["trainer"], one["peak_mb"]
        print(f"| {mode} | {speed:.1f} | {ratio:.2f} | {peak:,.0f} | {losses} |")


if __name__ == "__main__":
    main()
