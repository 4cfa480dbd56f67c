"""Vision towers against transformers' own hidden states, of tiny models written to a folder."""

import builtins
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from mpm_eval.errors import UserError
from training.provenance import Provenance, check, locate, weights_sha256
from training.vision_tower import Tower, TowerConfig, build_tower, open_tower

pytestmark = pytest.mark.slow  # transformers is loaded

SIZE, PATCH, BLOCKS = 16, 4, 3
VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 2,
    "image_size": SIZE,
    "patch_size": PATCH,
}
TEXT: dict[str, Any] = {**VISION, "vocab_size": 40, "max_position_embeddings": 8}
RANDOM: dict[str, Any] = {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.3}
STATISTICS = {"image_mean": [0.48, 0.45, 0.40], "image_std": [0.26, 0.27, 0.28]}
EXACT = {"height": SIZE, "width": SIZE}


def clip() -> Any:
    config = transformers.CLIPConfig(vision_config=VISION, text_config=TEXT)
    return transformers.CLIPModel(config)


def siglip() -> Any:
    config = transformers.SiglipConfig(vision_config=VISION, text_config=TEXT)
    return transformers.SiglipModel(config)


def dinov2() -> Any:
    # trained on larger pictures than its preprocessor gives, as the published ones
    config = transformers.Dinov2Config(**{**VISION, "image_size": 24}, drop_path_rate=0.3)
    return transformers.Dinov2Model(config)


def dinov2_with_registers() -> Any:
    config = transformers.Dinov2WithRegistersConfig(**VISION, num_register_tokens=3)
    return transformers.Dinov2WithRegistersModel(config)


def dinov3() -> Any:
    config = transformers.DINOv3ViTConfig(**VISION, num_register_tokens=2)
    return transformers.DINOv3ViTModel(config)


def beit() -> Any:
    config = transformers.BeitConfig(
        **VISION, **RANDOM, drop_path_rate=0.3, use_relative_position_bias=True, vocab_size=20
    )
    return transformers.BeitForMaskedImageModeling(config)


def vit() -> Any:
    return transformers.ViTForImageClassification(transformers.ViTConfig(**VISION, **RANDOM))


# how to build it, its tokens in front of the patches, its image processor without torchvision
FAMILIES: dict[str, tuple[Callable[[], Any], int, str]] = {
    "clip": (clip, 1, "CLIPImageProcessorPil"),
    "clip_vision": (
        lambda: transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**VISION)),
        1,
        "CLIPImageProcessorPil",
    ),
    "siglip": (siglip, 0, "SiglipImageProcessorPil"),
    "siglip_vision": (
        lambda: transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**VISION)),
        0,
        "SiglipImageProcessorPil",
    ),
    "dinov2": (dinov2, 1, "BitImageProcessorPil"),
    "dinov2_with_registers": (dinov2_with_registers, 4, "BitImageProcessorPil"),
    "dinov3": (dinov3, 3, "ViTImageProcessorPil"),
    "beit": (beit, 1, "BeitImageProcessorPil"),
    "vit": (vit, 1, "ViTImageProcessorPil"),
}
WITH_CLASS_TOKEN = [name for name, (_, special, _) in FAMILIES.items() if special]


def write(name: str, folder: Path) -> Path:
    """Write a model with random weights everywhere, also where a fresh one has zeros."""
    build, _, processor = FAMILIES[name]
    torch.manual_seed(0)
    model = build()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    model.save_pretrained(folder)
    settings: dict[str, Any] = {"size": EXACT, "do_center_crop": False}
    if processor in ("CLIPImageProcessorPil", "BitImageProcessorPil"):
        settings = {"size": {"shortest_edge": SIZE}, "crop_size": EXACT}
    getattr(transformers, processor)(**settings, **STATISTICS).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("towers")

    def folder(name: str) -> Path:
        return root / name if (root / name).is_dir() else write(name, root / name)

    return folder


@pytest.fixture
def vit_copy(folders: Callable[[str], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(folders("vit"), tmp_path / "vit"))


def pictures(number: int = 2) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [
        Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8))
        for _ in range(number)
    ]


def tensor(images: list[Image.Image]) -> Tensor:
    """Return x_BCHW in 0..1."""
    stack = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
    return stack.permute(0, 3, 1, 2).float() / 255


def open_(folder: Path, **settings: Any) -> Tower:
    return open_tower(TowerConfig(source=str(folder), **settings))[0].eval()


