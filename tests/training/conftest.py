"""A recipe small enough for tests: every part of `tiny`, a few steps, 32-pixel pictures."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from training.stages.base import Context

SMALL: tuple[str, ...] = (
    "threads=1",
    'languages=["en","de"]',
    "language_model.width=32",
    "language_model.num_layers=2",
    "language_model.num_heads=2",
    "language_model.feed_forward=64",
    "language_model.vocab_size=600",
    "vision.image_size=32",
    "vision.pretrained=false",
    "vision.width=0.25",
    "bridge.width=32",
    "align.steps=12",
    "align.batch_size=8",
    "pretrain.steps=8",
    "pretrain.batch_size=8",
    "pretrain.max_pictures=24",
    "pretrain.augmentations=2",
    "instruct.steps=6",
    "instruct.batch_size=8",
    "instruct.translated_pairs=3",
)


def train_small(out: Path, extra: Sequence[str] = ()) -> Path:
    from training.interface import train

    return train("tiny", out, [*SMALL, *extra])


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole, if clueless, checkpoint; shared, so never write into it."""
    return train_small(tmp_path_factory.mktemp("small") / "checkpoint")


# Nothing random in a step: losses do not depend on how a batch is divided.
PLAIN: tuple[str, ...] = (
    *SMALL,
    "bridge.dropout=0.0",
    "align.noise=0.0",
    "align.steps=4",
    "spell.steps=3",
    "spell.batch_size=8",
    "pretrain.steps=3",
    "instruct.steps=3",
)


@pytest.fixture(scope="session")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the eye of the small recipe saw, for all runs of it."""
    return tmp_path_factory.mktemp("features")


@pytest.fixture(scope="session")
def context_of(features: Path) -> Callable[..., "Context"]:
    """Return an untrained model with all that its stages need, for PLAIN and some overrides (of
    neither languages nor vocabulary: the tokenizer is trained once)."""
    from tokenizers import Tokenizer

    from training import interface
    from training.interface import _add_features, _context
    from training.recipe import load_recipe

    train_tokenizer, known = interface.train_tokenizer, list[str]()

    def train_once(texts: Iterable[str], vocab_size: int) -> Tokenizer:
        if not known:
            known.append(train_tokenizer(texts, vocab_size).to_str())
        return Tokenizer.from_str(known[0])

    def build(*overrides: str) -> "Context":
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(interface, "train_tokenizer", train_once)
            context, _ = _context(load_recipe("tiny", [*PLAIN, *overrides]))
        _add_features(context, features, lambda *_: None)
        assert context.features_ANPC is not None
        context.model.bridge.fit_features(context.features_ANPC[0])
        return context

    return build


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] + '\\n' + m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_SPECIAL = ("<pad>", "<bos>", "<eos>", "<|im_start|>", "<|im_end|>")
_SPECIAL_GEMMA = ("<start_of_turn>", "<end_of_turn>")
_IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_LM_SIZE: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "initializer_range": 0.4,  # words are told apart, unlike with the default
    **_IDS,
}
_GEMMA: dict[str, Any] = {
    **_LM_SIZE,
    "head_dim": 8,
    "query_pre_attn_scalar": 8,
    "sliding_window": 4,
}
# name in transformers, what differs from the defaults
_LMS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {**_LM_SIZE, "pad_token_id": None}),
    "qwen2": ("Qwen2", {**_LM_SIZE, "tie_word_embeddings": True}),
    "gemma3": ("Gemma3", _GEMMA),
    "gemma2": ("Gemma2", {**_GEMMA, "final_logit_softcapping": 3.0}),
    "gpt2": ("GPT2", {"n_embd": 16, "n_layer": 2, "n_head": 2, "initializer_range": 0.4, **_IDS}),
}


@pytest.fixture(scope="session")
def lm_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the folder of a tiny pretrained language model by family; shared, so only read it."""
    root = tmp_path_factory.mktemp("lms")

    def folder(family: str) -> Path:
        return root / family if (root / family).is_dir() else write_lm(family, root / family)

    return folder


def write_lm(family: str, folder: Path, chat_template: str | None = CHATML) -> Path:
    """Write a causal LM with random weights everywhere, and a byte-level tokenizer."""
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=290,
        special_tokens=[*_SPECIAL, *_SPECIAL_GEMMA],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["What is this? a dog a cat user assistant model"] * 3, trainer)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        chat_template=chat_template,
    ).save_pretrained(folder)
    name, settings = _LMS[family]
    classes: Any = transformers
    config_class = getattr(classes, f"{name}TextConfig", None) or getattr(classes, f"{name}Config")
    torch.manual_seed(0)
    model = getattr(classes, f"{name}{_HEADS.get(name, 'ForCausalLM')}")(
        config_class(vocab_size=tokenizer.get_vocab_size(), **settings)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:  # norms and biases, which a fresh model has at one and zero
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    return folder


_HEADS = {"GPT2": "LMHeadModel"}
