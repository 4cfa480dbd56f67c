"""The Hugging Face backend against naive loops over the same models, without batches or padding."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionConfig, CLIPVisionModel, T5Config, T5ForConditionalGeneration

from mpm_eval.backends import Failure
from mpm_eval.backends.huggingface import HuggingFaceBackend
from mpm_eval.cards import open_model
from mpm_eval.errors import UserError
from mpm_eval.schema import OptionScore, Request
from mpm_eval.stages.doctor import examine
from mpm_eval.tasks import load_task
from tests.backends import tiny
from tests.conftest import Command, write_task

pytestmark = pytest.mark.slow  # tiny models are built and saved

PICTURES = [
    Image.new("RGB", (40, 24), (200, 30, 30)),
    Image.effect_noise((24, 32), 80),  # grey: processors get RGB
    Image.effect_mandelbrot((32, 32), (-2, -1, 1, 1), 50).convert("RGB"),
]
HEAD = "language_model.lm_head.weight"
TEXTS = ["a red cat", "Katze", "Was ist das? eine rote Katze und noch viel mehr Text"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each family that can be read from one; a tiny model is written in 0.1 s."""
    root = tmp_path_factory.mktemp("models")
    return {
        "llava": tiny.write_llava(root / "llava"),
        "llava-plain": tiny.write_llava(root / "llava-plain", template=None),
        "gemma3": tiny.write_gemma3(root / "gemma3"),
        "llama": tiny.write_llama(root / "llama", template=tiny.TEMPLATE),
        "llama-plain": tiny.write_llama(root / "llama-plain"),
    }


@pytest.fixture(scope="module")
def open_family(folders: dict[str, Path]) -> Callable[[str], HuggingFaceBackend]:
    opened: dict[str, HuggingFaceBackend] = {}

    def open_(family: str) -> HuggingFaceBackend:
        if family not in opened:
            if family == "qwen2-vl":
                model, processor = tiny.qwen2_vl()
                backend = HuggingFaceBackend(
                    model, processor, processor.tokenizer, family, "0" * 64, {}
                )
            else:
                found = open_model(f"hf:{folders[family]}")
                assert isinstance(found, HuggingFaceBackend)
                backend = found
            opened[family] = backend
        return opened[family]

    return open_


FAMILIES = ["llava", "llava-plain", "gemma3", "qwen2-vl", "llama", "llama-plain"]
Open = Callable[[str], HuggingFaceBackend]


def requests(family: str) -> list[Request]:
    """Return questions of several lengths, with and without pictures where a model reads them."""
    pictures = [None] * 5 if "llama" in family else [PICTURES[0], *PICTURES, None]
    questions = [
        "What is this?",
        "Was ist das? eine rote Katze oder doch nicht?",
        "x",
        "a red",
        "?",
    ]
    options = [("cat", "a red cat", "Katze"), ("cat", "dog"), ("a", "b c d e"), ("no",), ("1", "2")]
    return [
        Request(question, "en", picture, str(i), choices, max_new_tokens=6)
        for i, (question, picture, choices) in enumerate(
            zip(questions, pictures, options, strict=True)
        )
    ]


