"""Wrong options for "which of these four is it?": the same concepts in every language."""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from mpm_eval.data._emoji_data import Concept, EmojiData, stable_hash
from mpm_eval.errors import UserError
from mpm_eval.languages import EMOJI_LANGUAGES

NUM_OPTIONS = 4

# In English names, what tells apart the gendered or mirrored forms of one role. Some languages
# drop the difference, some data swap it, and the picture shows it in a few pixels.
_FORM = re.compile(r"\b(?:man|woman|person|men|women|people)\b|: facing right$")


class Choices:
    """Draws wrong options for concepts; every draw depends on concept ids only.

    Whether two concepts may meet is judged in all languages of the data, not only in a task's:
    the item then is the same in every task, and scores of different tasks can be paired.
    """

    def __init__(self, data: EmojiData) -> None:
        # a wrong option needs a name in every language; the right one only in the task's
        named = [c for c in data.concepts if all(data.name(c, tag) for tag in EMOJI_LANGUAGES)]
        self._data = data
        self._drawn: dict[str, tuple[Concept, ...]] = {}
        self._by_split: dict[str, list[Concept]] = {}
        for concept in named:
            self._by_split.setdefault(concept.split, []).append(concept)
        self._names = {
            c.id: [{n.casefold() for n in data.names(c, tag)} for tag in EMOJI_LANGUAGES]
            for c in data.concepts
        }
        self._references = {
            c.id: [{r.casefold() for r in data.references(c, tag)} for tag in EMOJI_LANGUAGES]
            for c in data.concepts
        }

    def wrong(self, concept: Concept) -> tuple[Concept, ...]:
        """Return the three wrong options of `concept`, nearest first.

        From its subgroup, then its group, then anywhere, in each by hash. Always of its own
        split: a model has seen all four in training or none, so that familiarity is no cue.
        Raises UserError when fewer than three can be told apart from it.
        """
        if concept.id not in self._drawn:
            self._drawn[concept.id] = self._draw(concept)
        return self._drawn[concept.id]

    def _draw(self, concept: Concept) -> tuple[Concept, ...]:
        chosen: list[Concept] = []
        for candidate in self._nearest_first(concept):
            if all(self._may_meet(candidate, other) for other in (concept, *chosen)):
                chosen.append(candidate)
                if len(chosen) == NUM_OPTIONS - 1:
                    return tuple(chosen)
        raise UserError(f"emoji: too few wrong options for concept {concept.id}")

    def _nearest_first(self, concept: Concept) -> Iterator[Concept]:
        pool = [c for c in self._by_split[concept.split] if c.id != concept.id]
        rings = (
            [c for c in pool if c.subgroup == concept.subgroup],
            [c for c in pool if c.subgroup != concept.subgroup and c.group == concept.group],
            [c for c in pool if c.group != concept.group],
        )
        for ring in rings:
            yield from sorted(ring, key=lambda c: stable_hash("wrong", concept.id, c.id))

    def _may_meet(self, one: Concept, other: Concept) -> bool:
        """Whether no name of the one is an accepted answer for the other, in any language."""
        if role(self._data.name(one, "en")) == role(self._data.name(other, "en")):
            return False
        pairs = ((one.id, other.id), (other.id, one.id))
        return not any(
            names & references
            for left, right in pairs
            for names, references in zip(self._names[left], self._references[right], strict=True)
        )


def role(name: str) -> str:
    """Return an English name without the words for gender and direction."""
    return " ".join(_FORM.sub(" ", name).split()) or "person"


@lru_cache(maxsize=1)
def shared_choices(data: EmojiData) -> Choices:
    """Return the choices over `data`, prepared once in a process."""
    return Choices(data)


def place_right(names: Sequence[str], right: str, position: int) -> tuple[str, ...]:
    """Return `names` with `right` put in at `position`."""
    return (*names[:position], right, *names[position:])
