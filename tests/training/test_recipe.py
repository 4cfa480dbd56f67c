"""Recipes: every mistake is one line that says where, what and what to do."""

from pathlib import Path

import pytest

from mpm_eval.errors import UserError
from mpm_eval.resources import shipped
from mpm_eval.strict import read_toml
from training.language_model import LanguageModelConfig
from training.mlp_bridge import MLPConfig
from training.pretrained_lm import PretrainedConfig
from training.recipe import Recipe, load_recipe
from training.resampler import ResamplerConfig
from training.vision_tower import TowerConfig

pytestmark = pytest.mark.slow  # torch is loaded

# Recipes of the painter have fields of their own and a loader of their own.
SHIPPED = sorted(
    path.stem for path in shipped("recipes").glob("*.toml") if "vision" in read_toml(path)
)


def test_the_recipes_that_the_readme_names_are_shipped() -> None:
    assert {"tiny", "tiny_no_pivot", "emoji_gemma"} <= set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_recipe_loads(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name and recipe.description.strip() and recipe.stages


def test_a_kind_chooses_what_a_table_means() -> None:
    recipe = load_recipe("tiny", ["bridge={kind='mlp', num_layers=3}", "vision={kind='tower'}"])
    assert recipe.bridge == MLPConfig(num_layers=3) and recipe.vision == TowerConfig()
    recipe = load_recipe("tiny", ["language_model={kind='pretrained', lora_rank=4}"])
    assert recipe.language_model == PretrainedConfig(lora_rank=4)


def test_without_a_kind_a_table_means_the_first_one() -> None:
    recipe = load_recipe("tiny", ["bridge={num_tokens=2}", "language_model={width=64}"])
    assert recipe.bridge == ResamplerConfig(num_tokens=2)
    assert recipe.language_model == LanguageModelConfig(width=64)


MISTAKES = [
    # kinds
    (["bridge.kind=resampeler"], "bridge: unknown kind 'resampeler'; did you mean 'resampler'?"),
    (["bridge.kind=3"], "bridge: unknown kind '3'; known: memory, mlp, resampler"),
    (["vision.kind=towre"], "vision: unknown kind 'towre'; did you mean 'tower'?"),
    (["language_model.kind=bert"], "language_model: unknown kind 'bert'; known: pretrained, tiny_"),
    (["bridge={kind='mlp', num_tokens=3}"], "bridge: unknown key 'num_tokens'"),
    (["bridge=3"], "bridge: expected a table of fields, got an integer"),
    # stages
    (
        ["language_model={kind='pretrained'}"],
        "align: the language model is frozen; leave [align] out or set language_model",
    ),
    # engine
    (["engine.mixed_precision=bf8"], "engine.mixed_precision: expected one of no, bf16, fp16, got"),
    (["engine.tracker=wandb"], "engine.tracker: expected one of , tensorboard, trackio, got 'wan"),
    (["engine.accumulation=0"], "engine.accumulation: must be at least 1, got 0"),
    (["engine.ema=1"], "engine.ema: must be from 0 to below 1, got 1.0"),
    (["engine.ema=-0.1"], "engine.ema: must be from 0 to below 1, got -0.1"),
    (["engine.emma=0.9"], "engine: unknown key 'emma'; did you mean 'ema'?"),
    (["engine.gradient_checkpointing=1"], "gradient_checkpointing: expected true or false, got an"),
    # sizes
    (["threads=0"], "threads: must be at least 1, got 0"),
    (["pretrain.batch_size=0"], "pretrain.batch_size: must be at least 1, got 0"),
    (["pretrain.augmentations=0"], "pretrain.augmentations: must be at least 1, got 0"),
    (["pretrain.learning_rate=0"], "pretrain.learning_rate: must be above 0, got 0.0"),
    (["align.learning_rate=-1"], "align.learning_rate: must be above 0, got -1.0"),
    (
        ["language_model.width=30"],
        "language_model.width: must be a multiple of twice num_heads (8)",
    ),
    (["bridge.width=30"], "bridge.width: must be a multiple of num_heads (4), got 30"),
    (["bridge.output=frei"], "bridge.output: expected one of words, free, got 'frei'"),
    # pretrained language models
    (["language_model={kind='pretrained', dtype='bf16'}"], "language_model.dtype: expected one of"),
    (["language_model={kind='pretrained', template='x'}"], "language_model.template: expected one"),
    (["language_model={kind='pretrained', lora_rank=-1}"], "language_model.lora_rank: must be 0"),
    (
        ["language_model={kind='pretrained', lora_rank=4, full=true}"],
        "language_model.lora_rank: must be 0 with full = true",
    ),
    # questions
    (
        ['languages=["en","hi"]', "instruct.translated_pairs=4"],
        "instruct.translated_pairs: unknown language of questions 'hi'; known: de, en, es, fr, zh",
    ),
    # --set
    (["seed.x=3"], "--set seed.x=3: 'seed' is not a table"),
    (["=3"], "--set =3: write key=value"),
]


@pytest.mark.parametrize(("overrides", "message"), MISTAKES)
def test_a_mistake_is_one_clear_line(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        load_recipe("tiny", overrides)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def written(folder: Path, stages: str, language_model: str = "kind = 'pretrained'") -> Path:
    path = folder / "r.toml"
    path.write_text(
        "name = 'r'\ndescription = 'd'\nseed = 0\nlanguages = ['en']\n"
        f"[language_model]\n{language_model}\n[vision]\n[bridge]\n{stages}"
    )
    return path


def test_a_recipe_without_a_stage_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"r\.toml: no stage; write at least one table"):
        load_recipe(str(written(tmp_path, "")))


def test_a_new_language_model_without_text_is_told(tmp_path: Path) -> None:
    path = written(tmp_path, "[pretrain]\n", "kind = 'tiny_decoder'")
    with pytest.raises(UserError, match=r"a new language model has to learn text; add \[align\]"):
        load_recipe(str(path))


@pytest.mark.parametrize("name", ["pretrain", "instruct"])
def test_two_tables_for_one_stage_are_told(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, f"[{name}]\n[stream_{name}.data]\nsource = 'x.jsonl'\n")
    with pytest.raises(UserError, match=f"{name} and stream_{name} are the same stage; keep one"):
        load_recipe(str(path))


def test_stages_come_in_the_order_of_the_method(tmp_path: Path) -> None:
    path = written(
        tmp_path, "[instruct]\n[pretrain]\n[spell]\n[align]\n", "lora_rank = 2\nkind = 'pretrained'"
    )
    assert list(load_recipe(str(path)).stages) == ["align", "spell", "pretrain", "instruct"]


def test_the_hash_covers_what_decides_the_weights_and_nothing_else() -> None:
    def sha256(*overrides: str) -> str:
        return load_recipe("tiny", overrides).sha256

    same = ["description=x", "save_every_s=1.0", "engine.tracker=tensorboard"]
    other = ["seed=1", "threads=1", "engine.ema=0.9", "engine.accumulation=2", "bridge.dropout=0.2"]
    assert {sha256(override) for override in same} == {sha256()}
    assert len({sha256(), *(sha256(override) for override in other)}) == 1 + len(other)


def test_an_override_is_a_value_or_a_bare_word() -> None:
    overrides = ["name=mine", "seed = 3", 'languages=["en", "de"]', "align.noise=0.25"]
    recipe: Recipe = load_recipe("tiny", overrides)
    assert (recipe.name, recipe.seed, recipe.languages) == ("mine", 3, ("en", "de"))
    assert recipe.align is not None and recipe.align.noise == 0.25
