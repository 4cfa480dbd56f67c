"""The one door between the harness and the trainer: train a recipe, load a checkpoint."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import Tokenizer

from mpm_eval.data._emoji_data import emoji_data
from mpm_eval.schema import TrainingRecord
from training.alignment import measure_alignment
from training.backbones import Architecture, Opened, open_model
from training.chat_model import ChatModel
from training.checkpoint import checkpoint_sha256, load_checkpoint, save_checkpoint
from training.corpus import EmojiCorpus, training_pictures, validation_pictures
from training.features import picture_features
from training.folders import is_finished, open_work, versions
from training.language_model import LanguageModelConfig
from training.loop import Report, Run, open_accelerator, run_stage
from training.memory_bridge import MemoryConfig
from training.paint.checkpoint import load_painter as load_paint
from training.paint.model import MPMPaint
from training.paint.plan import plan_painter
from training.paint.recipe import PaintRecipe, build_recipe, is_paint
from training.paint.run import train_painter
from training.plan import Plan, plan_of
from training.provenance import Provenance
from training.recipe import Recipe, StreamStageConfig, load_recipe, read_recipe
from training.stage_cache import RecipePlan, StageCache
from training.stages import open_stage
from training.stages.base import Context
from training.state import State
from training.tokenizer import train_tokenizer
from training.vision import EfficientNetLite0, load_imagenet

__all__ = [
    "ChatModel",
    "MPMPaint",
    "Plan",
    "RecipePlan",
    "checkpoint_sha256",
    "load_checkpoint",
    "load_paint",
    "pick_device",
    "picture_encoder",
    "plan",
    "plan_recipe",
    "train",
]

# The augmented views are data: the same for every seed of a recipe.
_VIEWS_SEED = 0


def train(
    recipe_name: str,
    out: Path | None = None,
    overrides: Sequence[str] = (),
    report: Report = lambda *_: None,
    features: Path | None = None,
    stages: Path | None = None,
) -> Path:
    """Train a recipe to the end and return the checkpoint's folder; continues an interrupted run.

    `features` is a folder that keeps what the frozen eye saw, `stages` one that keeps the state
    after each stage, both for other runs to use. Raises
    UserError for a bad recipe, or an `out` that holds something else.
    """
    content, where = read_recipe(recipe_name, overrides)
    if is_paint(content):
        painter = build_recipe(content, where)
        return train_painter(painter, out or _default_folder(painter), report, features)
    recipe = load_recipe(recipe_name, overrides)
    out = out or _default_folder(recipe)
    if is_finished(out, recipe.sha256):
        return out
    work = open_work(out)
    torch.set_num_threads(recipe.threads)
    accelerator = open_accelerator(recipe.engine, out / "logs")
    context, backbones = _context(recipe)

    tokenizer = context.model.tokenizer.tokenizer

    def reopen() -> ChatModel:
        return _open(recipe, tokenizer).model.to(accelerator.device)

    context.model.to(accelerator.device)
    context.process = accelerator.process_index, accelerator.num_processes
    state = State(work / "state.safetensors", recipe.sha256, architecture(recipe))
    cache = StageCache(stages, recipe, context.corpus.data.sha256) if stages else None
    if cache:
        with accelerator.main_process_first():
            cache.restore(state.path)
    progress, optimizer_state, copies = state.load(context.model)
    run = Run(context, accelerator, state, progress, copies, optimizer_state, report, reopen)
    del copies, optimizer_state  # the run lets go of them after a stage
    _train_stages(run, features or work, cache)
    if accelerator.is_main_process:
        _finish(out, run, backbones)
    accelerator.wait_for_everyone()
    for tracker in accelerator.trackers:
        tracker.finish()
    return out


def plan_recipe(recipe_name: str, overrides: Sequence[str], stages: Path) -> RecipePlan:
    """Return the stages of a recipe and how many of them a folder has; UserError as `train`."""
    return StageCache(stages, load_recipe(recipe_name, overrides), emoji_data().sha256).plan()


def pick_device() -> str:
    """Return "cuda" where there is one, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def architecture(recipe: Recipe) -> Architecture:
    """Return what decides the shape of the recipe's chat model."""
    bridge = recipe.bridge
    if isinstance(bridge, MemoryConfig):
        pictures = training_pictures(emoji_data())[: recipe.max_pictures]
        names = EmojiCorpus(emoji_data(), recipe).trained_concepts
        bridge = replace(bridge, num_pictures=len(pictures), num_names=len(names))
    return Architecture(recipe.language_model, recipe.vision, bridge)