class Naive:
    """The same model as its documentation calls it: one input at a time, no padding."""

    def __init__(self, family: str, folder: Path | None) -> None:
        from transformers import (
            AutoModelForCausalLM,
            AutoModelForImageTextToText,
            AutoProcessor,
            AutoTokenizer,
        )

        self.family = family
        if folder is None:
            self.model, self.processor = tiny.qwen2_vl()
        elif "llama" in family:
            self.model = AutoModelForCausalLM.from_pretrained(folder)
            self.processor = AutoTokenizer.from_pretrained(folder)
        else:
            self.model = AutoModelForImageTextToText.from_pretrained(folder)
            self.processor = AutoProcessor.from_pretrained(folder)
        self.tokenizer = getattr(self.processor, "tokenizer", self.processor)

    def inputs(self, request: Request, answer: str = "") -> dict[str, Any]:
        if self.family.endswith("plain"):
            text = f"<image>\n{request.prompt}" if request.image else request.prompt
            text += f" {answer}" if answer else ""
        else:
            parts: Any = request.prompt
            if self.family != "llama":
                parts = [{"type": "image"}] if request.image else []
                parts += [{"type": "text", "text": request.prompt}]
            text = self.processor.apply_chat_template(
                [{"role": "user", "content": parts}], tokenize=False, add_generation_prompt=True
            )
            assert text.startswith("<s>") and text.count("<s>") == 1
            text += answer
        settings: Any = {"return_tensors": "pt"}
        if not self.family.endswith("plain"):
            settings["add_special_tokens"] = False  # the template has them
        if request.image:
            settings["images"] = request.image.convert("RGB")
        found = self.processor(text=[text], **settings)
        return {name: value for name, value in found.items() if not self._unused(name)}

    def _unused(self, name: str) -> bool:
        return name == "token_type_ids" and self.family != "gemma3"

    @torch.inference_mode()
    def generate(self, request: Request) -> str:
        inputs = self.inputs(request)
        ids = self.model.generate(**inputs, max_new_tokens=request.max_new_tokens, do_sample=False)
        new = ids[0, inputs["input_ids"].shape[1] :]
        return self.tokenizer.decode(new, skip_special_tokens=True)

    @torch.inference_mode()
    def choose(self, request: Request) -> tuple[OptionScore, ...]:
        num_prompt = self.inputs(request)["input_ids"].shape[1]
        scores = []
        for option in request.options:
            inputs = self.inputs(request, option)
            ids = inputs["input_ids"][0].tolist()
            logprobs = torch.log_softmax(self.model(**inputs).logits[0].double(), dim=-1)
            total = sum(float(logprobs[i - 1, ids[i]]) for i in range(num_prompt, len(ids)))
            scores.append(OptionScore(total, len(ids) - num_prompt))
        return tuple(scores)

    @torch.inference_mode()
    def pooled(self, inputs: dict[str, Any], own: list[bool]) -> np.ndarray:
        layers = self.model(**inputs, output_hidden_states=True).hidden_states
        places = [i for i, mine in enumerate(own) if mine]
        weights = range(1, len(places) + 1)
        return np.stack(
            [
                sum(w * layer[0, i].numpy() for w, i in zip(weights, places, strict=True))
                / sum(weights)
                for layer in layers
            ]
        )


@pytest.fixture(scope="module")
def naive(folders: dict[str, Path]) -> Callable[[str], Naive]:
    made: dict[str, Naive] = {}
    return lambda family: made.setdefault(family, Naive(family, folders.get(family)))


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_in_a_padded_batch_are_those_of_one_unpadded_input(
    family: str, open_family: Open, naive: Callable[[str], Naive]
) -> None:
    asked = requests(family)
    answers = open_family(family).generate(asked)
    assert answers == [naive(family).generate(request) for request in asked]
    assert len(set(answers)) > 1


