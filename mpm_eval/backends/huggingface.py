"""Any Hugging Face vision-language or causal language model, called through transformers.

Shapes: B batch, T tokens, L layers (embeddings first), N inputs, D width.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpm_eval.backends import Failure
from mpm_eval.backends.encoding import Encoder, Row, collate, together
from mpm_eval.errors import UserError
from mpm_eval.schema import OptionScore, Request, TrainingRecord
from mpm_eval.strict import canonical_sha256, file_sha256

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL.Image import Image

_ALL = frozenset({"generate", "choose", "embed", "embed_images"})
# it reads a prompt in both directions, and its processor ends every text: no option can be scored
_READS_BOTH_WAYS = frozenset({"paligemma"})
_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")  # what can change an answer


class HuggingFaceBackend:
    """A model of transformers; greedy, and code that comes with a model is never run."""

    training_record: TrainingRecord | None = None
    batch_size = 16

    def __init__(
        self,
        model: Any,
        processor: Any,
        tokenizer: Any,
        name: str,
        sha256: str,
        identity: Mapping[str, str],
    ) -> None:
        self.name, self.sha256 = name, sha256
        self._model, self._tokenizer = model, tokenizer
        accepted = inspect.signature(model.forward).parameters
        self._encoder = Encoder(processor, tokenizer, accepted)
        # logits of every token times a vocabulary would fill the memory first
        self._keeps_logits = "logits_to_keep" in accepted
        self._reads_pictures = processor is not None
        # older releases of transformers call it an index
        names = ("image_token_id", "image_token_index")
        tokens = [getattr(model.config, name, None) for name in names]
        self._image_token: Any = next((token for token in tokens if token is not None), None)
        self.capabilities = _ALL
        if self._image_token is None:
            self.capabilities -= {"embed_images"}
        if model.config.model_type in _READS_BOTH_WAYS:
            self.capabilities -= {"choose"}
        self._longest = getattr(
            model.config.get_text_config(), "max_position_embeddings", None
        ) or float("inf")  # fmt: skip
        self._pad = self._make_greedy()
        self.identity: Mapping[str, str] = {
            **identity,
            "device": str(model.device.type),
            "dtype": str(model.dtype).removeprefix("torch."),
            "attention": str(model.config._attn_implementation),
            "prompt": f"{self._encoder.template} template",
            "option_scores": "end of turn not included",
        }

    def generate(self, requests: Sequence[Request]) -> list[str | Failure]:
        """Return greedy answers, in order, as the model wrote them without special tokens."""
        import torch

        found: list[Row | Failure] = [self._prompt(r, r.max_new_tokens) for r in requests]
        answers: list[str | Failure] = [f if isinstance(f, Failure) else "" for f in found]
        rows = [(i, row) for i, row in enumerate(found) if not isinstance(row, Failure)]
        for members in together([row for _, row in rows]):
            batch = self._batch([rows[m][1] for m in members], "left")
            asked = [rows[m][0] for m in members]
            longest = max(requests[i].max_new_tokens for i in asked)
            with torch.inference_mode():
                ids_BT = self._model.generate(**batch, max_new_tokens=longest)
            new_BT = ids_BT[:, batch["input_ids"].shape[1] :].tolist()
            for i, ids in zip(asked, new_BT, strict=True):
                kept = ids[: requests[i].max_new_tokens]
                answers[i] = self._tokenizer.decode(kept, skip_special_tokens=True)
        return answers

    def choose(self, requests: Sequence[Request]) -> list[tuple[OptionScore, ...] | Failure]:
        """Return summed log-probabilities (nats) of each option's tokens after the prompt.

        The end of a turn is not included. Prompt and option are tokenised together: an option's
        tokens are those after what the prompt and all prompts with an option have in common, so
        that a token across the border is scored with every option or with none.
        """
        found = [self._options(request) for request in requests]
        rows = [row for f in found if not isinstance(f, Failure) for row in f]
        # as many at once as there are requests: half the requests need half the memory
        scores: list[OptionScore] = []
        for start in range(0, len(rows), max(1, len(requests))):
            scores += self._score(rows[start : start + max(1, len(requests))])
        each = iter(scores)
        return [
            f if isinstance(f, Failure) else tuple(next(each) for _ in f) for f in found
        ]  # fmt: skip

    def embed(self, texts: Sequence[str], language: str) -> "np.ndarray":
        """Return h_LND: hidden states of each layer, mean over the text's own tokens weighted by
        position (Muennighoff, arXiv 2202.08904), embeddings first; no prompt, no special tokens.

        Raises UserError for a text without tokens and one the model cannot hold.
        """
        encoded = [self._encoder.encode_text(text) for text in texts]
        for text, (row, own_1T) in zip(texts, encoded, strict=True):
            num_tokens = row["input_ids"].shape[1]
            if not own_1T.any() or num_tokens > self._longest:
                raise UserError(
                    f"model '{self.name}': a text of {int(own_1T.sum())} tokens has no hidden "
                    f"state (the model reads {self._longest}): '{text[:40]}'"
                )
        return self._pooled(encoded)

    def embed_images(self, images: Sequence["Image"]) -> "np.ndarray":
        """Return h_LND as `embed` does, of prompts that hold a picture alone, pooled over the
        places of the picture."""
        import torch

        rows = [self._encoder.encode("", image) for image in images]
        places = [torch.eq(row["input_ids"], self._image_token) for row in rows]
        return self._pooled(list(zip(rows, places, strict=True)))

    def _make_greedy(self) -> int:
        """Replace what a model ships, e.g. a repetition penalty, by greedy; return the padding."""
        from transformers import GenerationConfig

        shipped = self._model.generation_config.eos_token_id
        ends = set(shipped if isinstance(shipped, list) else [shipped])
        ends = {end for end in ends | {self._tokenizer.eos_token_id} if end is not None}
        candidates = (self._tokenizer.pad_token_id, *sorted(ends), 0)
        pad = next(token for token in candidates if token is not None)
        settings: Any = GenerationConfig
        self._model.generation_config = settings(
            do_sample=False, num_beams=1, eos_token_id=sorted(ends) or None, pad_token_id=pad
        )
        return pad

    def _prompt(self, request: Request, num_new: int, answer: str = "") -> Row | Failure:
        """Return the tensors of a prompt with room for new tokens, or why there are none."""
        if request.image is not None and not self._reads_pictures:
            raise UserError(
                f"model '{self.name}' reads text alone and the task has pictures; give a "
                "vision-language model, or --control blind for a floor"
            )
        try:
            row = self._encoder.encode(request.prompt, request.image, answer)
        except ValueError as error:
            return Failure(_one_line(error))
        num_tokens = row["input_ids"].shape[1]
        if num_tokens + num_new > self._longest:
            more = f" and {num_new} new ones" if num_new else ""
            return Failure(f"{num_tokens} tokens{more}; the model reads {self._longest}")
        return row

    def _options(self, request: Request) -> "list[tuple[Row, int]] | Failure":
        """Return the tensors of the prompt with each option, and where the option begins."""
        prompt = self._prompt(request, 0)
        rows = [self._prompt(request, 0, option) for option in request.options]
        whole = [row for row in rows if not isinstance(row, Failure)]
        failed = [row for row in (prompt, *rows) if isinstance(row, Failure)]
        if isinstance(prompt, Failure) or failed:
            return failed[0]
        shared = min(_num_equal(prompt["input_ids"], row["input_ids"]) for row in whole)
        if not shared:
            return Failure("the first token of the prompt changes with an option")
        return [(row, shared) for row in whole]

    def _score(self, options: "Sequence[tuple[Row, int]]") -> list[OptionScore]:
        import torch

        scores = [OptionScore(0.0, 0)] * len(options)
        for members in together([row for row, _ in options]):
            batch = self._batch([options[m][0] for m in members], "right")
            width = batch["input_ids"].shape[1]
            first = min(options[m][1] for m in members) - 1  # its logits are of the next token
            keep = {"logits_to_keep": width - first} if self._keeps_logits else {}
            with torch.inference_mode():
                logits_BTV = self._model(**batch, **keep).logits
            offset = width - logits_BTV.shape[1]
            for logits_TV, m in zip(logits_BTV, members, strict=True):
                row, start = options[m]
                ids_T = row["input_ids"][0, start:].to(logits_TV.device)
                own_TV = logits_TV[start - 1 - offset : start - 1 - offset + len(ids_T)]
                logprob_TV = torch.log_softmax(own_TV.float(), dim=-1)
                logprob_T = logprob_TV.gather(1, ids_T[:, None])
                scores[m] = OptionScore(float(logprob_T.double().sum()), len(ids_T))
        return scores

    def _pooled(self, encoded: "Sequence[tuple[Row, torch.Tensor]]") -> "np.ndarray":
        """Return h_LND: of each row the mean over its own tokens, weighted by position."""
        import numpy as np
        import torch

        keep = {"logits_to_keep": 1} if self._keeps_logits else {}
        pooled: list[Any] = [None] * len(encoded)
        for members in together([row for row, _ in encoded]):
            batch = self._batch([encoded[m][0] for m in members], "right")
            with torch.inference_mode():
                states = self._model(**batch, **keep, output_hidden_states=True).hidden_states
            for index, m in enumerate(members):
                own_T = encoded[m][1][0].to(states[0].device)
                weight_T1 = (own_T.cumsum(0) * own_T)[:, None].float()
                weight_T1 = weight_T1 / weight_T1.sum()
                pooled[m] = [
                    (state[index, : len(own_T)].float() * weight_T1).sum(0).cpu().numpy()
                    for state in states
                ]
        return np.stack([np.stack(layers) for layers in pooled], axis=1)

    def _batch(self, rows: Sequence[Row], side: str) -> "dict[str, torch.Tensor]":
        return collate(rows, side, self._pad, self._model)


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a model's files lie."""

    folder: Path
    name: str
    revision: str  # commit of the hub; "" for a folder of one's own


