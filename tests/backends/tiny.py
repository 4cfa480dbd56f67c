"""Tiny real models of several families, built from a configuration and written to a folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers.models import BPE
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessorPil,
    Gemma3Processor,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
    Qwen2VLProcessor,
    SiglipVisionConfig,
)

TEXTS = ("What is this? a red cat", "Was ist das? eine rote Katze", "Answer:cat Answer:")
CONTEXT = 512
# large weights: an untrained model must answer differently to different inputs
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
}
VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}
TEMPLATE = """\
{{ bos_token }}{% for m in messages %}USER: {% if m['content'] is string %}{{ m['content'] }}\
{% else %}{% for c in m['content'] %}{% if c['type'] == 'image' %}PICTURE
{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}{% endfor %} ASSISTANT:"""


def tokenizer(special: Sequence[str] = (), **named: str) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer that writes <s> before a text."""
    inner = Tokenizer(BPE(unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=["<unk>", "<s>", "</s>", "<pad>", *special, *named.values()],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(TEXTS, trainer)
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        extra_special_tokens=named or list(special),
    )


def write_llama(folder: Path, template: str | None = None) -> Path:
    """Write a model that reads text alone."""
    tok = tokenizer()
    tok.chat_template = template
    torch.manual_seed(0)
    config = LlamaConfig(**SIZES, **_ids(tok), max_position_embeddings=CONTEXT)
    _save(folder, LlamaForCausalLM(config), tok)
    return folder


def write_llava(folder: Path, template: str | None = TEMPLATE) -> Path:
    """Write a model that reads one picture as four tokens."""
    tok = tokenizer(["<image>"])
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**VISION, initializer_range=0.3),
        text_config=LlamaConfig(**SIZES, **_ids(tok), max_position_embeddings=CONTEXT),
        image_token_id=tok.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
    )
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
        ),
        tokenizer=tok,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template and template.replace("PICTURE", "<image>"),
    )
    _save(folder, LlavaForConditionalGeneration(config), processor)
    return folder


def write_gemma3(folder: Path) -> Path:
    """Write a model with a sliding window that reads a picture's tokens in both directions."""
    tok = tokenizer(boi_token="<boi>", eoi_token="<eoi>", image_token="<soft>")
    torch.manual_seed(0)
    config = Gemma3Config(
        vision_config=SiglipVisionConfig(**VISION),
        text_config=Gemma3TextConfig(
            **SIZES, **_ids(tok), head_dim=8, sliding_window=16, max_position_embeddings=CONTEXT
        ),
        mm_tokens_per_image=4,
        image_token_index=tok.image_token_id,
        image_token_id=tok.image_token_id,
        boi_token_index=tok.boi_token_id,
        eoi_token_index=tok.eoi_token_id,
        initializer_range=0.3,
    )
    processor = Gemma3Processor(
        image_processor=Gemma3ImageProcessorPil(size={"height": 16, "width": 16}),
        tokenizer=tok,
        image_seq_length=4,
        chat_template=TEMPLATE.replace("PICTURE", "<boi>"),
    )
    model = Gemma3ForConditionalGeneration(config)
    # starts at zero, which hides the picture
    torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight)
    _save(folder, model, processor)
    return folder


class _WithoutVideos(Qwen2VLProcessor):
    """Its class for videos needs torchvision, so it is built without."""

    def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
        return type(argument)


def qwen2_vl() -> tuple[Any, Any]:
    """Return a model whose pictures have as many tokens as they are large, and its processor."""
    tok = tokenizer(["<|image_pad|>", "<|video_pad|>", "<|start|>", "<|end|>"])
    torch.manual_seed(0)
    config = Qwen2VLConfig(
        vision_config={"depth": 2, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2,
                       "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2},
        text_config={**SIZES, **_ids(tok), "max_position_embeddings": CONTEXT,
                     "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0,
                                         "mrope_section": [1, 1, 2]}},
        image_token_id=tok.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=tok.convert_tokens_to_ids("<|video_pad|>"),
        vision_start_token_id=tok.convert_tokens_to_ids("<|start|>"),
        vision_end_token_id=tok.convert_tokens_to_ids("<|end|>"),
    )  # fmt: skip
    processor = _WithoutVideos(
        image_processor=Qwen2VLImageProcessorPil(
            patch_size=4, merge_size=2, temporal_patch_size=2, min_pixels=64, max_pixels=1024
        ),
        tokenizer=tok,
        chat_template=TEMPLATE.replace("PICTURE", "<|start|><|image_pad|><|end|>"),
    )
    return Qwen2VLForConditionalGeneration(config).eval(), processor


def _ids(tok: PreTrainedTokenizerFast) -> dict[str, int]:
    return {"vocab_size": len(tok), "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}


def _save(folder: Path, model: Any, reader: Any) -> None:
    model.save_pretrained(folder)
    reader.save_pretrained(folder)
