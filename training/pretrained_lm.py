"""A pretrained causal language model as the trainer sees it: frozen, with LoRA, or trained whole.

Shapes: B batch, T tokens, D width, V vocabulary.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mpm_eval.errors import UserError
from training.provenance import one_line
from training.quiet import quiet

_SAMPLE = 4096  # words that stand for the vocabulary when only the scale of embeddings matters


@dataclass(frozen=True)
class PretrainedConfig:
    """Which language model, in which precision, and what of it may be trained."""

    kind: str = "pretrained"
    source: str = ""  # gemma3_270m, a local folder, or a hub id
    revision: str = ""  # of a hub id: commit, tag or branch; recorded as the commit
    dtype: str = "float32"  # float32, bfloat16 or float16; of what is frozen
    template: str = "lines"  # lines: picture, question and answer on lines; chat: the model's own
    lora_rank: int = 0  # 0: no adapter
    lora_alpha: int = 16
    full: bool = False  # every weight may be trained, in the stages that say so

    @property
    def trainable(self) -> bool:
        """Whether a stage can train it at all."""
        return self.full or self.lora_rank > 0


class PretrainedLM(nn.Module):
    """Wraps a transformers causal LM; its input embeddings are taken at the model's own scale."""

    def __init__(self, model: Any, config: PretrainedConfig):
        super().__init__()
        self.config = config
        if config.lora_rank:
            _add_lora(model, config)
        self.model = model
        self.width = int(model.get_input_embeddings().weight.shape[1])
        self._slice: tuple[Tensor, Tensor] | None = None
        self._unmerged: dict[Any, Tensor] = {}

    @property
    def device(self) -> torch.device:
        device: torch.device = self.model.device
        return device

    @property
    def word_vectors(self) -> Tensor:
        count = self.model.get_input_embeddings().weight.shape[0]
        ids = torch.arange(0, count, max(1, count // _SAMPLE), device=self.device)
        with torch.no_grad():
            return self.embed(ids)

    def learned(self) -> list[tuple[str, nn.Parameter]]:
        return [
            (name, parameter)
            for name, parameter in self.named_parameters()
            if self.config.full or "lora_" in name
        ]

    def settle(self) -> None:
        """Fold the adapters into the weights: a stage that does not train them runs faster."""
        for layer in _lora_layers(self.model):
            if not layer.merged:
                self._unmerged[layer] = layer.get_base_layer().weight.detach().clone()
                layer.merge()

    def unsettle(self) -> None:
        """Undo `settle`. The weights are put back, for subtracting would leave rounding errors."""
        for layer in _lora_layers(self.model):
            if layer.merged:
                layer.unmerge()
                layer.get_base_layer().weight.data.copy_(self._unmerged.pop(layer))

    def embed(self, ids_BT: Tensor) -> Tensor:
        return self.model.get_input_embeddings()(ids_BT)

    def hidden(self, x_BTD: Tensor, mask_BT: Tensor | None = None) -> list[Tensor]:
        output = self.model.base_model(
            inputs_embeds=x_BTD,
            attention_mask=None if mask_BT is None else mask_BT.long(),
            output_hidden_states=True,
            use_cache=False,
        )
        return list(output.hidden_states)

    def logits(self, h_D: Tensor, ids_V: Tensor | None = None) -> Tensor:
        head = self.model.get_output_embeddings()
        if ids_V is None:
            scores = head(h_D)
        else:
            bias = None if head.bias is None else head.bias[ids_V]
            scores = nn.functional.linear(h_D, self._rows(head.weight, ids_V), bias)
        # What transformers' forward passes do after the output matrix: Cohere, Granite, Gemma 2.
        config = self.model.config
        scores = scores * getattr(config, "logit_scale", 1) / getattr(config, "logits_scaling", 1)
        cap = getattr(config, "final_logit_softcapping", None)
        return torch.tanh(scores / cap) * cap if cap else scores

    def _rows(self, weight_VD: Tensor, ids_V: Tensor) -> Tensor:
        """Return rows of the output matrix; a frozen one is sliced once, not at every step."""
        if weight_VD.requires_grad:
            return weight_VD[ids_V]
        if self._slice is None or self._slice[0] is not ids_V:
            self._slice = (ids_V, weight_VD[ids_V].contiguous())
        return self._slice[1]

    def continued(self, x_BTD: Tensor, owner_N: Tensor, y_NTD: Tensor) -> tuple[Tensor, Tensor]:
        read = self.model.model(inputs_embeds=x_BTD, use_cache=True)
        cache, last_BD = read.past_key_values, read.last_hidden_state[:, -1]
        if not y_NTD.shape[1]:
            return last_BD, y_NTD
        cache.batch_select_indices(owner_N)
        output = self.model.model(inputs_embeds=y_NTD, past_key_values=cache, use_cache=True)
        return last_BD, output.last_hidden_state

    def greedy(
        self, x_BTD: Tensor, max_new_tokens: int, stop: int, banned: Sequence[int]
    ) -> list[list[int]]:
        answers: list[list[int]] = [[] for _ in x_BTD]
        alive = list(range(len(x_BTD)))
        cache: Any = None
        for _ in range(max_new_tokens):
            output = self.model.base_model(
                inputs_embeds=x_BTD, past_key_values=cache, use_cache=True
            )
            cache = output.past_key_values
            logits_BV = self.logits(output.last_hidden_state[:, -1])
            logits_BV[:, list(banned)] = -torch.inf
            token_B = logits_BV.argmax(-1)
            tokens = token_B.tolist()
            for row, token in zip(alive, tokens, strict=True):
                answers[row].append(token)
            going = [place for place, token in enumerate(tokens) if token != stop]
            if not going:
                break
            if len(going) < len(alive):  # one row that rambles would have all others compute on
                kept = torch.tensor(going, device=token_B.device)
                cache.batch_select_indices(kept)
                token_B, alive = token_B[kept], [alive[place] for place in going]
            x_BTD = self.embed(token_B[:, None])
        return answers

    def checkpoint_gradients(self) -> None:
        """Recompute activations in the backward pass instead of keeping them."""
        self.model.gradient_checkpointing_enable({"use_reentrant": False})


def _add_lora(model: nn.Module, config: PretrainedConfig) -> None:
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise UserError(
            "language_model.lora_rank needs peft: pip install 'mpm-eval[train]'"
        ) from None
    lora = LoraConfig(r=config.lora_rank, lora_alpha=config.lora_alpha, target_modules="all-linear")
    inject_adapter_in_model(lora, model)
    for name, parameter in model.named_parameters():
        if "lora_" in name:  # what learns is kept in full precision whatever the frozen weights are
            parameter.data = parameter.data.float()


def _lora_layers(model: nn.Module) -> list[Any]:
    try:
        from peft.tuners.lora import LoraLayer
    except ImportError:
        return []
    return [module for module in model.modules() if isinstance(module, LoraLayer)]


def load_pretrained(folder: Path, config: PretrainedConfig) -> PretrainedLM:
    """Return the language model of a local folder, frozen.

    Raises UserError for a folder that transformers cannot read, and for missing weights.
    """
    from transformers import AutoModelForCausalLM

    loader: Any = AutoModelForCausalLM  # its annotations know one of its results
    try:
        with quiet():
            model, found = loader.from_pretrained(
                folder,
                dtype=getattr(torch, config.dtype),
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
            )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(f"{folder}: not a causal language model ({one_line(error)})") from None
    if found["missing_keys"]:  # transformers would go on with random ones
        missing = sorted(found["missing_keys"])
        raise UserError(f"{folder}: the weights lack {len(missing)} tensors (first: {missing[0]})")
    return PretrainedLM(model.eval().requires_grad_(False), config)


def build_pretrained(content: Mapping[str, Any], config: PretrainedConfig) -> PretrainedLM:
    """Return a model with fresh weights from the content of a config.json: for dry runs."""
    from transformers import AutoConfig, AutoModelForCausalLM

    hf_config = AutoConfig.for_model(**content)
    model: Any = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
        hf_config, dtype=getattr(torch, config.dtype)
    )
    return PretrainedLM(model.eval().requires_grad_(False), config)