@pytest.mark.parametrize("family", FAMILIES)
def test_options_have_the_log_probabilities_of_a_naive_loop(
    family: str, open_family: Open, naive: Callable[[str], Naive]
) -> None:
    asked = requests(family)
    for row, request in zip(open_family(family).choose(asked), asked, strict=True):
        wanted = naive(family).choose(request)
        assert isinstance(row, tuple)
        assert [s.num_tokens for s in row] == [s.num_tokens for s in wanted]
        assert [s.logprob for s in row] == pytest.approx([s.logprob for s in wanted], abs=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_are_pooled_over_their_own_tokens_weighted_by_position(
    family: str, open_family: Open, naive: Callable[[str], Naive]
) -> None:
    h_LND = open_family(family).embed(TEXTS, "en")
    assert h_LND.shape == (tiny.SIZES["num_hidden_layers"] + 1, len(TEXTS), 32)
    assert h_LND.dtype == np.float32
    tokenizer = naive(family).tokenizer
    for index, text in enumerate(TEXTS):
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        assert ids[0, 0] == tokenizer.bos_token_id
        own = [False] + [True] * (ids.shape[1] - 1)  # not the <s>, where activations are largest
        wanted = naive(family).pooled({"input_ids": ids}, own)
        np.testing.assert_allclose(h_LND[:, index], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["llava", "llava-plain", "gemma3", "qwen2-vl"])
def test_pictures_are_pooled_over_their_places_in_a_prompt_without_words(
    family: str, open_family: Open, naive: Callable[[str], Naive]
) -> None:
    backend = open_family(family)
    assert "embed_images" in backend.capabilities
    h_LND = backend.embed_images(PICTURES)
    token = naive(family).model.config.image_token_id
    for index, picture in enumerate(PICTURES):
        inputs = naive(family).inputs(Request("", "en", picture))
        own = (inputs["input_ids"][0] == token).tolist()
        assert sum(own) >= 4
        wanted = naive(family).pooled(inputs, own)
        np.testing.assert_allclose(h_LND[:, index], wanted, rtol=1e-4, atol=1e-4)


def test_half_precision_is_near_and_its_states_are_pooled_in_full(
    folders: dict[str, Path], open_family: Open
) -> None:
    naive = Naive("llava", folders["llava"])
    model = naive.model.to(torch.bfloat16)
    half = HuggingFaceBackend(model, naive.processor, naive.tokenizer, "half", "0" * 64, {})
    assert half.identity["dtype"] == "bfloat16"
    asked = requests("llava")
    for row, exact in zip(half.choose(asked), open_family("llava").choose(asked), strict=True):
        assert isinstance(row, tuple) and isinstance(exact, tuple)
        for a, b in zip(row, exact, strict=True):
            assert a.logprob == pytest.approx(b.logprob, abs=0.1 * b.num_tokens)
    for h_LND in (half.embed(TEXTS, "en"), half.embed_images(PICTURES)):
        assert h_LND.dtype == np.float32 and np.isfinite(h_LND).all()


def test_a_text_model_cannot_embed_pictures(open_family: Open) -> None:
    assert open_family("llama").capabilities == {"generate", "choose", "embed"}


JOINED = "{{ messages[0]['content'] }}"  # nothing between a prompt and its answer


def test_a_token_across_the_border_is_scored_with_every_option(tmp_path: Path) -> None:
    backend = open_model(f"hf:{tiny.write_llama(tmp_path / 'joined', JOINED)}")
    naive = Naive("llama-plain", tmp_path / "joined")

    def ids(text: str) -> list[int]:
        return naive.tokenizer(text, add_special_tokens=False)["input_ids"]

    prompt, options = "a red Ans", ("wer", "x")
    start, whole = ids("a red"), [ids(prompt + option) for option in options]
    # the tokenizer merges: the prompt's last tokens are not in the text with the first option
    assert whole[0][: len(ids(prompt))] != ids(prompt) and whole[1][: len(ids(prompt))] == ids(
        prompt
    )
    ((first, second),) = backend.choose([Request(prompt, "en", options=options)])  # type: ignore[misc]
    for score, tokens in zip((first, second), whole, strict=True):
        with torch.inference_mode():
            logprobs = naive.model(input_ids=torch.tensor([tokens])).logits[0].log_softmax(-1)
        places = range(len(start), len(tokens))
        assert score.num_tokens == len(places)
        wanted = sum(float(logprobs[i - 1, tokens[i]]) for i in places)
        assert score.logprob == pytest.approx(wanted, abs=1e-4)


def test_an_option_that_changes_the_first_token_fails(tmp_path: Path) -> None:
    backend = open_model(f"hf:{tiny.write_llama(tmp_path / 'joined', JOINED)}")
    answers = backend.choose([Request("Ans", "en", options=("wer",))])
    assert answers == [Failure("the first token of the prompt changes with an option")]


def test_decoding_is_greedy_whatever_a_model_ships(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(folders["llava"], tmp_path / "model")
    shipped = {"do_sample": True, "temperature": 9.0, "repetition_penalty": 5.0, "eos_token_id": 2,
               "no_repeat_ngram_size": 1, "num_beams": 3}  # fmt: skip
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps(shipped))
    asked = requests("llava")
    changed = open_model(f"hf:{tmp_path / 'model'}").generate(asked)
    assert changed == open_model(f"hf:{folders['llava']}").generate(asked)


def test_an_answer_ends_at_the_end_of_turn_that_the_model_ships(
    folders: dict[str, Path], tmp_path: Path, naive: Callable[[str], Naive]
) -> None:
    request = Request("What is this?", "en", PICTURES[0], max_new_tokens=6)
    inputs = naive("llava").inputs(request)
    ids = naive("llava").model.generate(**inputs, max_new_tokens=6, do_sample=False)
    new = ids[0, inputs["input_ids"].shape[1] :].tolist()
    end = new[2]
    assert end not in new[:2]
    shutil.copytree(folders["llava"], tmp_path / "model")
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps({"eos_token_id": end}))
    (answer,) = open_model(f"hf:{tmp_path / 'model'}").generate([request])
    assert answer == naive("llava").tokenizer.decode(new[:3])


def test_each_request_has_its_own_longest_answer(open_family: Open) -> None:
    long, short = (Request("What is this?", "en", PICTURES[0], max_new_tokens=n) for n in (6, 2))
    backend = open_family("llava")
    assert backend.generate([long, short]) == [
        *backend.generate([long]),
        *backend.generate([short]),
    ]
    assert backend.generate([short]) != backend.generate([long])


