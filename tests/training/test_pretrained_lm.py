"""Pretrained language models against transformers' own forward pass and generation."""

import math
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mpm_eval.errors import UserError
from training.backbones import open_language_model
from training.chat_model import Batch, ChatModel, Words
from training.pretrained_lm import (
    PretrainedConfig,
    PretrainedLM,
    build_pretrained,
    load_pretrained,
)

pytestmark = pytest.mark.slow  # transformers is loaded

FAMILIES = ("llama", "qwen2", "gemma3", "gemma2", "gpt2")
Folder = Callable[[str], Path]


def open_lm(folder: Path, **settings: Any) -> PretrainedLM:
    return load_pretrained(folder, PretrainedConfig(source=str(folder), **settings))


def adapted(folder: Path, **settings: Any) -> PretrainedLM:
    """Return a model whose adapters, which begin as nothing, have learned something."""
    lm = open_lm(folder, lora_rank=2, **settings)
    torch.manual_seed(1)
    for _, parameter in lm.learned():
        nn.init.normal_(parameter, std=0.1)
    return lm


def original(folder: Path) -> Any:
    auto: Any = transformers
    return auto.AutoModelForCausalLM.from_pretrained(folder).eval()


def ids(rows: int = 3, length: int = 9) -> Tensor:
    return torch.randint(7, 260, (rows, length), generator=torch.Generator().manual_seed(0))


def test_loading_prints_nothing(lm_folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    folder = lm_folder("gemma3")
    capsys.readouterr()
    open_lm(folder)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_hidden_states_and_logits_are_those_of_the_whole_model(
    lm_folder: Folder, family: str
) -> None:
    lm, ids_BT = open_lm(lm_folder(family)), ids()
    expected = original(lm_folder(family))(ids_BT, output_hidden_states=True)
    states = lm.hidden(lm.embed(ids_BT))
    assert len(states) == len(expected.hidden_states) == 3 and lm.width == 16
    for found, wanted in zip(states, expected.hidden_states, strict=True):
        torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(lm.logits(states[-1]), expected.logits)
    assert expected.logits.std() > 0.3  # words are told apart


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_logits_of_some_words_are_columns_of_all_logits(lm_folder: Folder, family: str) -> None:
    lm = open_lm(lm_folder(family))
    state = lm.hidden(lm.embed(ids()))[-1]
    for words in (torch.tensor([3, 200, 7]), torch.tensor([9, 8])):
        torch.testing.assert_close(lm.logits(state, words), lm.logits(state)[..., words])


@pytest.mark.parametrize("family", ["llama", "gemma3"])
@torch.no_grad()
def test_a_left_padded_row_answers_as_it_does_alone(lm_folder: Folder, family: str) -> None:
    lm, ids_BT = open_lm(lm_folder(family)), ids(1)
    padded = torch.cat([torch.zeros(1, 2, dtype=torch.long), ids_BT], dim=1)
    mask = torch.ones_like(padded, dtype=torch.bool)
    mask[:, :2] = False
    alone = lm.hidden(lm.embed(ids_BT))[-1]
    # Rotary positions are relative, so a shift changes nothing.
    torch.testing.assert_close(
        lm.hidden(lm.embed(padded), mask)[-1][:, 2:], alone, rtol=1e-4, atol=1e-4
    )


def recomputed(
    model: Any, ids_BT: Tensor, count: int, stop: int, banned: Sequence[int]
) -> list[list[int]]:
    """Greedy decoding without a cache, row by row: the oracle of the fast one."""
    rows = []
    for row in ids_BT:
        known, found = row[None], []
        while len(found) < count and stop not in found:
            logits = model(known).logits[0, -1]
            logits[list(banned)] = -math.inf
            found.append(int(logits.argmax()))
            known = torch.cat([known, torch.tensor([[found[-1]]])], dim=1)
        rows.append(found)
    return rows


def until(rows: Sequence[Sequence[int]], stop: int) -> list[list[int]]:
    """Return rows up to and including their first stop; behind it they must hold nothing else."""
    cut = [[*row[: row.index(stop)], stop] if stop in row else list(row) for row in rows]
    assert all(set(row[len(kept) :]) <= {stop} for row, kept in zip(rows, cut, strict=True))
    return cut


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_greedy_decoding_equals_generate_and_recomputation(lm_folder: Folder, family: str) -> None:
    lm, model, ids_BT = open_lm(lm_folder(family)), original(lm_folder(family)), ids()
    free = lm.greedy(lm.embed(ids_BT), 8, -1, [])
    banned = [free[1][0]]
    stop = next(token for token in reversed(free[0]) if token not in banned)
    found = lm.greedy(lm.embed(ids_BT), 8, stop, banned)
    assert until(found, stop) == recomputed(model, ids_BT, 8, stop, banned)
    assert free[1][0] not in found[1]
    generated = model.generate(
        ids_BT,
        attention_mask=torch.ones_like(ids_BT),
        max_new_tokens=8,
        do_sample=False,
        eos_token_id=stop,
        pad_token_id=stop,
        suppress_tokens=banned,
    )
    assert until(generated[:, ids_BT.shape[1] :].tolist(), stop) == until(found, stop)


@torch.no_grad()
def test_gemma_takes_words_times_the_root_of_its_width(lm_folder: Folder) -> None:
    lm = open_lm(lm_folder("gemma3"))
    table = load_file(lm_folder("gemma3") / "model.safetensors")["model.embed_tokens.weight"]
    torch.testing.assert_close(lm.embed(ids()), table[ids()] * 4)
    torch.testing.assert_close(lm.word_vectors, table * 4)
    llama = load_file(lm_folder("llama") / "model.safetensors")["model.embed_tokens.weight"]
    torch.testing.assert_close(open_lm(lm_folder("llama")).word_vectors, llama)


def test_what_learns_is_nothing_the_adapters_or_everything(lm_folder: Folder) -> None:
    folder = lm_folder("llama")
    frozen, lora, full = (
        dict(open_lm(folder, **settings).learned())
        for settings in ({}, {"lora_rank": 2}, {"full": True})
    )
    assert frozen == {}
    # Two matrices on each of seven linear maps of two layers, and none on the output matrix.
    assert len(lora) == 28 and all("lora_" in name for name in lora)
    assert not any("lm_head" in name for name in lora)
    assert full.keys() == dict(open_lm(folder).named_parameters()).keys()
    assert [PretrainedConfig(**s).trainable for s in ({}, {"lora_rank": 2}, {"full": True})] == [
        False,
        True,
        True,
    ]


def test_with_adapters_only_their_parameters_get_gradients(lm_folder: Folder) -> None:
    lm = adapted(lm_folder("gemma3"))
    lm.hidden(lm.embed(ids()))[-1].sum().backward()
    graded = {name for name, p in lm.named_parameters() if p.grad is not None}
    assert graded == {name for name, _ in lm.learned()}


def test_adapters_keep_full_precision_beside_weights_of_half(lm_folder: Folder) -> None:
    lm = adapted(lm_folder("llama"), dtype="bfloat16")
    dtypes = {("lora_" in name): p.dtype for name, p in lm.named_parameters()}
    assert dtypes == {True: torch.float32, False: torch.bfloat16}
    assert lm.hidden(lm.embed(ids()))[-1].dtype == torch.bfloat16


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.03)])
@torch.no_grad()
def test_settling_changes_only_rounding_and_unsettling_restores_every_bit(
    lm_folder: Folder, dtype: str, tolerance: float
) -> None:
    lm = adapted(lm_folder("llama"), dtype=dtype)
    before = {name: value.clone() for name, value in lm.state_dict().items()}
    state = lm.hidden(lm.embed(ids()))[-1]
    lm.settle()
    settled = lm.hidden(lm.embed(ids()))[-1]
    assert (settled - state).norm() <= tolerance * state.norm()
    lm.settle()  # twice is once
    assert torch.equal(lm.hidden(lm.embed(ids()))[-1], settled)
    changed = [name for name, value in lm.state_dict().items() if not value.equal(before[name])]
    assert len(changed) == 14 and all(name.endswith("base_layer.weight") for name in changed)
    lm.unsettle()
    lm.unsettle()
    assert all(value.equal(before[name]) for name, value in lm.state_dict().items())
    assert torch.equal(lm.hidden(lm.embed(ids()))[-1], state)