def _train_stages(run: Run, features: Path, cache: StageCache | None) -> None:
    context, recipe = run.context, run.context.recipe
    unseen = True  # no stage with pictures so far
    for index, (name, config) in enumerate(recipe.stages.items()):
        sees = name != "align"
        if index >= run.progress.stage:
            if sees and context.features_ANPC is None and not isinstance(config, StreamStageConfig):
                # One process looks at the pictures, the others read what it kept.
                with run.accelerator.main_process_first():
                    _add_features(context, features, run.report)
            stage = open_stage(name, context)
            if sees and unseen and run.progress.step == 0:
                stage.prepare()
            run_stage(stage, run)
            if cache and run.accelerator.is_main_process:
                cache.keep(run.state.path, index + 1)
        unseen = unseen and not sees


def _default_folder(recipe: Recipe | PaintRecipe) -> Path:
    return Path("checkpoints") / f"{recipe.name}-seed{recipe.seed}"


def plan(recipe_name: str, overrides: Sequence[str] = ()) -> Plan:
    """Return what training a recipe would come to; UserError as `train` raises."""
    content, where = read_recipe(recipe_name, overrides)
    if is_paint(content):
        return plan_painter(build_recipe(content, where))
    recipe = load_recipe(recipe_name, overrides)
    context, _ = _context(recipe, weights=False)
    _list_pictures(context)
    return plan_of(context)


def _context(recipe: Recipe, weights: bool = True) -> tuple[Context, Mapping[str, Provenance]]:
    """Return (what the stages share, where the pretrained parts came from)."""
    corpus = EmojiCorpus(emoji_data(), recipe)
    tokenizer = None
    if isinstance(recipe.language_model, LanguageModelConfig):
        tokenizer = train_tokenizer(corpus.texts(), recipe.language_model.vocab_size)
    opened = _open(recipe, tokenizer, weights)
    return Context(recipe, opened.model, corpus), opened.backbones


def _open(recipe: Recipe, tokenizer: Tokenizer | None, weights: bool = True) -> Opened:
    """Return the untrained model of a recipe."""
    torch.manual_seed(recipe.seed)
    opened = open_model(architecture(recipe), tokenizer, weights=weights)
    if recipe.engine.gradient_checkpointing:
        opened.model.lm.checkpoint_gradients()
    return opened


def _list_pictures(context: Context) -> None:
    data, most = context.corpus.data, context.recipe.max_pictures
    context.pictures = training_pictures(data)[:most]
    context.validation_pictures = validation_pictures(data)[:most]


def _add_features(context: Context, folder: Path, report: Report) -> None:
    """Fill the context with features; a step of the report is one picture."""
    data, recipe = context.corpus.data, context.recipe

    def told(name: str) -> Callable[[int, int], None]:
        return lambda done, total: report(name, done, total, float("nan"), float("nan"))

    _list_pictures(context)
    context.features_ANPC = picture_features(
        context.model,
        data,
        [picture.key for picture in context.pictures],
        recipe.num_views,
        _VIEWS_SEED,
        folder / "features.safetensors",
        told("features"),
    )
    context.validation_NPC = picture_features(
        context.model,
        data,
        [picture.key for picture in context.validation_pictures],
        1,
        _VIEWS_SEED,
        folder / "validation.safetensors",
        told("validation features"),
    )[0]


def _finish(out: Path, run: Run, backbones: Mapping[str, Provenance]) -> None:
    recipe, model = run.context.recipe, run.context.model
    alignment, layer = measure_alignment(model, run.context.corpus)
    record = TrainingRecord(
        recipe=recipe.name,
        pivot=recipe.pivot,
        stages=tuple(run.progress.records),
        versions=versions(),
        alignment=alignment,
        alignment_layer=layer,
    )
    settings = {"recipe": recipe, "recipe_sha256": recipe.sha256}
    save_checkpoint(out, model, run.state.parts, backbones, settings, record)
    shutil.rmtree(out / "work")


def picture_encoder() -> tuple[EfficientNetLite0, str]:
    """Return the eye with ImageNet weights, x_BCHW in 0..1 to z_BPC, and the SHA-256 of their file.

    Raises UserError when the package that carries them is not installed.
    """
    eye = EfficientNetLite0().eval()
    return eye, load_imagenet(eye)
