"""A local Hugging Face language model as judge; greedy, or sampled from a seed of the request."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mpm_eval.errors import UserError
from mpm_eval.judging.protocol import JudgeRequest, Reply
from mpm_eval.strict import canonical_sha256, file_sha256

_WEIGHTS = ("*.json", "*.safetensors", "*.bin", "*.model", "*.jinja")  # what can change a reply


class HuggingFaceJudge:
    """A causal language model of transformers; code that comes with a model is never run."""

    def __init__(self, name: str, model: Any, tokenizer: Any, settings: Mapping[str, Any]) -> None:
        self.name = f"hf:{name}"
        self.settings = settings
        self._model = model
        self._tokenizer = tokenizer

    def answers(self, requests: Sequence[JudgeRequest]) -> Iterator[tuple[JudgeRequest, Reply]]:
        """Yield the reply to each request, one at a time; a prompt that is too long fails."""
        for request in requests:
            yield request, self._reply(request)

    def _reply(self, request: JudgeRequest) -> Reply:
        import torch

        ids_BT = self._tokenize(request).to(self._model.device)
        num_prompt = ids_BT.shape[1]
        longest = getattr(self._model.config, "max_position_embeddings", None)
        if longest is not None and num_prompt >= longest:
            return Reply(error=f"the prompt has {num_prompt} tokens, the model reads {longest}")
        room = request.max_reply_tokens if longest is None else longest - num_prompt
        sampling: dict[str, Any] = {"do_sample": False}
        if request.temperature > 0:
            # the same request samples the same reply, in any order of the requests
            torch.manual_seed(int(request.sha256[:8], 16))
            sampling = {"do_sample": True, "temperature": request.temperature, "top_p": 1.0,
                        "top_k": 0}  # fmt: skip
        with torch.inference_mode():
            found_BT = self._model.generate(
                ids_BT,
                attention_mask=torch.ones_like(ids_BT),
                max_new_tokens=min(request.max_reply_tokens, room),
                pad_token_id=self._tokenizer.pad_token_id or self._tokenizer.eos_token_id or 0,
                **sampling,
            )
        reply_T = found_BT[0, num_prompt:]
        text = self._tokenizer.decode(reply_T, skip_special_tokens=True)
        return Reply(
            text=text,
            error="" if text.strip() else "empty reply",
            answered_by=self.name.removeprefix("hf:"),
            num_prompt_tokens=num_prompt,
            num_reply_tokens=len(reply_T),
        )

    def _tokenize(self, request: JudgeRequest) -> Any:
        """Return ids_BT of the chat; a model without a chat template reads plain text."""
        if self._tokenizer.chat_template:
            messages = [
                {"role": "system", "content": request.system},
                {"role": "user", "content": request.prompt},
            ]
            return self._tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
            )["input_ids"]
        text = f"{request.system}\n\n{request.prompt}"
        return self._tokenizer(text, return_tensors="pt")["input_ids"]


def open_huggingface(argument: str) -> HuggingFaceJudge:
    """Return the judge of a folder or of a model id of the hub, "ID" or "ID@REVISION".

    Raises UserError without transformers, and for a model that cannot be loaded.
    """
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError:
        raise UserError("--judge hf: needs transformers; pip install 'mpm-eval[hf]'") from None
    if not argument:
        raise UserError("--judge hf: give a folder or a model id, e.g. hf:Qwen/Qwen2.5-7B-Instruct")
    folder = Path(argument)
    source, revision = argument, None
    if not folder.is_dir():
        source, _, revision = argument.partition("@")
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision or "main")
        model: Any = AutoModelForCausalLM.from_pretrained(
            source, revision=revision or "main", dtype="auto"
        )
    except (OSError, ValueError, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"--judge hf: cannot load '{argument}': {reason}") from None
    model.eval()
    model.to(_device())
    if folder.is_dir():
        return HuggingFaceJudge(
            folder.resolve().name, model, tokenizer, {"sha256": folder_sha256(folder)}
        )
    commit = getattr(model.config, "_commit_hash", None) or ""
    return HuggingFaceJudge(source, model, tokenizer, {"revision": commit})


def folder_sha256(folder: Path) -> str:
    """Return the hash of weights, configuration and tokenizer of a model folder."""
    files = sorted({path for pattern in _WEIGHTS for path in folder.glob(pattern)})
    return canonical_sha256([[path.name, file_sha256(path)] for path in files])


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