@pytest.mark.parametrize("settings", [{"full": True}, {"lora_rank": 2}, {}])
def test_recomputing_activations_gives_the_same_gradients(
    lm_folder: Folder, settings: dict[str, Any]
) -> None:
    found, calls = [], []
    for recompute in (False, True):
        torch.manual_seed(0)
        lm = open_lm(lm_folder("llama"), **settings).train()
        for _, parameter in lm.learned():
            parameter.requires_grad_(True)
        if recompute:
            lm.checkpoint_gradients()
        runs: list[int] = []
        lm.model.model.layers[0].mlp.register_forward_pre_hook(lambda *_, r=runs: r.append(1))
        x_BTD = lm.embed(ids()).detach().requires_grad_(True)  # as visual tokens have
        lm.hidden(x_BTD)[-1].pow(2).sum().backward()
        assert x_BTD.grad is not None
        found.append([x_BTD.grad, *(p.grad for _, p in lm.learned() if p.grad is not None)])
        calls.append(len(runs))
    assert calls == [1, 2]
    for plain, again in zip(*found, strict=True):
        torch.testing.assert_close(plain, again)


def restricted(lm: PretrainedLM, words: Sequence[int]) -> tuple[Any, ...]:
    """Return (losses, gradients to the states, logits) of the softmax over all words, over some,
    and over all where the others' logits are minus infinity."""
    ids_BT = ids()
    for place, word in enumerate(words[: ids_BT.shape[1] - 4]):
        ids_BT[:, 4 + place] = word
    answer_BT = torch.zeros_like(ids_BT, dtype=torch.bool)
    answer_BT[:, 4:] = True
    batch = Batch(ids_BT, answer_BT, ~answer_BT, torch.full((3,), 3))
    model = ChatModel(lm, nn.Identity(), nn.Identity(), None, 8)  # type: ignore[arg-type]
    with torch.no_grad():
        state_BTD = lm.hidden(lm.embed(ids_BT)[:, :-1])[-1]
    losses, gradients = [], []
    outside = torch.ones(lm.word_vectors.shape[0], dtype=torch.bool)
    outside[list(words)] = False

    class Masked:
        def logits(self, h_D: Tensor) -> Tensor:
            return lm.logits(h_D).masked_fill(outside, -math.inf)

    some = Words(words, len(outside))
    for used, chosen in ((lm, None), (lm, some), (Masked(), None)):
        model.__dict__["lm"] = used
        model._modules.pop("lm", None)
        leaf = state_BTD.clone().requires_grad_(True)
        loss = model.answer_loss(batch, leaf, words=chosen)
        (gradient,) = torch.autograd.grad(loss, leaf)
        losses.append(loss.detach())
        gradients.append(gradient)
    return losses, gradients, lm.logits(state_BTD[:, 3:]).detach()


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_a_softmax_over_some_words_is_the_whole_one_without_the_others(
    lm_folder: Folder, family: str
) -> None:
    (_, some, masked), (_, some_grad, masked_grad), _ = restricted(
        open_lm(lm_folder(family)), [20, 31, 42, 53, 64]
    )
    torch.testing.assert_close(some, masked)
    torch.testing.assert_close(some_grad, masked_grad)
    assert some_grad.abs().max() > 0.01


