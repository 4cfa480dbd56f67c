"""Picture encoders and dual encoders of transformers, on tiny models written to disk."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AltCLIPConfig,
    AltCLIPModel,
    ChineseCLIPConfig,
    ChineseCLIPModel,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    LlamaConfig,
    LlamaModel,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
)

from mpm_eval.errors import UserError
from mpm_eval.images.clip_score import clip_score
from mpm_eval.images.extractors import open_extractor
from mpm_eval.images.huggingface import DualEncoder
from mpm_eval.images.scorers import open_scorer
from tests.backends.tiny import tokenizer

VISION: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "image_size": 16, "patch_size": 8, "initializer_range": 0.3,
}  # fmt: skip
TEXT: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "vocab_size": 400, "max_position_embeddings": 24, "initializer_range": 0.3, "bos_token_id": 1,
    "eos_token_id": 2, "pad_token_id": 3,
}  # fmt: skip
PICTURES = [Image.new("RGB", (20, 30), "red"), Image.new("L", (16, 16), 40)]


def write(folder: Path, model: Any, processor: Any = None, longest: int = 24) -> Path:
    model.save_pretrained(folder)
    size = {"shortest_edge": 16}
    crop = {"height": 16, "width": 16}
    (processor or CLIPImageProcessorPil(size=size, crop_size=crop)).save_pretrained(folder)
    tok = tokenizer()
    tok.model_max_length = longest
    tok.save_pretrained(folder)
    return folder


def clip(folder: Path) -> Path:
    torch.manual_seed(0)
    config = CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=12)
    return write(folder, CLIPModel(config))


def siglip(folder: Path) -> Path:
    torch.manual_seed(0)
    config = SiglipConfig(text_config={**TEXT, "projection_size": 16}, vision_config=VISION)
    processor = SiglipImageProcessorPil(size={"height": 16, "width": 16})
    return write(folder, SiglipModel(config), processor)


def chinese_clip(folder: Path) -> Path:
    torch.manual_seed(0)
    config = ChineseCLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=12)
    return write(folder, ChineseCLIPModel(config))


def alt_clip(folder: Path) -> Path:
    torch.manual_seed(0)
    text = {**TEXT, "max_position_embeddings": 30, "project_dim": 16}
    config = AltCLIPConfig(text_config=text, vision_config=VISION, projection_dim=12)
    return write(folder, AltCLIPModel(config), longest=1000)


FAMILIES = [clip, siglip, chinese_clip, alt_clip]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_of_dual_encoders_scores(
    tmp_path: Path, family: Callable[[Path], Path]
) -> None:
    scorer = open_scorer(f"hf:{family(tmp_path / 'm')}", languages=["en", "zh"])
    images, texts = scorer.embed_images(PICTURES), scorer.embed_texts(["a", "b c"], "zh")
    assert images.shape == texts.shape
    np.testing.assert_allclose(np.linalg.norm(images, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(texts, axis=1), 1, rtol=1e-5)
    # neither padding nor what shares the batch changes a text
    np.testing.assert_allclose(texts[:1], scorer.embed_texts(["a"], "zh"), atol=1e-5)
    found = clip_score(PICTURES, ["a", "b c"], scorer, "en")
    expected = 100 * np.clip((images * texts).sum(axis=1), 0, 1)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_vectors_are_those_of_transformers_own_call(tmp_path: Path) -> None:
    folder = clip(tmp_path / "m")
    scorer = open_scorer(f"hf:{folder}", languages=["en"])
    assert isinstance(scorer, DualEncoder)
    model = CLIPModel.from_pretrained(folder).eval()
    picture = CLIPImageProcessorPil.from_pretrained(folder)(PICTURES[:1], return_tensors="pt")
    tokens = tokenizer()("a cat", return_tensors="pt")
    with torch.inference_mode():
        out = model(**picture, input_ids=tokens["input_ids"])
    np.testing.assert_allclose(scorer.embed_images(PICTURES[:1]), out.image_embeds, atol=1e-5)
    np.testing.assert_allclose(scorer.embed_texts(["a cat"], "en"), out.text_embeds, atol=1e-5)


def test_an_undeclared_language_is_refused(tmp_path: Path) -> None:
    folder = clip(tmp_path / "m")
    with pytest.raises(UserError, match="does not know 'zh'; known: en"):
        open_scorer(f"hf:{folder}", languages=["en"]).embed_texts(["a"], "zh")
    with pytest.raises(UserError, match="nobody said which languages"):
        open_scorer(f"hf:{folder}").embed_texts(["a"], "en")


def test_a_text_longer_than_the_model_reads_is_cut_and_counted(tmp_path: Path) -> None:
    scorer = open_scorer(f"hf:{clip(tmp_path / 'm')}", languages=["en"])
    assert isinstance(scorer, DualEncoder)
    scorer.embed_texts(["a", "x " * 60], "en")
    assert scorer.num_cut == 1
    assert scorer.signature.endswith("|max_tokens:24")


def test_alt_clip_reads_fewer_tokens_than_it_has_places(tmp_path: Path) -> None:
    scorer = open_scorer(f"hf:{alt_clip(tmp_path / 'm')}", languages=["en"])
    assert scorer.signature.endswith("|max_tokens:26")  # 30 places, counted from after padding, 3
    assert scorer.embed_texts(["x " * 60], "en").shape == (1, 12)


def test_the_features_of_clip_are_an_extractor(tmp_path: Path) -> None:
    folder = clip(tmp_path / "m")
    extractor = open_extractor(f"hf:{folder}")
    assert (extractor.distance, extractor.dim, extractor.name) == ("FD-CLIP", 12, "hf:m")
    assert extractor(PICTURES).shape == (2, 12)
    assert extractor(PICTURES).dtype == np.float32
    assert "resize:bicubic:shortest_edge:16,crop,height:16,width:16|dtype:float32" in (
        extractor.signature
    )


def test_an_encoder_of_pictures_alone_is_an_extractor(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = Dinov2Config(**{**VISION, "mlp_ratio": 2})
    extractor = open_extractor(f"hf:{write(tmp_path / 'm', Dinov2Model(config))}")
    assert (extractor.distance, extractor.dim) == ("FD-DINOv2", 16)


def test_the_hash_is_of_the_weights(tmp_path: Path) -> None:
    first, second = clip(tmp_path / "a"), clip(tmp_path / "b")
    assert open_extractor(f"hf:{first}").sha256 == open_extractor(f"hf:{second}").sha256
    torch.manual_seed(1)
    CLIPModel(CLIPConfig.from_pretrained(second)).save_pretrained(second)
    assert open_extractor(f"hf:{first}").sha256 != open_extractor(f"hf:{second}").sha256


def test_models_that_cannot_serve_are_named(tmp_path: Path) -> None:
    torch.manual_seed(0)
    dino = write(tmp_path / "dino", Dinov2Model(Dinov2Config(**{**VISION, "mlp_ratio": 2})))
    lame = clip(tmp_path / "lame")
    (lame / "model.safetensors").unlink()
    broken = clip(tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"no weights")
    llama = tmp_path / "llama"
    LlamaModel(
        LlamaConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                    num_attention_heads=2, vocab_size=9)
    ).save_pretrained(llama)  # fmt: skip
    (tmp_path / "empty").mkdir()
    for spec, message in (
        (f"hf:{dino}", "'dinov2' is no dual encoder"),
        (f"hf:{lame}", r"no \*\.safetensors"),
        (f"hf:{broken}", "cannot be loaded"),
        (f"hf:{tmp_path / 'empty'}", "config.json is missing"),
        ("hf:", "no such file or folder"),
        ("hf:./nowhere", "no such file or folder"),
        ("clipp", "unknown scorer 'clipp'"),
    ):
        with pytest.raises(UserError, match=message):
            open_scorer(spec, languages=["en"])
    with pytest.raises(UserError, match="its ImageProcessor cannot be loaded"):
        open_extractor(f"hf:{llama}")