def test_a_picture_is_processed_once_for_all_its_languages_and_options(
    open_family: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = open_family("llava")
    kind = type(backend._encoder._pictures._image_processor)  # type: ignore[union-attr]
    calls: list[Any] = []
    process = kind.__call__
    monkeypatch.setattr(
        kind, "__call__", lambda self, *a, **k: calls.append(a) or process(self, *a, **k)
    )
    picture, another = PICTURES[0].copy(), PICTURES[1].copy()
    backend.choose([Request(f"question {i}", "en", picture, "p", ("a", "b")) for i in range(3)])
    assert len(calls) == 1
    # another data set may use the same name for another picture
    other = [Request("x", "en", image, "p", max_new_tokens=3) for image in (picture, another)]
    assert backend.generate(other) == [backend.generate([r])[0] for r in other]
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        (
            "Is <image> a cat?",
            "The total number of <image> tokens in the prompts should be the same",
        ),
        ("word " * 400, r"\d+ tokens and 6 new ones; the model reads 512"),
    ],
)
def test_a_request_that_cannot_be_asked_fails_alone(
    prompt: str, reason: str, open_family: Open
) -> None:
    good = requests("llava")[0]
    bad = Request(prompt, "en", PICTURES[0], options=("a",), max_new_tokens=6)
    backend = open_family("llava")
    answers = backend.generate([bad, good])
    assert isinstance(answers[0], Failure) and answers[1] == backend.generate([good])[0]
    assert re.match(reason, answers[0].reason)
    scores = backend.choose([bad, good])
    assert isinstance(scores[0], Failure) and len(scores[1]) == 3  # type: ignore[arg-type]


def test_a_text_model_that_is_shown_a_picture_says_what_to_do(open_family: Open) -> None:
    with pytest.raises(
        UserError, match=r"reads text alone and the task has pictures.*--control blind"
    ):
        open_family("llama").generate([Request("x", "en", PICTURES[0])])


def test_a_text_without_tokens_has_no_hidden_state(open_family: Open) -> None:
    with pytest.raises(UserError, match="a text of 0 tokens has no hidden state"):
        open_family("llama").embed(["a", ""], "en")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["generate", "choose"])
@pytest.mark.parametrize("family", ["llava", "gemma3", "qwen2-vl"])
def test_the_doctor_finds_it_called_right(
    family: str, kind: str, tmp_path: Path, open_family: Open
) -> None:
    checks = examine(open_family(family), load_task(write_task(tmp_path, kind)), num_samples=6)
    # whether an untrained model answers in the language asked for is no question of calling
    failed = [c for c in checks if c.verdict == "fails" and "language" not in c.name]
    assert not failed and len(checks) == 8


# where a model comes from


def test_what_can_change_an_answer_is_recorded(open_family: Open) -> None:
    backend = open_family("llava")
    assert (backend.name, backend.training_record, len(backend.sha256)) == ("llava", None, 64)
    import transformers

    assert backend.identity == {
        "transformers": transformers.__version__,
        "image_processor": "CLIPImageProcessorPil",
        "device": "cpu",
        "dtype": "float32",
        "attention": "sdpa",
        "prompt": "processor template",
        "option_scores": "end of turn not included",
    }


@pytest.mark.parametrize(
    ("name", "same"),
    [("README.md", True), ("chat_template.jinja", False), ("tokenizer.json", False),
     ("generation_config.json", False), ("model.safetensors", False)],
)  # fmt: skip
def test_the_hash_is_that_of_the_files_that_matter(
    name: str, same: bool, folders: dict[str, Path], tmp_path: Path, open_family: Open
) -> None:
    shutil.copytree(folders["llava"], tmp_path / "copy")
    path = tmp_path / "copy" / name
    if name.endswith("safetensors"):
        tensors = load_file(path)
        save_file({**tensors, HEAD: tensors[HEAD] + 1}, path, {"format": "pt"})
    else:
        path.write_text((path.read_text() if path.exists() else "") + "\n")
    backend = open_model(f"hf:{tmp_path / 'copy'}")
    assert (backend.sha256 == open_family("llava").sha256) is same


