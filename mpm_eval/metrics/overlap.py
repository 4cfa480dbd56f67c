"""Surface overlap with references, from sacreBLEU's own per-segment statistics: chrF and BLEU."""

from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from mpm_eval.metrics import Item
from mpm_eval.metrics.mean import ratio, require_items
from mpm_eval.normalise import base_language

if TYPE_CHECKING:
    from sacrebleu.metrics.base import Metric as SacreMetric
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

_CHRF_ORDER = 6
_BLEU_ORDER = 4
# language -> (sacreBLEU tokenizer, module it needs, tokenizer without that module)
_TOKENIZERS = {
    "zh": ("zh", "sacrebleu", "char"),
    "ja": ("ja-mecab", "MeCab", "char"),
    "ko": ("ko-mecab", "mecab_ko", "char"),
    "th": ("char", "sacrebleu", "char"),
}


class Chrf:
    """chrF (Popović 2015), characters up to 6-grams, beta 2, over the corpus, 0 to 100.

    Of several references the one with the best F-score counts, as in sacreBLEU.
    """

    name = "chrf"
    kinds = frozenset({"generate"})
    higher_is_better = True
    range = (0.0, 100.0)

    def applies(self, item: Item) -> bool:
        return True

    def supports(self, language: str) -> bool:
        return True

    def signature(self, language: str) -> str:
        # sacreBLEU's effective order: orders longer than the texts are left out
        return (
            f"{self.name}|refs:best|case:mixed|eff:yes|nc:{_CHRF_ORDER}|nw:0|space:no"
            f"|sacrebleu:{version('sacrebleu')}"
        )

    def statistics(self, items: Sequence[Item], language: str) -> np.ndarray:
        """Return x_N18: output, reference and matching n-gram counts for each order 1 to 6."""
        require_items(items, self.name)
        return _segment_statistics(_chrf(), items)

    def aggregate(self, totals: np.ndarray) -> np.ndarray:
        counts = np.asarray(totals, dtype=np.float64)
        counts = counts.reshape(*counts.shape[:-1], _CHRF_ORDER, 3)
        output, reference, match = counts[..., 0], counts[..., 1], counts[..., 2]
        effective = (output > 0) & (reference > 0)
        num_orders = effective.sum(axis=-1)
        precision = _mean_where(ratio(match, output), effective, num_orders)
        recall = _mean_where(ratio(match, reference), effective, num_orders)
        score = 100 * _zero_if_nan(ratio(5 * precision * recall, 4 * precision + recall))
        # no text at all, not even of a reference: there is nothing to measure
        return np.where(counts.any(axis=(-1, -2)), score, np.nan)


class Bleu:
    """BLEU (Papineni et al. 2002) over the corpus as in sacreBLEU (Post 2018), 0 to 100.

    Not the mean of sentence scores: texts without any matching 4-gram score near 0, and outputs
    shorter than four tokens bring no 4-gram at all. Prefer chrF for short captions.
    """

    name = "bleu"
    kinds = frozenset({"generate"})
    higher_is_better = True
    range = (0.0, 100.0)

    def applies(self, item: Item) -> bool:
        return True

    def supports(self, language: str) -> bool:
        return True

    def signature(self, language: str) -> str:
        tokenizer = str(_bleu(tokenizer_for(language)).tokenizer.signature()).replace(" ", "_")
        return (
            f"{self.name}|refs:all|case:mixed|eff:no|tok:{tokenizer}|smooth:exp"
            f"|sacrebleu:{version('sacrebleu')}"
        )

    def statistics(self, items: Sequence[Item], language: str) -> np.ndarray:
        """Return x_N10: output and closest reference length, 4 matching and 4 output counts."""
        require_items(items, self.name)
        return _segment_statistics(_bleu(tokenizer_for(language)), items)

    def aggregate(self, totals: np.ndarray) -> np.ndarray:
        counts = np.asarray(totals, dtype=np.float64)
        output_length, reference_length = counts[..., 0], counts[..., 1]
        correct = counts[..., 2 : 2 + _BLEU_ORDER]
        total = counts[..., 2 + _BLEU_ORDER :]
        # exponential smoothing: the first order without a match counts as 1/2, the next as 1/4
        missed = correct == 0
        smooth = np.where(missed, 0.5 ** np.cumsum(missed, axis=-1), correct)
        possible = (total > 0).all(axis=-1) & ~missed.all(axis=-1)
        precision = np.where(possible[..., None], _zero_if_nan(ratio(smooth, total)), 1.0)
        brevity = np.exp(np.minimum(0.0, 1 - _zero_if_nan(ratio(reference_length, output_length))))
        score = 100 * brevity * np.exp(np.log(precision).mean(axis=-1))
        score = np.where(possible, np.minimum(score, 100.0), 0.0)
        return np.where(counts.any(axis=-1), score, np.nan)


def tokenizer_for(language: str) -> str:
    """Return the name of sacreBLEU's tokenizer for `language`.

    Japanese and Korean need a segmenter; without it they are split by character, which the
    signature shows, so that such scores are not compared.
    """
    if base_language(language) not in _TOKENIZERS:
        return "13a"
    name, module, fallback = _TOKENIZERS[base_language(language)]
    return name if find_spec(module) else fallback


def pad_references(items: Sequence[Item]) -> list[list[str | None]]:
    """Return one list per reference position, as sacreBLEU reads them.

    A missing reference is None and never "": sacreBLEU takes "" for a reference of length 0, and
    BLEU's brevity penalty is then measured against it.
    """
    most = max(len(item.references) for item in items)
    return [
        [item.references[k] if k < len(item.references) else None for item in items]
        for k in range(most)
    ]


def _segment_statistics(metric: "SacreMetric", items: Sequence[Item]) -> np.ndarray:
    outputs = [item.output for item in items]
    rows = metric._extract_corpus_statistics(outputs, pad_references(items))
    assert len(rows) == len(items), "one row per item"
    return np.array(rows, dtype=np.float64)


@lru_cache(maxsize=1)
def _chrf() -> "CHRF":
    # the defining module: sacrebleu.metrics does not export its names to a type checker
    from sacrebleu.metrics.chrf import CHRF

    return CHRF(char_order=_CHRF_ORDER)


@lru_cache(maxsize=8)
def _bleu(tokenizer: str) -> "BLEU":
    from sacrebleu.metrics.bleu import BLEU

    # force: model outputs may end in " ." and are no sign of tokenized data
    return BLEU(tokenize=tokenizer, force=True, max_ngram_order=_BLEU_ORDER)


def _mean_where(values: np.ndarray, mask: np.ndarray, count: np.ndarray) -> np.ndarray:
    return _zero_if_nan(ratio(np.where(mask, values, 0.0).sum(axis=-1), count))


def _zero_if_nan(values: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(values), 0.0, values)
