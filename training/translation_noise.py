"""Damage to translated captions: words dropped, words swapped, another sense."""

import random
from collections.abc import Callable

from mpm_eval.normalise import UNSPACED, base_language

KINDS = ("dropped", "swapped", "wrong_sense")


def damaged(
    text: str, language: str, kind: str, share: float, seed: int, other_sense: Callable[[], str]
) -> str:
    """Return `text` as a worse translation of its source would read.

    dropped: each word is missing with probability `share`, but one always stays. swapped: each
    word changes places with the next one with probability `share`. wrong_sense: with probability
    `share` the text is `other_sense()`. A text is damaged in the same way whenever it is asked for,
    as a translation program errs, and what a share damages every larger share damages, too. Where
    words are not spaced, characters are the words.
    """
    # not of the share: the same draws decide at every share
    rng = random.Random(f"{seed}/translation-noise/{kind}/{language}/{text}")
    if kind == "wrong_sense":
        return other_sense() if rng.random() < share else text
    spaced = " " in text or base_language(language) not in UNSPACED
    words = text.split() if spaced else list(text)
    draws = [rng.random() for _ in words]
    if kind == "dropped":
        last = max(range(len(words)), key=draws.__getitem__)
        words = [w for i, w in enumerate(words) if draws[i] >= share or i == last]
    else:
        for index in range(len(words) - 1):
            if draws[index] < share:
                words[index], words[index + 1] = words[index + 1], words[index]
    return (" " if spaced else "").join(words)
