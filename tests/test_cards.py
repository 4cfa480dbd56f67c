"""Model cards, and what `--model` may say."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mpm_eval import backends, cards
from mpm_eval.backends.echo import EchoBackend
from mpm_eval.cards import list_cards, load_card, open_model
from mpm_eval.errors import UserError
from mpm_eval.strict import file_sha256

CARD = """---
license: apache-2.0
language: [en, "no", zh]
library_name: mpm-eval
tags: [multilingual]
mpm_eval:
  backend: checkpoint
  checkpoint: weights
  description: A small one
---

# small
"""


class Stub(EchoBackend):
    """Stands in for the backend of checkpoints: it keeps the folder it was opened with."""

    folder = ""


def open_stub(argument: str, seed: int) -> Stub:
    stub = Stub("")
    stub.folder = argument
    return stub


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a card named "small", in place of the shipped cards."""
    monkeypatch.setattr(cards, "shipped", lambda kind: tmp_path / kind)
    monkeypatch.setitem(backends.BACKENDS, "checkpoint", f"{__name__}:open_stub")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "model_cards" / "small"
    write_checkpoint(folder / "weights")
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    return folder


def write_checkpoint(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({}), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(b"")


def rewrite(folder: Path, old: str, new: str) -> None:
    assert old in CARD
    (folder / "README.md").write_text(CARD.replace(old, new), encoding="utf-8")


def test_a_card_is_read_with_its_languages_and_the_hash_of_its_text(folder: Path) -> None:
    (card,) = list_cards()
    assert (card.name, card.licence, card.backend) == ("small", "apache-2.0", "checkpoint")
    assert card.languages == ("en", "no", "zh")
    assert card.checkpoint == str(folder / "weights") and card.description == "A small one"
    assert card.sha256 == file_sha256(folder / "README.md")


def test_a_single_language_needs_no_list_as_on_the_hub(folder: Path) -> None:
    rewrite(folder, 'language: [en, "no", zh]', "language: en")
    assert load_card("small").languages == ("en",)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"no"', "no", 'language: YAML reads no as false; write "no"'),
        ('"no"', "1", "language[1]: expected a string, got an integer"),
        ("language:", "langauge:", "unknown key 'langauge'; did you mean 'language'?"),
        ("license: apache-2.0", "", "key 'license' is missing"),
        ("tags: [multilingual]", "tags: multilingual", "tags: expected a list, got a string"),
        ("  checkpoint: weights", "  chekpoint: weights", "mpm_eval: unknown key 'chekpoint'; did you mean 'checkpoint'?"),
        ("checkpoint: weights", "checkpoint: 1.10", "mpm_eval: checkpoint: expected a string, got a number"),
        ("backend: checkpoint", "backend: checkpint", "mpm_eval.backend: unknown backend 'checkpint'; did you mean 'checkpoint'?"),
        ("checkpoint: weights", "checkpoint: elsewhere", "mpm_eval.checkpoint: no folder "),
        ("license: apache-2.0", "license: [", "front matter is not valid YAML: "),
        ("license: apache-2.0", "license: !!python/object:os.system {}", "front matter is not valid YAML: "),
        ("---\nlicense", "license", "no front matter; start the card with '---'"),
        ("---\n\n# small", "# small", "no front matter; start the card with '---'"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_card_names_the_card(folder: Path, old: str, new: str, message: str) -> None:
    rewrite(folder, old, new)
    with pytest.raises(UserError) as caught:
        load_card("small")
    assert str(caught.value).startswith(f"{folder / 'README.md'}: {message}")
    assert "\n" not in str(caught.value)


def test_empty_front_matter_is_refused(folder: Path) -> None:
    (folder / "README.md").write_text("---\n---\ntext\n")
    with pytest.raises(UserError, match="front matter: expected a table of fields"):
        load_card("small")


def test_a_card_of_another_backend_needs_no_weights(folder: Path) -> None:
    rewrite(folder, "backend: checkpoint\n  checkpoint: weights", "backend: echo")
    assert load_card("small").checkpoint is None
    assert (open_model("small").name, open_model("small").identity["rule"]) == ("small", "right")


def test_a_card_that_is_not_there_gives_the_known_names(folder: Path) -> None:
    with pytest.raises(UserError, match=r"unknown model card 'smal'; did you mean 'small'\?"):
        load_card("smal")


def test_a_card_that_is_not_utf8_names_the_card(folder: Path) -> None:
    (folder / "README.md").write_bytes(CARD.encode("utf-16"))
    with pytest.raises(UserError, match=r"README\.md: not UTF-8"):
        load_card("small")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_card_without_its_weights_says_which_file_is_missing(folder: Path, name: str) -> None:
    (folder / "weights" / name).unlink()
    with pytest.raises(UserError, match=f"is not a checkpoint: {name} is missing"):
        open_model("small")


def test_a_model_opened_by_its_card_bears_the_cards_name_and_hash(folder: Path) -> None:
    model = open_model("small", seed=3)
    assert isinstance(model, Stub)
    assert (model.name, model.folder) == ("small", str(folder / "weights"))
    assert model.identity["card_sha256"] == load_card("small").sha256


@pytest.mark.parametrize("spec", ["mine", "./mine", "checkpoint:mine"])
def test_a_folder_with_weights_is_a_model(folder: Path, spec: str) -> None:
    write_checkpoint(Path("mine"))
    model = open_model(spec)
    assert isinstance(model, Stub) and Path(model.folder) == Path("mine")


def test_a_checkpoint_folder_may_be_called_like_a_backend(folder: Path) -> None:
    write_checkpoint(Path("echo"))
    assert isinstance(open_model("echo"), Stub)


def test_a_card_comes_before_a_folder_of_its_name(folder: Path) -> None:
    write_checkpoint(Path("small"))
    model = open_model("small")
    assert isinstance(model, Stub) and model.folder == str(folder / "weights")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("smal", "--model: unknown model 'smal'; did you mean 'small'\\? known: checkpoint, echo, hf, openai, paint, small"),
        ("eco", "unknown model 'eco'; did you mean 'echo'"),
        ("checkpoint:nowhere", "--model checkpoint:nowhere: no folder nowhere"),
        ("model_cards", "--model model_cards: model_cards is not a checkpoint: config.json is missing"),
        ("", "unknown model ''"),
    ],
)  # fmt: skip
def test_a_model_that_is_not_there_gives_the_known_names(
    folder: Path, spec: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        open_model(spec)


def test_a_checkpoint_folder_without_weights_names_the_file(folder: Path) -> None:
    write_checkpoint(Path("mine"))
    (Path("mine") / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"mine is not a checkpoint: model\.safetensors is missing"):
        open_model("mine")


def test_an_empty_folder_does_not_hide_a_backend(folder: Path) -> None:
    Path("echo").mkdir()
    assert open_model("echo").name == "echo"


def test_an_argument_goes_to_the_backend() -> None:
    assert open_model("echo:half").name == "echo-half"


def test_the_shipped_cards_load_without_torch() -> None:
    code = (
        "import sys\nfrom mpm_eval.cards import list_cards\nlist_cards()\n"
        "print([name for name in ('torch', 'training', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