def expected(folder: Path, layer: int) -> tuple[Tensor, Tensor]:
    """Return pixel values and hidden states as the model's own classes give them."""
    auto: Any = transformers  # has few annotations
    model: Any = auto.AutoModel.from_pretrained(folder).eval()
    model = getattr(model, "vision_model", model)
    processor: Any = auto.AutoImageProcessor.from_pretrained(folder, backend="pil")
    pixels = processor(images=pictures(), return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        return pixels, model(pixels, output_hidden_states=True).hidden_states[layer]


@pytest.mark.parametrize("name", FAMILIES)
def test_features_are_the_hidden_states_of_the_whole_model(
    folders: Callable[[str], Path], name: str
) -> None:
    for layer in (-2, -1, 1):
        pixels, hidden_BTC = expected(folders(name), layer)
        tower = open_(folders(name), layer=layer)
        torch.testing.assert_close(tower.normalise(tensor(pictures())), pixels)
        z_BPC = tower(tensor(pictures()))
        torch.testing.assert_close(z_BPC, hidden_BTC[:, FAMILIES[name][1] :], rtol=1e-4, atol=1e-4)
        assert z_BPC.shape[1:] == (tower.num_patches, tower.dim) == (16, 16)
        assert z_BPC.std() > 0.1


@pytest.mark.parametrize("name", WITH_CLASS_TOKEN)
def test_a_kept_class_token_comes_first_and_registers_stay_out(
    folders: Callable[[str], Path], name: str
) -> None:
    _, hidden_BTC = expected(folders(name), -2)
    tower = open_(folders(name), keep_class_token=True)
    patches = hidden_BTC[:, FAMILIES[name][1] :]
    wanted = torch.cat([hidden_BTC[:, :1], patches], dim=1)
    z_BPC = tower(tensor(pictures()))
    torch.testing.assert_close(z_BPC, wanted, rtol=1e-4, atol=1e-4)
    assert z_BPC.shape[1] == tower.num_patches == 17


@pytest.mark.parametrize("name", FAMILIES)
def test_a_frozen_tower_sees_the_same_in_training_and_in_any_batch(
    folders: Callable[[str], Path], name: str
) -> None:
    tower = open_(folders(name)).train()
    x_BCHW = tensor(pictures(5))
    whole = tower(x_BCHW)
    assert not whole.requires_grad
    torch.testing.assert_close(whole, tower.eval()(x_BCHW))
    alone = torch.cat([tower(x[None]) for x in x_BCHW])
    torch.testing.assert_close(whole, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_of_a_dual_encoder_only_the_vision_part_up_to_the_layer_is_loaded(
    folders: Callable[[str], Path], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = folders(name)
    caplog.clear()  # writing it warns of the ids of its text
    tower = open_(folder)
    assert caplog.records == []  # no report on the weights that are left out
    names = list(tower.state_dict())
    assert not any("text" in n or "projection" in n or "logit" in n or "head" in n for n in names)
    assert any("layers.1." in n for n in names) and not any("layers.2." in n for n in names)


def test_a_dual_encoder_and_its_vision_part_alone_give_the_same(
    folders: Callable[[str], Path], tmp_path: Path
) -> None:
    whole = transformers.CLIPModel.from_pretrained(folders("clip"))
    whole.vision_model.save_pretrained(tmp_path)
    shutil.copy(folders("clip") / "preprocessor_config.json", tmp_path)
    x_BCHW = tensor(pictures())
    assert torch.equal(open_(tmp_path)(x_BCHW), open_(folders("clip"))(x_BCHW))


@pytest.mark.parametrize("name", ["clip_vision", "siglip_vision"])
def test_the_names_of_older_vision_folders_are_read(
    folders: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    shutil.copytree(folders(name), tmp_path, dirs_exist_ok=True)
    tensors = load_file(tmp_path / "model.safetensors")
    older = {f"vision_model.{n.removeprefix('vision_model.')}": v for n, v in tensors.items()}
    save_file(older, tmp_path / "model.safetensors", {"format": "pt"})
    x_BCHW = tensor(pictures())
    assert torch.equal(open_(tmp_path)(x_BCHW), open_(folders(name))(x_BCHW))


@pytest.mark.parametrize("name", FAMILIES)
def test_unfreeze_trains_the_last_blocks_and_nothing_else(
    folders: Callable[[str], Path], name: str
) -> None:
    tower = open_(folders(name), unfreeze=1)
    trained = {n: p for n, p in tower.named_parameters() if p.requires_grad}
    assert trained and all(".1." in n for n in trained)  # the last of the two that are kept
    assert trained.keys() == tower.unfreeze(1).keys() < tower.unfreeze(2).keys()
    tower(tensor(pictures())).square().mean().backward()
    for parameter_name, parameter in tower.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, parameter_name
    assert tower.unfreeze(0) == {}


@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_are_the_same_with_activations_computed_again(
    folders: Callable[[str], Path], name: str
) -> None:
    tower = open_(folders(name), unfreeze=2).train()
    block, calls = tower._blocks()[1], 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    first = next(module for module in block.modules() if isinstance(module, torch.nn.LayerNorm))
    first.register_forward_hook(count)
    gradients, counts = [], []
    for on in (False, True, False):
        tower.checkpoint_gradients(on)
        tower.zero_grad()
        calls = 0
        tower(tensor(pictures())).square().mean().backward()
        gradients.append([p.grad.clone() for p in tower.parameters() if p.grad is not None])
        counts.append(calls)
    assert counts == [1, 2, 1]
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("name", FAMILIES)
def test_a_tower_used_for_features_can_be_trained_in_the_same_process(
    folders: Callable[[str], Path], name: str
) -> None:
    content = json.loads((folders(name) / "config.json").read_text())
    with torch.device("meta"):
        planned = build_tower(content)
        planned(torch.zeros(1, 3, planned.image_size, planned.image_size))
    tower = open_(folders(name))
    with torch.inference_mode():
        features = tower(tensor(pictures()))
    trained = open_(folders(name), unfreeze=2)
    z_BPC = trained(tensor(pictures()))
    z_BPC.square().mean().backward()
    torch.testing.assert_close(z_BPC.detach(), features)


@pytest.mark.parametrize("name", FAMILIES)
def test_half_precision_weights_take_single_precision_pictures(
    folders: Callable[[str], Path], name: str
) -> None:
    tower, _ = open_tower(TowerConfig(source=str(folders(name))), torch.bfloat16)
    assert {p.dtype for p in tower.parameters()} == {torch.bfloat16}
    z_BPC = tower(tensor(pictures()))
    assert z_BPC.dtype == torch.bfloat16
    single = open_(folders(name))(tensor(pictures()))
    assert torch.cosine_similarity(z_BPC.float(), single, dim=-1).min() > 0.99


@pytest.mark.parametrize("name", FAMILIES)
def test_a_tower_is_built_from_the_configuration_alone(
    folders: Callable[[str], Path], name: str
) -> None:
    content = json.loads((folders(name) / "config.json").read_text())
    loaded = {n: p.shape for n, p in open_(folders(name)).named_parameters()}
    built = build_tower(content)
    assert {n: p.shape for n, p in built.named_parameters()} == loaded
    with torch.device("meta"):
        planned = build_tower(content, TowerConfig(layer=-1, unfreeze=1))
        z_BPC = planned(torch.zeros(2, 3, planned.image_size, planned.image_size))
    assert z_BPC.is_meta and z_BPC.shape == (2, planned.num_patches, planned.dim)
    assert {p.device.type for p in planned.parameters()} == {"meta"}
    assert sum(p.numel() for p in planned.parameters() if p.requires_grad) > 0


# What the config.json of a published model says of its vision part; transformers knows the rest.
# Parameters by hand: 12 d² + 13 d a block of CLIP, (4 d + 2 f) d + 9 d + f one of SigLIP.
PUBLISHED = {
    "openai/clip-vit-large-patch14-336": (
        {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16,
         "num_hidden_layers": 24, "image_size": 336, "patch_size": 14},
        (576, 1024, 24 * (12 * 1024**2 + 13 * 1024) + 1024 * (588 + 1 + 577 + 2)),
    ),
    "google/siglip2-so400m-patch14-384": (
        {"hidden_size": 1152, "intermediate_size": 4304, "num_attention_heads": 16,
         "num_hidden_layers": 27, "image_size": 384, "patch_size": 14},
        (729, 1152, 27 * ((4 * 1152 + 2 * 4304) * 1152 + 9 * 1152 + 4304) + 1152 * (589 + 729)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("source", PUBLISHED)
def test_a_published_tower_has_the_size_it_is_known_for(source: str) -> None:
    vision, known = PUBLISHED[source]
    content = {"model_type": "clip" if "clip" in source else "siglip", "vision_config": vision}
    with torch.device("meta"):
        tower = build_tower(content, TowerConfig(source=source, layer=-1))
    number = sum(parameter.numel() for parameter in tower.parameters())
    assert (tower.num_patches, tower.dim, number) == known


def test_pictures_of_another_size_are_refused(folders: Callable[[str], Path]) -> None:
    with pytest.raises(ValueError, match="expected 16 pixels"):
        open_(folders("dinov2"))(torch.zeros(1, 3, 24, 24))


def test_a_processor_that_does_not_normalise_is_obeyed(vit_copy: Path) -> None:
    edit(vit_copy / "preprocessor_config.json", do_normalize=False)
    x_BCHW = tensor(pictures())
    assert torch.equal(open_(vit_copy).normalise(x_BCHW), x_BCHW)


def test_the_image_processor_inside_a_processor_is_read(vit_copy: Path) -> None:
    before = open_(vit_copy).normalise(tensor(pictures()))
    content = json.loads((vit_copy / "preprocessor_config.json").read_text())
    (vit_copy / "preprocessor_config.json").unlink()
    (vit_copy / "processor_config.json").write_text(json.dumps({"image_processor": content}))
    assert torch.equal(open_(vit_copy).normalise(tensor(pictures())), before)


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("preprocessor_config.json", {"image_mean": None}, "image_mean and image_std (above 0) are missing"),
        ("preprocessor_config.json", {"image_std": [0.5, 0, 0.5]}, "image_mean and image_std (above 0) are missing"),
        ("preprocessor_config.json", {"image_mean": [0.5]}, "image_mean: expected 3 values, got 1"),
        ("preprocessor_config.json", {"rescale_factor": 0.0078}, "rescale_factor: expected 1/255, got 0.0078"),
        ("config.json", {"model_type": "vitt"}, "unknown kind of vision tower 'vitt'; did you mean 'vit'?"),
        ("config.json", {"model_type": "siglip2"}, "did you mean 'siglip'?"),
        ("config.json", {"num_hidden_layers": "three"}, "config.json: not a configuration of 'vit'"),
        ("config.json", {"image_size": [16, 32]}, "image_size: expected one integer"),
        ("config.json", {"num_channels": 1}, "num_channels: expected 3 (RGB), got 1"),
        ("config.json", {"hidden_size": 20}, "cannot be loaded"),
        ("config.json", {"num_hidden_layers": 5}, "the weights lack"),
    ],
)  # fmt: skip
def test_a_folder_that_does_not_fit_is_one_clear_line(
    vit_copy: Path, file: str, values: dict[str, Any], message: str
) -> None:
    edit(vit_copy / file, **values)
    with pytest.raises(UserError) as caught:
        open_(vit_copy)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("vit", {"layer": 0}, "has 3 blocks; give 1 to 3, or -3 to -1 (the last), got 0"),
        ("vit", {"layer": 4}, "has 3 blocks; give 1 to 3, or -3 to -1 (the last), got 4"),
        ("vit", {"layer": -4}, "has 3 blocks; give 1 to 3, or -3 to -1 (the last), got -4"),
        ("vit", {"unfreeze": 3}, "unfreeze: the tower is read after block 2; give 0 to 2, got 3"),
        ("vit", {"unfreeze": -1}, "give 0 to 2, got -1"),
        ("siglip", {"keep_class_token": True}, "has no class token; set it to false"),
        ("vit", {"revision": "main"}, "a folder has no revision 'main'; leave revision out"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(
    folders: Callable[[str], Path], name: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        open_(folders(name), **settings)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_a_missing_file_is_named(vit_copy: Path, name: str) -> None:
    (vit_copy / name).unlink()
    with pytest.raises(UserError, match=name):
        open_(vit_copy)


def test_the_hash_is_that_of_the_weights_alone(vit_copy: Path) -> None:
    _, before = open_tower(TowerConfig(source=str(vit_copy)))
    assert before == Provenance(str(vit_copy), "", weights_sha256(vit_copy))
    (vit_copy / "README.md").write_text("other")
    (vit_copy / "consolidated.safetensors").write_text("another format of the same weights")
    assert open_tower(TowerConfig(source=str(vit_copy)))[1] == before
    path = vit_copy / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert open_tower(TowerConfig(source=str(vit_copy)))[1].sha256 != before.sha256


def test_weights_in_several_files_are_one_backbone(
    vit_copy: Path, folders: Callable[[str], Path]
) -> None:
    tensors = load_file(vit_copy / "model.safetensors")
    (vit_copy / "model.safetensors").unlink()
    places = {name: f"model-0000{i % 2 + 1}-of-00002.safetensors" for i, name in enumerate(tensors)}
    for file in set(places.values()):
        own = {name: tensors[name] for name in tensors if places[name] == file}
        save_file(own, vit_copy / file, {"format": "pt"})
    index = {"metadata": {}, "weight_map": places}
    (vit_copy / "model.safetensors.index.json").write_text(json.dumps(index))
    x_BCHW = tensor(pictures())
    assert torch.equal(open_(vit_copy)(x_BCHW), open_(folders("vit"))(x_BCHW))
    before = weights_sha256(vit_copy)
    second = vit_copy / "model-00002-of-00002.safetensors"
    content = second.read_bytes()
    second.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert weights_sha256(vit_copy) != before
    second.unlink()
    with pytest.raises(UserError, match="cannot be loaded"):
        open_(vit_copy)


def test_a_checkpoint_refuses_another_backbone() -> None:
    check(Provenance("a/b", "1" * 40, "e" * 64), Provenance("copy", "", "e" * 64))
    with pytest.raises(UserError) as caught:
        check(Provenance("a/b", "1" * 40, "e" * 64), Provenance("a/b", "2" * 40, "f" * 64))
    assert str(caught.value) == (
        "a/b: the backbone is not the one this checkpoint was trained with: expected sha256 "
        f"eeeeeeeeeeee, found ffffffffffff; give revision {'1' * 40} of a/b"
    )
    with pytest.raises(UserError, match="give the weights that were in towers/vit"):
        check(Provenance("towers/vit", "", "e" * 64), Provenance("towers/vit", "", "f" * 64))


def test_pickled_truncated_and_absent_weights_are_refused(vit_copy: Path) -> None:
    path = vit_copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"model\.safetensors: truncated .*copy it again"):
        open_(vit_copy)
    path.rename(vit_copy / "pytorch_model.bin")
    with pytest.raises(UserError, match="pickled weights can run code and are not read; convert"):
        open_(vit_copy)
    (vit_copy / "pytorch_model.bin").unlink()
    with pytest.raises(UserError, match=r"no \*\.safetensors"):
        open_(vit_copy)


@pytest.mark.parametrize("source", ["", "./towers/none", "/towers/none", "~/towers/none", "a/b/c"])
def test_a_missing_folder_is_one_clear_line(source: str) -> None:
    with pytest.raises(UserError, match=rf"^'{source}': no such folder; give a folder or an id"):
        open_tower(TowerConfig(source=source))


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return the folder of an empty cache of the hub, which cannot be reached."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


@pytest.mark.parametrize("revision", ["", "main", COMMIT])
def test_a_model_of_the_hub_is_read_from_the_cache_without_a_network(
    folders: Callable[[str], Path], offline: Path, revision: str
) -> None:
    cached = offline / "models--owner--vit"
    shutil.copytree(folders("vit"), cached / "snapshots" / COMMIT)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(COMMIT)
    tower, provenance = open_tower(TowerConfig(source="owner/vit", revision=revision))
    assert provenance == Provenance("owner/vit", COMMIT, weights_sha256(folders("vit")))
    x_BCHW = tensor(pictures())
    assert torch.equal(tower(x_BCHW), open_(folders("vit"))(x_BCHW))


def test_without_network_and_cache_the_error_says_what_to_do(offline: Path) -> None:
    with pytest.raises(UserError) as caught:
        open_tower(TowerConfig(source="owner/vit", revision="v2"))
    message = str(caught.value)
    assert message.startswith("owner/vit: no such folder, and neither the hub nor the cache has")
    assert "revision 'v2'" in message and "\n" not in message
    assert message.endswith("`hf download owner/vit --local-dir FOLDER` writes it")


@pytest.mark.parametrize(
    ("package", "open_source"),
    [
        ("transformers", lambda: open_tower(TowerConfig(source="owner/vit"))),
        ("transformers", lambda: build_tower({"model_type": "vit"})),
        ("huggingface_hub", lambda: locate("owner/vit")),
    ],
)
def test_a_missing_package_names_its_extra(
    monkeypatch: pytest.MonkeyPatch, package: str, open_source: Callable[[], object]
) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name == package:
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(UserError, match=r"pip install 'mpm-eval\[hf\]'"):
        open_source()


def test_code_that_comes_with_a_model_is_never_run(vit_copy: Path) -> None:
    (vit_copy / "evil.py").write_text("raise SystemExit('run')")
    edit(
        vit_copy / "config.json",
        auto_map={"AutoConfig": "evil.Config", "AutoModel": "evil.Model"},
    )
    assert open_(vit_copy)(tensor(pictures())).shape == (2, 16, 16)
    edit(vit_copy / "config.json", model_type="evil")
    with pytest.raises(UserError, match="unknown kind of vision tower 'evil'"):
        open_(vit_copy)