def test_a_softmax_over_some_words_differs_by_the_probability_of_the_others_alone(
    lm_folder: Folder,
) -> None:
    """With share e of the probability outside, a label's loss is lower by -log(1 - e), and the
    gradients to the logits differ by 2 e in sum: p / (1 - e) - p inside, p outside."""
    lm, words = open_lm(lm_folder("llama")), [*range(7, 200)]
    (whole, some, _), (whole_grad, some_grad, _), logits = restricted(lm, words)
    inside = torch.zeros(logits.shape[-1], dtype=torch.bool)
    inside[words] = True
    outside_BT = torch.softmax(logits, dim=-1)[..., ~inside].sum(-1)
    assert 0.01 < float(outside_BT.mean()) < 0.9
    torch.testing.assert_close(whole - some, -torch.log1p(-outside_BT).mean())
    longest = lm.model.get_output_embeddings().weight.norm(dim=1).max()
    bound_BT = 2 * outside_BT * longest / outside_BT.numel()
    difference_BT = (whole_grad - some_grad).norm(dim=-1)[:, 3:]
    assert bool((difference_BT <= bound_BT).all()) and bool((difference_BT > 0).all())


def test_a_label_outside_the_words_is_refused() -> None:
    with pytest.raises(ValueError, match="a label is not among the 2 words"):
        Words([3, 5], 9).places(torch.tensor([5, 4]))


def test_without_peft_an_adapter_names_the_extra(
    lm_folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r"lora_rank needs peft: pip install 'mpm-eval\[train\]'"):
        open_lm(lm_folder("llama"), lora_rank=2)


def test_without_peft_a_frozen_model_answers(
    lm_folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "peft"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "peft", None)
    lm = open_lm(lm_folder("llama"))
    lm.settle()
    lm.unsettle()


@pytest.fixture
def copy(lm_folder: Folder, tmp_path: Path) -> Path:
    return Path(shutil.copytree(lm_folder("llama"), tmp_path / "llama"))


def test_weights_that_lack_a_tensor_are_refused(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"lack.*model\.layers\.1\.mlp\.up_proj\.weight"):
        open_lm(copy)


def test_weights_of_another_shape_are_refused(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    tensors["model.norm.weight"] = torch.ones(8)
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="not a causal language model") as caught:
        open_lm(copy)
    assert "\n" not in str(caught.value)


def test_a_folder_of_another_kind_of_model_is_refused(copy: Path) -> None:
    (copy / "config.json").write_text('{"model_type": "unheard_of"}')
    with pytest.raises(UserError, match="not a causal language model") as caught:
        open_lm(copy)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_fast_tokenizer_is_refused(copy: Path) -> None:
    (copy / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"tokenizer\.json is missing"):
        open_language_model(PretrainedConfig(source=str(copy)))


def test_the_tokenizer_is_part_of_what_identifies_a_model(copy: Path) -> None:
    config = PretrainedConfig(source=str(copy))
    _, before = open_language_model(config)
    assert before == open_language_model(config)[1]
    path = copy / "tokenizer.json"
    path.write_text(path.read_text().replace("What", "Whut"))
    assert open_language_model(config)[1].sha256 != before.sha256


def test_a_dry_run_builds_a_model_from_its_config_alone() -> None:
    content = {
        "model_type": "qwen2",
        "vocab_size": 40,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
    lm = build_pretrained(content, PretrainedConfig(lora_rank=2, dtype="bfloat16"))
    assert type(lm.model).__name__ == "Qwen2ForCausalLM" and lm.width == 16
    assert lm.word_vectors.dtype == torch.bfloat16
    assert all(not p.requires_grad for n, p in lm.named_parameters() if "lora_" not in n)
