"""How well a language model ties languages together: the premise of the method, measured."""

from collections.abc import Mapping, Sequence

import numpy as np

from mpm_eval.probes.retrieval import retrieve
from training.chat_model import ChatModel
from training.corpus import EmojiCorpus

_NUM_NAMES = 256


def measure_alignment(model: ChatModel, corpus: EmojiCorpus) -> tuple[dict[str, float], int]:
    """Return (P@1 by language, layer): how often the nearest name of the pivot is the translation.

    By cosine between centred hidden states, among the names of concepts that all languages name
    (256 at most, evenly taken); of the layer where the mean over languages is highest. Empty when
    the pivot is the only language.
    """
    pivot = corpus.recipe.pivot
    targets = [language for language in corpus.recipe.languages if language != pivot]
    names = _names(corpus, (pivot, *targets))
    if not targets or not names[pivot]:
        return {}, -1
    states = {language: model.text_states(texts).cpu().numpy() for language, texts in names.items()}
    groups = {language: _groups(texts) for language, texts in names.items()}
    found = {
        target: [
            float(retrieve(x, y, groups[target], groups[pivot], centred=True)[0][:, 0].mean())
            for x, y in zip(states[target], states[pivot], strict=True)
        ]
        for target in targets
    }
    layer = int(np.mean(list(found.values()), axis=0).argmax())
    return {target: values[layer] for target, values in found.items()}, layer


def _names(corpus: EmojiCorpus, languages: Sequence[str]) -> Mapping[str, list[str]]:
    data = corpus.data
    named = [c for c in data.concepts if all(data.name(c, language) for language in languages)]
    step = max(1, len(named) // _NUM_NAMES)
    chosen = named[::step][:_NUM_NAMES]
    return {language: [data.name(c, language) for c in chosen] for language in languages}


def _groups(texts: Sequence[str]) -> list[int]:
    """Return a number per text, equal for equal texts."""
    first: dict[str, int] = {}
    return [first.setdefault(text, index) for index, text in enumerate(texts)]
