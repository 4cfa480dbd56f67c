"""Read the two scores in a judge's reply: as LLaVA's script does, or as a careful reader would."""

import math
import re
import unicodedata

from mpm_eval.errors import unknown

PARSER_VERSION = 1
LOWEST, HIGHEST = 0.0, 10.0  # the rule asks for 1 to 10; judges give 0 to an empty answer

FAILED_LLAVA = (-1.0, -1.0)

_NUMBER = r"(\d{1,2}(?:\.\d{1,2})?)(?![\d.]*\d)"
_UNIT = r"(?:\s*/\s*10(?!\.?\d)|\s*(?:分|点|점|(?:points?|pts|punkte?|puntos?)\b))?"
_AND = r"\s*[;、|]\s*|\s*,\s+|\s+,\s*|\s+(?:and|und|et|y)\s+|\s*[和与と]\s*|\s+"
_SCORES = (
    r"(?:(?:overall )?scores?|ratings?|评分|得分|分数|打分|bewertung(?:en)?|punkte|wertung(?:en)?"
    r"|notes?|puntuaci(?:ón|ones)|puntajes?|notas?|スコア|評価|点数|採点)\s*[:=]\s*"
)
_PAIR = re.compile(f"{_NUMBER}{_UNIT}(?:{_AND}|,){_NUMBER}{_UNIT}", re.IGNORECASE)
# behind a label, "8,5" may be one score with a decimal comma
_LABELLED_PAIR = re.compile(f"{_SCORES}{_NUMBER}{_UNIT}(?:{_AND}){_NUMBER}{_UNIT}", re.IGNORECASE)
_COMMAS = re.compile(rf"(?:{_SCORES})?(\d{{1,2}},\d)\s*[;,]?\s+(\d{{1,2}},\d)", re.IGNORECASE)
_SINGLE = re.compile(f"{_NUMBER}{_UNIT}", re.IGNORECASE)
_ASSISTANT = r"(?:assistante?s?|assistent(?:in)?|asistente|助理|助手|アシスタント)\s*#?\s*"
_ONE = re.compile(
    rf"{_ASSISTANT}([12])(?:'s)?\s*(?:score|的?得分|的?评分|の?評価|の?点数)?\s*[:=]\s*"
    rf"{_NUMBER}{_UNIT}(?=\s*(?:[,;.。、|()]|$|and\b|und\b|et\b|y\b|[和与]|{_ASSISTANT}))",
    re.IGNORECASE | re.MULTILINE,
)
_THOUGHT = re.compile(r"<think(?:ing)?>.*?</think(?:ing)?>", re.IGNORECASE | re.DOTALL)
_MARKUP = re.compile(r"[*_`#>]+")
_BULLET = re.compile(r"^[-•–]\s+")
_ENDS = " \t|()[]{}\"'“”„«».。!,;"


def parse_scores(text: str, mode: str = "llava") -> tuple[float, float] | None:
    """Return the scores of the first and the second assistant in a judge's reply.

    `llava` is the parser of LLaVA (llava/eval): the first line, commas as spaces, exactly two
    parts that read as floats; anything else is (-1.0, -1.0), and nothing is checked for range.
    `robust` also reads "8, 7", "8/10 7/10", "**8 7**", full-width digits, labels ("Assistant 1:
    8") and scores on a later line; it is None whenever it is unsure: one number or three, pairs
    that differ, another scale, a score outside 0 to 10. What both read, they read alike.

    Raises UserError for another mode.
    """
    if mode == "llava":
        return _llava(text)
    if mode == "robust":
        return _robust(text)
    raise unknown("mode", mode, ("llava", "robust"))


def on_scale(scores: tuple[float, float] | None) -> tuple[float, float] | None:
    """Return the scores if both lie on the judge's scale, else None."""
    if scores is None or not all(math.isfinite(s) and LOWEST <= s <= HIGHEST for s in scores):
        return None
    return scores


def _llava(text: str) -> tuple[float, float]:
    parts = text.split("\n")[0].replace(",", " ").split(" ")
    try:
        return (float(parts[0]), float(parts[1])) if len(parts) == 2 else FAILED_LLAVA
    except ValueError:
        return FAILED_LLAVA


def _robust(text: str) -> tuple[float, float] | None:
    spoken = _THOUGHT.sub("", text)
    if re.search(r"<think(?:ing)?>", spoken, re.IGNORECASE):
        return None  # the reply was cut off before the verdict
    plain = _MARKUP.sub("", unicodedata.normalize("NFKC", spoken))
    lines = [line for raw in plain.split("\n") if (line := _bare(raw))]
    if not lines:
        return None
    first = _pair(lines[0])
    if first:
        return on_scale(first)
    found = {pair for line in lines[1:] if (pair := _pair(line))}
    found |= _by_assistant("\n".join(lines)) or (set() if found else _one_a_line(lines))
    return on_scale(found.pop()) if len(found) == 1 else None


def _bare(line: str) -> str:
    return _BULLET.sub("", line.strip()).strip(_ENDS)


def _pair(line: str) -> tuple[float, float] | None:
    decimals = _COMMAS.fullmatch(line)
    if decimals:
        return float(decimals[1].replace(",", ".")), float(decimals[2].replace(",", "."))
    match = _PAIR.fullmatch(line) or _LABELLED_PAIR.fullmatch(line)
    return (float(match[1]), float(match[2])) if match else None


def _by_assistant(text: str) -> set[tuple[float, float]]:
    """Return every pair that labels such as "Assistant 1: 8" allow; more than one is a conflict."""
    scores: dict[str, set[float]] = {"1": set(), "2": set()}
    for number, score in _ONE.findall(text):
        scores[number].add(float(score))
    return {(one, two) for one in scores["1"] for two in scores["2"]}


def _one_a_line(lines: list[str]) -> set[tuple[float, float]]:
    """Return the pair of a reply that starts with one score on each of exactly two lines."""
    singles = [_SINGLE.fullmatch(line) for line in lines[:3]]
    if len(singles) < 2 or not (singles[0] and singles[1]) or (len(singles) > 2 and singles[2]):
        return set()
    return {(float(singles[0][1]), float(singles[1][1]))}
