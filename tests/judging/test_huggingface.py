"""A local language model as judge: a tiny one with random weights, made from a configuration."""

from dataclasses import replace
from pathlib import Path

import pytest

from mpm_eval.errors import UserError
from mpm_eval.judging.huggingface import HuggingFaceJudge, folder_sha256
from mpm_eval.judging.judges import open_judge
from tests.judging.conftest import requests

pytest.importorskip("transformers")


def write_model(folder: Path, chat_template: str | None = None) -> Path:
    """Write a model of a few thousand weights with a tokenizer of bytes."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: i for i, symbol in enumerate([*alphabet, "<end>"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")
    fast.chat_template = chat_template
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(vocabulary), n_positions=512, n_embd=16, n_layer=1, n_head=2,
        bos_token_id=256, eos_token_id=256,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def judge(folder: Path) -> HuggingFaceJudge:
    found = open_judge(f"hf:{folder}")
    assert isinstance(found, HuggingFaceJudge)
    return found


@pytest.mark.slow
def test_a_local_model_replies_and_is_known_by_name_and_weights(
    judge: HuggingFaceJudge, folder: Path
) -> None:
    assert judge.name == "hf:tiny"
    assert judge.settings == {"sha256": folder_sha256(folder)}
    asked = [replace(r, max_reply_tokens=8) for r in requests(2)]
    found = list(judge.answers(asked))
    assert [r.sha256 for r, _ in found] == [r.sha256 for r in asked]
    for request, reply in found:
        assert 0 < reply.num_reply_tokens <= 8
        text = f"{request.system}\n\n{request.prompt}"
        assert reply.num_prompt_tokens == len(text.encode())


@pytest.mark.slow
def test_the_same_request_samples_the_same_reply_in_any_order(judge: HuggingFaceJudge) -> None:
    asked = [replace(r, max_reply_tokens=8) for r in requests(3)]
    there = {r.id: reply.text for r, reply in judge.answers(asked)}
    back = {r.id: reply.text for r, reply in judge.answers(asked[::-1])}
    assert there == back and len(set(there.values())) > 1


@pytest.mark.slow
def test_a_prompt_that_does_not_fit_is_a_failed_reply(judge: HuggingFaceJudge) -> None:
    (asked,) = requests(1)
    ((_, reply),) = judge.answers([replace(asked, prompt="x" * 600)])
    assert reply.error.endswith("tokens, the model reads 512") and not reply.text


@pytest.mark.slow
def test_a_chat_template_is_used_where_a_model_has_one(tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}"
    judge = open_judge(f"hf:{write_model(tmp_path / 'chat', template)}")
    (asked,) = requests(1)
    ((_, reply),) = judge.answers([replace(asked, max_reply_tokens=2)])
    text = f"system:{asked.system};user:{asked.prompt};"
    assert reply.num_prompt_tokens == len(text.encode())


def test_other_weights_are_another_judge(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    before = folder_sha256(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    assert folder_sha256(tmp_path) != before


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--judge hf: cannot load '.*empty'") as caught:
        (tmp_path / "empty").mkdir()
        open_judge(f"hf:{tmp_path / 'empty'}")
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="give a folder or a model id"):
        open_judge("hf:")