def open_huggingface(argument: str, seed: int) -> HuggingFaceBackend:
    """Return the backend of a folder or of a model of the hub, "ID" or "ID@REVISION".

    Decoding is greedy: the seed is not used. Raises UserError without transformers, for a model
    that cannot be found or loaded, that has no safetensors, needs code of its own, or lacks a part
    of its weights.
    """
    where = f"model 'hf:{argument}'"
    try:
        import transformers
    except ImportError:
        raise UserError(f"{where}: needs transformers; pip install 'mpm-eval[hf]'") from None
    source = _locate(argument, where)
    if not any(source.folder.glob("*.safetensors")):
        raise UserError(
            f"{where}: no *.safetensors; other weights are pickles, which can run code: convert "
            "them with save_pretrained"
        )
    try:
        model, processor, tokenizer = _load(source.folder, where)
    except UserError:
        raise
    except Exception as error:  # a broken file raises whatever its reader does
        if "trust_remote_code" in str(error):
            raise UserError(
                f"{where}: needs code that comes with the model, which is never run; answer with "
                "it elsewhere and score the predictions: docs/predictions.md"
            ) from None
        raise UserError(f"{where}: cannot be loaded: {_one_line(error)}") from None
    dtype = str(model.dtype)
    identity = {"transformers": transformers.__version__}
    if processor is not None:
        # its two implementations resize a little differently
        identity["image_processor"] = type(processor.image_processor).__name__
    if source.revision:
        identity["revision"] = source.revision
        sha256 = canonical_sha256([source.name, source.revision, dtype])
    else:
        sha256 = canonical_sha256([_file_hashes(source.folder), dtype])
    return HuggingFaceBackend(model, processor, tokenizer, source.name, sha256, identity)


