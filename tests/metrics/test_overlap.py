"""chrF and BLEU against sacreBLEU's own corpus scores."""

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from mpm_eval.metrics import Item
from mpm_eval.metrics.overlap import Bleu, Chrf, pad_references, tokenizer_for

CORPORA: dict[str, tuple[str, list[tuple[str, tuple[str, ...]]]]] = {
    "several references": (
        "en",
        [
            ("The dog bit the man.", ("The dog bit the man.", "The dog had bit the man.")),
            ("It was not unexpected.", ("It wasn't surprising.", "No one was surprised.")),
            ("The man bit him first.", ("The man had bitten the dog.",)),
            ("", ("A man and a dog.",)),
            ("dog", ("a dog in a very big garden", "dog", "cat")),
        ],
    ),
    "no 4-gram in common": (
        "en",
        [("the cat sat here", ("the cat was here",)), ("a b c d", ("a b x d", "q"))],
    ),
    "too short for 4-grams": ("en", [("a dog", ("a dog",)), ("cat", ("a cat",))]),
    "longer than the references": (
        "en",
        [("the old man reads a newspaper at home today", ("the old man reads it today",))],
    ),
    "shorter than some n-grams": ("en", [("cat", ("cats in a very big garden",))]),
    "nothing in common": ("en", [("xyz", ("a dog in the park",)), ("", ("cat",))]),
    "shorter than the references": (
        "en",
        [("the old man reads", ("the old man reads a newspaper at home today",))],
    ),
    "Chinese": (
        "zh",
        [
            ("一只棕色的狗在草地上奔跑", ("一只棕色的小狗在草地上跑", "狗在跑")),
            ("两个孩子在玩", ("两个孩子正在水里玩耍",)),
        ],
    ),
    "Japanese": ("ja", [("犬が草の上を走っている", ("茶色の犬が草の上を走る",))]),
}


def items_of(name: str) -> tuple[str, list[Item]]:
    language, rows = CORPORA[name]
    return language, [Item(output, references, language) for output, references in rows]


def oracle(metric: BLEU | CHRF, items: list[Item]) -> float:
    score = metric.corpus_score([item.output for item in items], pad_references(items))
    return float(score.score)


@pytest.mark.parametrize("name", CORPORA)
def test_chrf_equals_sacrebleu(name: str) -> None:
    language, items = items_of(name)
    value = Chrf().aggregate(Chrf().statistics(items, language).sum(axis=0))
    assert float(value) == pytest.approx(oracle(CHRF(), items), abs=1e-9)


@pytest.mark.parametrize("name", CORPORA)
def test_bleu_equals_sacrebleu(name: str) -> None:
    language, items = items_of(name)
    value = Bleu().aggregate(Bleu().statistics(items, language).sum(axis=0))
    expected = oracle(BLEU(tokenize=tokenizer_for(language)), items)
    assert float(value) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", ["several references", "no 4-gram in common", "Chinese"])
def test_any_resample_equals_sacrebleu_on_the_repeated_samples(name: str) -> None:
    language, items = items_of(name)
    weights = np.random.default_rng(1).integers(0, 4, size=(20, len(items)))
    weights[:, 0] += 1  # a resample is never empty
    for metric, sacre in (
        (Chrf(), CHRF()),
        (Bleu(), BLEU(tokenize=tokenizer_for(language))),
    ):
        values = metric.aggregate(weights @ metric.statistics(items, language))
        for row, value in zip(weights, values, strict=True):
            repeated = [item for item, n in zip(items, row, strict=True) for _ in range(n)]
            assert value == pytest.approx(oracle(sacre, repeated), abs=1e-9)


def test_known_bleu_of_the_sacrebleu_manual() -> None:
    # the example in sacreBLEU's README: 48.53 with two reference streams
    rows = [
        ("The dog bit the man.", ("The dog bit the man.", "The dog had bit the man.")),
        ("It wasn't surprising.", ("It was not unexpected.", "No one was surprised.")),
        ("The man had just bitten him.", ("The man bit him first.", "The man had bitten the dog.")),
    ]
    items = [Item(output, references, "en") for output, references in rows]
    value = float(Bleu().aggregate(Bleu().statistics(items, "en").sum(axis=0)))
    assert value == pytest.approx(48.53, abs=0.005)


def test_a_sample_with_fewer_references_gains_nothing() -> None:
    # padded with "" instead of None, "the dog" would be as long as its closest reference
    long = "the dog runs over the green grass"
    alone = [Item("the dog", (long,), "en")]
    beside = [*alone, Item("", ("a", "b"), "en")]
    expected = Bleu().statistics(alone, "en")[0]
    np.testing.assert_array_equal(Bleu().statistics(beside, "en")[0], expected)
    assert expected[1] == 7


def test_the_tokenizer_is_chosen_by_language() -> None:
    assert tokenizer_for("de") == "13a"
    assert tokenizer_for("zh") == tokenizer_for("zh-Hant") == "zh"
    assert tokenizer_for("ja") in ("ja-mecab", "char")
    assert tokenizer_for("ko") in ("ko-mecab", "char")
    assert "tok:zh" in Bleu().signature("zh")


def test_without_a_segmenter_japanese_is_split_by_character(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mpm_eval.metrics.overlap.find_spec", lambda name: None)
    assert tokenizer_for("ja") == "char"
    assert "tok:char" in Bleu().signature("ja")
