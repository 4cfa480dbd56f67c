"""Picture encoders and dual encoders of transformers, as extractors and as scorers.

Shapes: N pictures or texts, C feature dimensions, D dimensions of the common space.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mpm_eval.errors import UserError
from mpm_eval.images.pictures import as_rgb
from mpm_eval.images.scorers import require_language, require_texts
from mpm_eval.images.weights import Source, folder_sha256, from_hub, one_line

if TYPE_CHECKING:
    from PIL.Image import Image

# what can change a vector
_FILES = ("*.safetensors", "*.json", "*.model", "*.txt")
_BATCH = 32
# they were trained on texts filled up to their full length
_FULL_LENGTH = frozenset({"siglip", "siglip2"})
_FULL_TOKENS = 64
_NAMES = {"clip": "FD-CLIP", "siglip": "FD-SigLIP", "siglip2": "FD-SigLIP2", "dinov2": "FD-DINOv2"}


class VisionTower:
    """The pooled features of any picture encoder; of a dual encoder, those in the common space."""

    def __init__(self, name: str, sha256: str, model: Any, processor: Any) -> None:
        self.name, self.sha256 = f"hf:{name}", sha256
        kind = model.config.model_type
        self.distance = _NAMES.get(kind.removesuffix("_vision_model"), f"FD-{kind}")
        self._pictures = _Pictures(self.name, model, processor)
        self.dim = self._pictures.dim
        self.signature = f"{self.name}|sha256:{sha256[:16]}|{self._pictures.signature}"

    def __call__(self, images: "Sequence[Image]") -> np.ndarray:
        """Return features_NC in single precision, in order."""
        return self._pictures.features(images)


class DualEncoder:
    """A dual encoder such as CLIP, SigLIP 2, Chinese-CLIP or AltCLIP, for declared languages."""

    accuracy: Mapping[str, float] | None = None
    accuracy_of = ""
    accuracy_seen: Mapping[str, float] | None = None

    def __init__(
        self,
        name: str,
        sha256: str,
        model: Any,
        processor: Any,
        tokenizer: Any,
        languages: tuple[str, ...] | None,
    ) -> None:
        self.name, self.sha256, self.languages = f"hf:{name}", sha256, languages
        self._model, self._tokenizer = model, tokenizer
        self._pictures = _Pictures(self.name, model, processor)
        self._fills = model.config.model_type in _FULL_LENGTH
        self._longest = _longest(model, tokenizer)
        self.num_cut = 0  # texts that were longer than the model reads, so far
        self.signature = (
            f"{self.name}|sha256:{sha256[:16]}|{self._pictures.signature}"
            f"|max_tokens:{self._longest}"
        )

    def embed_images(self, images: "Sequence[Image]") -> np.ndarray:
        """Return unit vectors_ND in single precision, in order."""
        return _unit(self._pictures.features(images), self.name)

    def embed_texts(self, texts: Sequence[str], language: str) -> np.ndarray:
        """Return unit vectors_ND in single precision, in order; longer texts are cut and counted.

        Raises UserError for an undeclared language and a blank text.
        """
        import torch

        require_language(self, language)
        require_texts(self, texts)
        rows: list[np.ndarray] = []
        for start in range(0, len(texts), _BATCH):
            batch = list(texts[start : start + _BATCH])
            lengths = [len(ids) for ids in self._tokenizer(batch)["input_ids"]]
            self.num_cut += sum(length > self._longest for length in lengths)
            tokens = self._tokenizer(
                batch,
                padding="max_length" if self._fills else True,
                max_length=self._longest,
                truncation=True,
                return_tensors="pt",
            ).to(self._model.device)
            with torch.inference_mode():
                found = self._model.get_text_features(**tokens)
            rows.append(_tensor(found).float().cpu().numpy())
        return _unit(np.concatenate(rows), self.name)


class _Pictures:
    """Pictures to pooled features, by a model and its own resizing."""

    def __init__(self, name: str, model: Any, processor: Any) -> None:
        from PIL import Image

        self._name, self._model, self._processor = name, model, processor
        self.dim = self.features([Image.new("RGB", (8, 8), "white")]).shape[1]
        size = ",".join(f"{key}:{value}" for key, value in sorted(dict(processor.size).items()))
        crop = dict(getattr(processor, "crop_size", None) or {}) if _crops(processor) else {}
        cut = "".join(f",{key}:{value}" for key, value in sorted(crop.items()))
        self.signature = (
            f"resize:{_filter(processor)}:{size}{',crop' + cut if cut else ''}"
            f"|dtype:{str(model.dtype).removeprefix('torch.')}|device:{model.device.type}"
        )

    def features(self, images: "Sequence[Image]") -> np.ndarray:
        import torch

        if not images:
            raise ValueError("images: no pictures to look at")
        rows: list[np.ndarray] = []
        for start in range(0, len(images), _BATCH):
            batch = [as_rgb(image) for image in images[start : start + _BATCH]]
            inputs = self._processor(images=batch, return_tensors="pt").to(self._model.device)
            inputs["pixel_values"] = inputs["pixel_values"].to(self._model.dtype)
            with torch.inference_mode():
                if hasattr(self._model, "get_image_features"):
                    found = _tensor(self._model.get_image_features(**inputs))
                else:
                    found = getattr(self._model(**inputs), "pooler_output", None)
            if found is None:
                raise UserError(f"'{self._name}': this model pools no features of a picture")
            rows.append(found.float().flatten(1).cpu().numpy())
        return np.concatenate(rows)


def open_vision_tower(argument: str) -> VisionTower:
    """Return the extractor of a folder or of a model of the hub, "ID" or "ID@REVISION".

    Raises UserError without transformers and for a model that cannot be loaded.
    """
    where = f"extractor 'hf:{argument}'"
    source, sha256, model = _open(argument, where)
    return VisionTower(source.name, sha256, model, _load_part("AutoImageProcessor", source, where))


def open_dual_encoder(argument: str, languages: tuple[str, ...] | None = None) -> DualEncoder:
    """Return the scorer of a folder or of a model of the hub, for the languages declared.

    Raises UserError without transformers, for a model that cannot be loaded and for one that does
    not put texts and pictures into one space.
    """
    where = f"scorer 'hf:{argument}'"
    source, sha256, model = _open(argument, where)
    if not hasattr(model, "get_image_features") or not hasattr(model, "get_text_features"):
        raise UserError(
            f"{where}: a model of type '{model.config.model_type}' is no dual encoder, such as "
            "CLIP, SigLIP 2, Chinese-CLIP or AltCLIP"
        )
    processor = _load_part("AutoImageProcessor", source, where)
    tokenizer = _load_part("AutoTokenizer", source, where)
    return DualEncoder(source.name, sha256, model, processor, tokenizer, languages)


def _open(argument: str, where: str) -> tuple[Source, str, Any]:
    """Return (source, hash, model); a model lacking a part of its weights is refused."""
    try:
        import torch
        import transformers
    except ImportError:
        raise UserError(f"{where}: needs transformers; pip install 'mpm-eval[hf]'") from None
    folder = Path(argument).expanduser()
    if argument and folder.is_dir():
        source = Source(folder, folder.resolve().name, "")
        if not (folder / "config.json").is_file():
            raise UserError(f"{where}: {folder} is no model: config.json is missing")
    else:
        source = from_hub(argument, where, _FILES)
    if not any(source.folder.glob("*.safetensors")):
        raise UserError(
            f"{where}: no *.safetensors; other weights are pickles, which can run code: convert "
            "them with save_pretrained"
        )
    auto: Any = transformers.AutoModel
    try:
        model, info = auto.from_pretrained(
            source.folder,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as error:  # a broken file raises whatever its reader does
        raise UserError(f"{where}: cannot be loaded: {one_line(error)}") from None
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise UserError(
            f"{where}: the weights lack {len(missing)} tensors (first: {missing[0]}); they would "
            "be random"
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return source, folder_sha256(source.folder, _FILES), model.to(device).eval()


def _load_part(name: str, source: Source, where: str) -> Any:
    import transformers

    try:
        return getattr(transformers, name).from_pretrained(source.folder, trust_remote_code=False)
    except Exception as error:
        raise UserError(f"{where}: its {name[4:]} cannot be loaded: {one_line(error)}") from None


def _tensor(found: Any) -> Any:
    """Return the features: transformers 5 wraps them in an output, 4 does not."""
    return getattr(found, "pooler_output", found)


def _longest(model: Any, tokenizer: Any) -> int:
    """Return how many tokens the model reads."""
    config = model.config.get_text_config()
    found = getattr(config, "max_position_embeddings", None) or _FULL_TOKENS
    # RoBERTa counts places from after the padding
    if config.model_type in ("altclip_text_model", "xlm-roberta", "roberta"):
        found -= config.pad_token_id + 1
    return int(min(found, tokenizer.model_max_length))


def _crops(processor: Any) -> bool:
    return bool(getattr(processor, "do_center_crop", False))


def _filter(processor: Any) -> str:
    from PIL import Image

    number = getattr(processor, "resample", None)
    return "unknown" if number is None else Image.Resampling(int(number)).name.lower()


def _unit(rows_ND: np.ndarray, name: str) -> np.ndarray:
    norms = np.linalg.norm(rows_ND, axis=1, keepdims=True)
    if not np.isfinite(norms).all() or not norms.all():
        raise UserError(f"'{name}': a vector is zero or not finite; its weights are broken")
    return np.asarray(rows_ND / norms)
