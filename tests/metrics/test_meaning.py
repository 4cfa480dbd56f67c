"""Sentence embeddings: best reference, blank outputs, languages."""

import numpy as np
import pytest

from mpm_eval.metrics import Item
from mpm_eval.metrics import meaning as module
from mpm_eval.metrics.meaning import Meaning, embed


def values(*items: Item) -> list[float]:
    return [float(v) for v in Meaning().statistics(items, "en")[:, 0]]


def test_a_paraphrase_is_nearer_than_another_topic() -> None:
    reference = ("a dog is running on the grass",)
    near, far = values(
        Item("a puppy runs across the lawn", reference, "en"),
        Item("the bank raised its interest rate", reference, "en"),
    )
    assert near > far + 20


def test_a_translation_is_near_too() -> None:
    reference = ("a dog is running on the grass",)
    translated, other = values(
        Item("ein Hund läuft auf dem Gras", reference, "de"),
        Item("die Bank hat den Zins erhöht", reference, "de"),
    )
    assert translated > other + 20


def test_the_best_reference_counts() -> None:
    one, both = values(
        Item("a red car", ("a wooden table",), "en"),
        Item("a red car", ("a wooden table", "a red car"), "en"),
    )
    assert both == pytest.approx(100)
    assert one < both


@pytest.mark.parametrize("blank", ["", " ", "\n"])
def test_a_blank_output_scores_0_even_where_all_are_blank(blank: str) -> None:
    assert values(Item(blank, ("a dog",), "en")) == [0]


def test_equal_texts_are_read_once_and_batches_do_not_change_vectors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts = {"a dog", "two cats in the rain", "einst", "un chat noir sur le tapis rouge", "b"}
    whole = embed(texts)
    sizes: list[int] = []
    encoder = module._encoder()

    class Counting:
        def encode(self, batch: list[str]) -> np.ndarray:
            sizes.append(len(batch))
            return np.asarray(encoder.encode(batch))

    monkeypatch.setattr(module, "_encoder", Counting)
    monkeypatch.setattr(module, "_BATCH_SIZE", 2)
    parts = embed(texts)
    assert sizes == [2, 2, 1]
    for text in texts:
        np.testing.assert_allclose(parts[text], whole[text], atol=1e-5)
    sizes.clear()
    values(*[Item("a dog", ("a dog", "a cat"), "en")] * 5)
    assert sizes == [2]


@pytest.mark.parametrize(
    ("language", "known"),
    [("en", True), ("zh", True), ("zh-Hant", True), ("hi", False), ("sw", False), ("vi", False)],
)
def test_only_the_encoders_languages_are_supported(language: str, known: bool) -> None:
    assert Meaning().supports(language) is known
