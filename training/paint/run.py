"""Trains a painter's recipe from where it stands to its checkpoint."""

import shutil
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from mpm_eval.data._emoji_data import emoji_data
from mpm_eval.schema import StageRecord, TrainingRecord
from training.corpus import EmojiCorpus, training_pictures, validation_pictures
from training.folders import is_finished, open_work, versions
from training.loop import Report, Run, open_accelerator, run_stage
from training.paint.checkpoint import OpenedPainter, Parts, kept_state, open_painter, save_painter
from training.paint.condition import caption_states
from training.paint.model import MPMPaint
from training.paint.recipe import PaintRecipe
from training.stages.paint import PaintContext, caption_texts, centring_texts, open_paint_stage
from training.state import State


class _State(State):
    """The state of a painter's run."""

    parts: Any

    def kept(self, model: Any) -> dict[str, Tensor]:
        return kept_state(model, cast(Parts, self.parts))


def train_painter(recipe: PaintRecipe, out: Path, report: Report, features: Path | None) -> Path:
    """Train to the end and return the checkpoint's folder; continues an interrupted run.

    `features` is a folder that keeps the captions' hidden states, for other runs to use.
    """
    if is_finished(out, recipe.sha256):
        return out
    work = open_work(out)
    torch.set_num_threads(recipe.threads)
    accelerator = open_accelerator(recipe.engine, out / "logs")

    def reopen() -> tuple[MPMPaint, OpenedPainter]:
        model, opened = open_painter(recipe)
        if recipe.engine.gradient_checkpointing:
            model.unet.enable_gradient_checkpointing()
        return model.to(accelerator.device), opened

    model, opened = reopen()
    context = PaintContext(recipe, model, EmojiCorpus(emoji_data(), cast(Any, recipe)))
    context.process = accelerator.process_index, accelerator.num_processes
    state = _State(work / "state.safetensors", recipe.sha256, cast(Any, opened.parts))
    progress, optimizer_state, copies = state.load(cast(Any, model))
    run = Run(
        cast(Any, context),
        accelerator,
        state,
        progress,
        copies,
        optimizer_state,
        report,
        lambda: reopen()[0],
    )
    del model, copies, optimizer_state  # the run lets go of them after a stage
    if recipe.paint is not None and progress.stage == 0:
        # One process reads the captions, the others what it kept.
        with accelerator.main_process_first():
            _read_captions(context, opened, features or work)
    for index, name in enumerate(recipe.stages):
        if index >= progress.stage:
            stage = open_paint_stage(name, context)
            if index == 0 and progress.step == 0:
                stage.prepare()
            run_stage(stage, run)
    if accelerator.is_main_process:
        _finish(out, run, context, opened)
    accelerator.wait_for_everyone()
    for tracker in accelerator.trackers:
        tracker.finish()
    return out


def _read_captions(context: PaintContext, opened: OpenedPainter, folder: Path) -> None:
    data, most = context.corpus.data, context.recipe.max_pictures
    context.pictures = training_pictures(data)[:most]
    context.validation_pictures = validation_pictures(data)[:most]
    texts = list(caption_texts(data, context.pictures, context.recipe.pivot))
    context.captions = caption_states(
        context.model.reader, texts, opened.lm_sha256, folder / "captions.safetensors"
    )


def _finish(out: Path, run: Run, context: PaintContext, opened: OpenedPainter) -> None:
    recipe = context.recipe
    record = TrainingRecord(
        recipe=recipe.name,
        pivot=recipe.pivot,
        stages=(*opened.lm_records, *_centring(context), *run.progress.records),
        versions=versions(),
    )
    settings = {
        "recipe": recipe,
        "recipe_sha256": recipe.sha256,
        "language_model_sha256": opened.lm_sha256,
    }
    save_painter(out, context.model, opened.parts, opened.backbones, settings, record)
    shutil.rmtree(out / "work")


def _centring(context: PaintContext) -> list[StageRecord]:
    """Return the evidence of centring: text of every language, an alignment without a step."""
    texts = centring_texts(context.corpus, context.recipe)
    record = StageRecord(
        name="align",
        data={"emoji": context.corpus.data.sha256},
        multimodal_samples={},
        text_samples={language: len(names) for language, names in texts.items()},
        steps=0,
        seed=context.recipe.seed,
    )
    return [record] if texts else []