def _locate(argument: str, where: str) -> _Source:
    """Return a folder, or the files of a commit of the hub, fetched unless they are there."""
    folder = Path(argument).expanduser()
    if argument and folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(f"{where}: {folder} is no model: config.json is missing")
        return _Source(folder, folder.resolve().name, "")
    name, _, revision = argument.partition("@")
    if not name or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UserError(f"{where}: no such folder; give a folder or a model id, hf:OWNER/NAME")
    from huggingface_hub import snapshot_download

    try:
        found = snapshot_download(
            name,
            revision=revision or None,
            allow_patterns=list(_FILES),
            ignore_patterns=["*/*", "consolidated*"],  # other formats of the same weights
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"{where}: no such folder, and the hub gave nothing at revision "
            f"'{revision or 'main'}': {_one_line(error)}"
        ) from None
    return _Source(Path(found), name, Path(found).name)


def _load(folder: Path, where: str) -> tuple[Any, Any, Any]:
    """Return model, processor (None for a model of text) and tokenizer."""
    import torch
    from transformers import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
        AutoProcessor,
        AutoTokenizer,
    )

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    processor: Any = None
    auto: Any
    auto_processor: Any = AutoProcessor  # has no annotations
    if config.is_encoder_decoder:
        raise UserError(f"{where}: an encoder and a decoder; only decoders can be evaluated")
    if type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        auto = AutoModelForImageTextToText
        processor = auto_processor.from_pretrained(folder, trust_remote_code=False)
        tokenizer = processor.tokenizer
    elif type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        auto = AutoModelForCausalLM
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    else:
        raise UserError(f"{where}: a model of type '{config.model_type}' writes no text")
    on_gpu = torch.cuda.is_available()
    model, info = auto.from_pretrained(
        folder,
        dtype="auto" if on_gpu else torch.float32,
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise UserError(
            f"{where}: the weights lack {len(missing)} tensors (first: {missing[0]}); they would "
            "be random"
        )
    return model.to("cuda" if on_gpu else "cpu").eval(), processor, tokenizer


def _file_hashes(folder: Path) -> list[list[str]]:
    files = sorted({path for pattern in _FILES for path in folder.glob(pattern)})
    return [[path.name, file_sha256(path)] for path in files]


def _num_equal(a_1T: "torch.Tensor", b_1T: "torch.Tensor") -> int:
    """Return how many tokens two texts have in common before the first that differs."""
    pairs = zip(a_1T[0].tolist(), b_1T[0].tolist(), strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(a_1T.shape[1], b_1T.shape[1]))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
