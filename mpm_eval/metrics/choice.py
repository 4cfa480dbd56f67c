"""Multiple choice by log-probability: accuracy, and accuracy with guessing taken out."""

import math
from collections.abc import Sequence

import numpy as np

from mpm_eval.metrics import Item
from mpm_eval.metrics.mean import ratio, require_items


class Accuracy:
    """Accuracy of the option with the highest log-probability per token, 0 to 100.

    Of equal options the first one counts as chosen.
    """

    name = "accuracy"
    kinds = frozenset({"choose"})
    higher_is_better = True
    range = (0.0, 100.0)

    def applies(self, item: Item) -> bool:
        return True

    def supports(self, language: str) -> bool:
        return True

    def signature(self, language: str) -> str:
        return f"{self.name}|norm:token|ties:first|v:1"

    def statistics(self, items: Sequence[Item], language: str) -> np.ndarray:
        """Return x_N3: correct (0 or 1), chance (1 / number of options), 1."""
        require_items(items, self.name)
        rows = [(choose(item) == item.answer, 1 / len(item.option_scores), 1.0) for item in items]
        return np.array(rows, dtype=np.float64)

    def aggregate(self, totals: np.ndarray) -> np.ndarray:
        return 100 * ratio(totals[..., 0], totals[..., 2])


class AccuracyAboveChance(Accuracy):
    """Accuracy above chance: 0 is guessing, 100 perfect; negative, without a bound, below chance.

    100 * (correct - chance) / (n - chance), each summed over the items (chance: one over the
    number of options), so items with different numbers of options can be mixed.
    """

    name = "accuracy_above_chance"
    range = (-math.inf, 100.0)

    def aggregate(self, totals: np.ndarray) -> np.ndarray:
        correct, chance, count = totals[..., 0], totals[..., 1], totals[..., 2]
        return 100 * ratio(correct - chance, count - chance)


def choose(item: Item) -> int:
    """Return the index of the option with the highest log-probability per token, first of equals.

    Raises ValueError when there are no option scores, the answer is not one of them, or a score
    is not finite: such a comparison would silently pick an option.
    """
    if not item.option_scores:
        raise ValueError("accuracy: an item has no option scores")
    if not 0 <= item.answer < len(item.option_scores):
        raise ValueError(
            f"accuracy: answer {item.answer} is not one of {len(item.option_scores)} options"
        )
    per_token: list[float] = []
    for index, score in enumerate(item.option_scores):
        if not math.isfinite(score.logprob) or score.num_tokens < 1:
            raise ValueError(
                f"accuracy: option {index} has log-probability {score.logprob} over "
                f"{score.num_tokens} tokens; it must be finite, over at least one token"
            )
        per_token.append(score.logprob / score.num_tokens)
    return max(range(len(per_token)), key=per_token.__getitem__)
