"""The chat model: batches, padding, placeholders, checkpoints that are broken."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from mpm_eval.backends.checkpoint import CheckpointBackend
from mpm_eval.errors import UserError
from mpm_eval.schema import Request
from training.chat_model import ChatModel, collate
from training.checkpoint import load_checkpoint
from training.tokenizer import EOS, IMAGE, PAD, Example

pytestmark = pytest.mark.slow  # the shipped checkpoint is loaded


@pytest.fixture(scope="module")
def model(small_checkpoint: Path) -> ChatModel:
    return load_checkpoint(small_checkpoint)[0]


def pictures(number: int) -> list[Image.Image]:
    return [Image.new("RGB", (64, 64), (40 * i, 255 - 30 * i, 17 * i)) for i in range(number)]


QUESTIONS = ["What is this?", "Was ist das denn hier für ein Ding?", "?"]
OPTIONS = [["dog", "a large white cat"], ["Hund", "Katze", "ein sehr langes Wort"], ["x", "y"]]


def test_a_batch_of_three_answers_as_three_batches_of_one(model: ChatModel) -> None:
    visual = model.encode_pictures(pictures(3))
    together = model.generate(QUESTIONS, visual, 8)
    alone = [model.generate([q], visual[i : i + 1], 8)[0] for i, q in enumerate(QUESTIONS)]
    assert together == alone


def test_option_scores_do_not_depend_on_the_batch(model: ChatModel) -> None:
    visual = model.encode_pictures(pictures(3))
    together = model.option_scores(QUESTIONS, OPTIONS, visual)
    for i in range(3):
        alone = model.option_scores([QUESTIONS[i]], [OPTIONS[i]], visual[i : i + 1])[0]
        assert [n for _, n in alone] == [n for _, n in together[i]]
        torch.testing.assert_close(
            torch.tensor([s for s, _ in alone]), torch.tensor([s for s, _ in together[i]])
        )


def test_an_option_score_is_the_sum_of_its_token_log_probabilities(model: ChatModel) -> None:
    visual = model.encode_pictures(pictures(1))
    [[(score, tokens)]] = model.option_scores(["What is this?"], [["dog"]], visual)
    row = model.tokenizer.example(Example("What is this?", "dog"))
    ids = torch.tensor([row.ids])
    batch = collate([row], PAD)
    with torch.no_grad():
        logits = model.lm.logits(model.lm.hidden(model.inputs(batch, visual))[-1])[0]
    expected = sum(
        float(torch.log_softmax(logits[position - 1], -1)[ids[0, position]])
        for position in range(len(row.ids) - row.num_answer, len(row.ids))
    )
    assert tokens == row.num_answer and row.ids[-1] == EOS
    assert score == pytest.approx(expected, rel=1e-5)


def test_left_padding_with_a_mask_changes_only_positions(model: ChatModel) -> None:
    """Hidden states with a full mask equal those without one."""
    x = torch.randn(2, 7, model.lm.width)
    with torch.no_grad():
        plain = model.lm.hidden(x)
        masked = model.lm.hidden(x, torch.ones(2, 7, dtype=torch.bool))
    for a, b in zip(plain, masked, strict=True):
        torch.testing.assert_close(a, b)


def test_visual_tokens_overwrite_exactly_the_placeholders(model: ChatModel) -> None:
    batch = collate([model.tokenizer.prompt("What is this?")], PAD)
    visual = torch.full((1, model.tokenizer.num_visual, model.lm.width), 9.0)
    x = model.inputs(batch, visual)[0]
    places = batch.ids_BT[0] == IMAGE
    assert int(places.sum()) == model.tokenizer.num_visual
    assert bool((x[places] == 9).all()) and not bool((x[~places] == 9).any())


def test_the_picture_changes_the_answer_scores(model: ChatModel) -> None:
    visual = model.encode_pictures(pictures(2))
    a, b = model.option_scores(["What is this?"] * 2, [["dog", "cat"]] * 2, visual)
    assert a != b


def test_a_question_cannot_smuggle_control_tokens(model: ChatModel) -> None:
    ids = model.tokenizer.encode("<eos><image>")
    assert EOS not in ids and IMAGE not in ids


def test_the_backend_encodes_a_picture_once_for_all_its_questions(small_checkpoint: Path) -> None:
    backend = CheckpointBackend(small_checkpoint, seed=0)
    calls: list[int] = []
    encode = backend._model.encode_pictures
    backend._model.encode_pictures = lambda images: calls.append(len(images)) or encode(images)  # type: ignore[method-assign,func-returns-value]
    picture = pictures(1)[0]
    requests = [
        Request(prompt=q, language="en", image=picture, image_key="p", options=("dog", "cat"))
        for q in QUESTIONS
    ]
    backend.choose(requests)
    backend.generate(requests)
    assert calls == [1]


def test_a_question_without_a_picture_is_asked_once(
    small_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = CheckpointBackend(small_checkpoint, seed=0)
    model, asked = backend._model, []
    generate, score = model.generate, model.option_scores
    monkeypatch.setattr(
        model, "generate", lambda prompts, *more: asked.append(prompts) or generate(prompts, *more)
    )
    monkeypatch.setattr(model, "option_scores", lambda p, *more: asked.append(p) or score(p, *more))
    one, other, third = QUESTIONS
    seen = Request(one, "en", image=pictures(1)[0], image_key="p", options=("dog", "cat"))
    requests = [
        Request(one, "en", options=("dog", "cat")),
        seen,
        Request(other, "de", options=("Hund", "Katze")),
        Request(one, "fr", options=("dog", "cat")),
    ]
    answers, scores = backend.generate(requests), backend.choose(requests)
    assert asked == [[one], [one, other], [one], [one, other]]
    assert answers[0] == answers[3] and scores[0] == scores[3]
    alone = CheckpointBackend(small_checkpoint, seed=0)
    for i, request in enumerate(requests):
        assert alone.generate([request]) == [answers[i]]
        assert alone.choose([request])[0][0].logprob == pytest.approx(scores[i][0].logprob)
    asked.clear()
    swapped = Request(one, "en", options=("cat", "dog"))
    later = backend.choose([requests[0], swapped, Request(third, "en", options=("x",))])
    assert asked == [[one, third]] and later[0] == scores[0]
    assert [s.logprob for s in later[1]] == pytest.approx([s.logprob for s in scores[0]][::-1])
    backend.generate([Request(one, "en", max_new_tokens=2)])
    assert asked[1:] == [[one]]  # another limit is another question


def test_pooled_states_have_one_row_per_layer_and_text(small_checkpoint: Path) -> None:
    backend = CheckpointBackend(small_checkpoint, seed=0)
    states = backend.embed(["fire engine", "dog"], "en")
    assert states.shape == (3, 2, 32) and states.dtype.name == "float32"
    alone = backend.embed(["dog"], "en")
    torch.testing.assert_close(torch.tensor(states[:, 1:]), torch.tensor(alone))


def broken(source: Path, target: Path) -> Path:
    return Path(shutil.copytree(source, target))


def test_a_truncated_weights_file_is_named(small_checkpoint: Path, tmp_path: Path) -> None:
    folder = broken(small_checkpoint, tmp_path / "c")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"model\.safetensors: truncated"):
        load_checkpoint(folder)


def test_weights_that_do_not_fit_the_config_are_named(
    small_checkpoint: Path, tmp_path: Path
) -> None:
    folder = broken(small_checkpoint, tmp_path / "c")
    config = json.loads((folder / "config.json").read_text())
    config["language_model"]["num_layers"] = 3
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"tensor 'lm\.blocks\.2\.\S+' does not fit config\.json"):
        load_checkpoint(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_named(small_checkpoint: Path, tmp_path: Path, name: str) -> None:
    folder = broken(small_checkpoint, tmp_path / "c")
    (folder / name).unlink()
    with pytest.raises(UserError, match=rf"{name}: no such file"):
        load_checkpoint(folder)


def test_a_checkpoint_without_a_record_loads_and_says_nothing_about_languages(
    small_checkpoint: Path, tmp_path: Path
) -> None:
    folder = broken(small_checkpoint, tmp_path / "c")
    (folder / "training.json").unlink()
    assert CheckpointBackend(folder, seed=0).training_record is None
