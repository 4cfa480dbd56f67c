"""The recipe of the scorer, on made-up grids: it learns, it measures what it did not learn."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from mpm_eval.data._emoji_data import Concept
from mpm_eval.images.train_scorer import Corpus, Settings, _Basis, changed, fit, measure

SETTINGS = Settings(rank=16, dim=8, steps=150, batch=32, num_candidates=5, num_views=1)
K, E = 12, 32


class Data:
    """Twelve concepts, the last four held out."""

    concepts = tuple(
        Concept(str(i), (), "", "", "test" if i >= 8 else "train", {}) for i in range(K)
    )


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    """Return grids that are a linear map of their concept's text vector, with noise."""
    rng = np.random.default_rng(0)
    text_KE = rng.normal(size=(K, E)).astype(np.float32)
    concept_N = np.repeat(np.arange(K), 20)
    grid_NX = text_KE[concept_N] @ rng.normal(size=(E, 64)) + rng.normal(size=(len(concept_N), 64))
    return Corpus(
        data=Data(),  # type: ignore[arg-type]
        concept_N=concept_N,
        vendor_N=np.tile(np.arange(4), len(concept_N) // 4),
        grids_VNX=(torch.from_numpy(grid_NX.astype(np.float16)),),
        text_TE=torch.from_numpy(text_KE),
        texts_of=tuple(np.array([i]) for i in range(K)),
        names={"en": np.array([f"n{i}" for i in range(K)])},
        names_KE={"en": text_KE},
    )


def trained(corpus: Corpus, settings: Settings = SETTINGS) -> dict[str, np.ndarray]:
    rows = np.flatnonzero(np.isin(corpus.concept_N, corpus.learned))
    return fit(corpus, _Basis.of(corpus.grids_VNX[0], settings), rows, settings)


def test_held_out_concepts_are_those_of_the_split_test(corpus: Corpus) -> None:
    assert corpus.learned.tolist() == list(range(8))
    assert corpus.held_out.tolist() == [8, 9, 10, 11]


def test_it_learns_what_it_is_shown(corpus: Corpus) -> None:
    rows = np.flatnonzero(corpus.concept_N < 8)
    found = measure(corpus, trained(corpus), rows, corpus.learned, SETTINGS)
    assert found["en"] > 90
    nothing = trained(corpus, replace(SETTINGS, steps=0))
    assert measure(corpus, nothing, rows, corpus.learned, SETTINGS)["en"] < 60


def test_the_same_seed_gives_the_same_maps(corpus: Corpus) -> None:
    settings = replace(SETTINGS, steps=5)
    first, second = trained(corpus, settings), trained(corpus, settings)
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name])
    other = trained(corpus, replace(settings, seed=1))
    assert not np.array_equal(first["picture_in"], other["picture_in"])


def test_a_wrong_name_equal_to_the_right_one_is_passed_over(corpus: Corpus) -> None:
    rows = np.flatnonzero(corpus.concept_N < 8)
    maps = trained(corpus, replace(SETTINGS, steps=0))  # it would be wrong
    same = replace(corpus, names={"en": np.array(["one"] * K)})
    assert measure(same, maps, rows, corpus.learned, SETTINGS) == {"en": 100.0}


def test_a_changed_picture_is_a_picture_and_depends_on_its_generator_alone() -> None:
    picture = Image.new("RGB", (64, 64), "white")
    picture.paste((200, 30, 30), (20, 20, 44, 44))
    first = changed(picture, np.random.default_rng(3))
    assert first.mode == "RGB" and first.size in ((64, 64), (32, 32))
    assert first.tobytes() == changed(picture, np.random.default_rng(3)).tobytes()
    assert first.tobytes() != changed(picture, np.random.default_rng(4)).tobytes()
    corner = first.getpixel((0, 0))
    assert isinstance(corner, tuple) and min(corner) > 140  # what comes in from outside is white