@pytest.fixture
def hub(tmp_path: Path, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An offline cache that holds one commit of one model; gives the commit."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "hub" / "models--owner--tiny"
    shutil.copytree(folders["llava"], cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    yield commit


@pytest.mark.parametrize("revision", ["", "@main", "@0123456789abcdef0123456789abcdef01234567"])
def test_a_model_of_the_hub_is_pinned_to_its_commit(
    revision: str, hub: str, open_family: Open
) -> None:
    backend = open_model(f"hf:owner/tiny{revision}")
    assert (backend.name, backend.identity["revision"]) == ("owner/tiny", hub)
    asked = requests("llava")
    assert backend.generate(asked) == open_family("llava").generate(asked)


@pytest.mark.parametrize("spec", ["owner/absent", "owner/tiny@another"])
def test_a_model_that_is_not_cached_and_cannot_be_fetched_is_one_line(spec: str, hub: str) -> None:
    with pytest.raises(UserError) as caught:
        open_model(f"hf:{spec}")
    text = str(caught.value)
    assert text.startswith(
        f"model 'hf:{spec}': no such folder, and the hub gave nothing at revision "
    )
    assert "\n" not in text


def write_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def ask_for_own_code(folder: Path) -> None:
    code = {"AutoConfig": "conf.Conf", "AutoModelForCausalLM": "model.Model"}
    write_config(folder, model_type="novel", auto_map=code)
    (folder / "conf.py").write_text("raise SystemExit('code of the model was run')")


def drop_a_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors[HEAD]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def write_t5(folder: Path) -> None:
    config = T5Config(vocab_size=8, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    T5ForConditionalGeneration(config).save_pretrained(folder)


def write_clip(folder: Path) -> None:
    CLIPVisionModel(CLIPVisionConfig(**tiny.VISION)).save_pretrained(folder)


def cut(path: Path, num_bytes: int) -> None:
    path.write_bytes(path.read_bytes()[:num_bytes])


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "no-config": lambda folder: (folder / "config.json").unlink(),
    "half-config": lambda folder: cut(folder / "config.json", 20),
    "unknown-type": lambda folder: write_config(folder, model_type="novel"),
    "own-code": ask_for_own_code,
    "pickle": lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
    "half-weights": lambda folder: cut(folder / "model.safetensors", 20_000),
    "missing-tensor": drop_a_tensor,
    "other-sizes": lambda folder: write_config(
        folder, text_config={**tiny.SIZES, "hidden_size": 64}
    ),
    "no-tokenizer": lambda folder: (folder / "tokenizer.json").unlink(),
    "encoder-decoder": write_t5,
    "no-text": write_clip,
}


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no-config", "is no model: config.json is missing"),
        ("half-config", "cannot be loaded: "),
        ("unknown-type", "cannot be loaded: "),
        ("own-code", "needs code that comes with the model, which is never run"),
        ("pickle", "no *.safetensors; other weights are pickles, which can run code"),
        ("half-weights", "cannot be loaded: "),
        (
            "missing-tensor",
            "the weights lack 1 tensors (first: lm_head.weight); they would be random",
        ),
        ("other-sizes", "cannot be loaded: "),
        ("no-tokenizer", "cannot be loaded: "),
        ("encoder-decoder", "an encoder and a decoder; only decoders can be evaluated"),
        ("no-text", "a model of type 'clip_vision_model' writes no text"),
    ],
)
def test_a_model_that_cannot_be_used_is_one_line(
    how: str, message: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(folders["llava"], folder)
    DAMAGE[how](folder)
    with pytest.raises(UserError) as caught:
        open_model(f"hf:{folder}")
    text = str(caught.value)
    assert text.startswith(f"model 'hf:{folder}': ") and message in text
    assert "\n" not in text


@pytest.mark.parametrize("spec", ["hf:", "hf:./absent", "hf:/absent", "hf:a/b/c"])
def test_a_folder_that_is_not_there_is_one_line(spec: str) -> None:
    with pytest.raises(UserError, match="no such folder; give a folder or a model id"):
        open_model(spec)


@pytest.mark.slow
def test_the_command_line_runs_and_scores_it(
    tmp_path: Path, folders: dict[str, Path], mpm_eval: Command
) -> None:
    task = write_task(tmp_path)
    done = mpm_eval("run", "--task", task, "--model", f"hf:{folders['llava']}", "--limit", "3")
    assert done.returncode == 0, done.stderr
    run = tmp_path / "results" / "runs" / "llava-limit3"
    model = json.loads((run / "run.json").read_text())["model"]
    assert model["spec"] == "hf:llava" and model["identity"]["dtype"] == "float32"
    result = json.loads((run / "small" / "result.json").read_text())
    assert {score["label"] for score in result["scores"]} <= {"pivot", "unknown"}
    assert len((run / "small" / "predictions.jsonl").read_text().splitlines()) == 6
