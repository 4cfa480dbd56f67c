"""Questions about the emoji pictures in five languages: conversation, detail, complex reasoning.

The same concept and seed give the same template, paraphrase number, wrong kind and fact in every
language; only the texts differ. Nothing is random: all choices are hashes of ids.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

from mpm_eval.data._emoji_data import Concept, EmojiData, emoji_data, stable_hash
from mpm_eval.data._qa_templates import (
    CATEGORIES,
    QA_LANGUAGES,
    Kind,
    Template,
    kinds,
    templates,
)
from mpm_eval.data._samples import SampleSet, one_of, read_options, where
from mpm_eval.data.emoji import (
    SEEN_UNSEEN,
    UNSEEN_UNSEEN,
    Picture,
    describe,
    in_all_languages,
    pictures_of,
    sample_id,
)
from mpm_eval.errors import unknown
from mpm_eval.schema import Sample, Task

__all__ = ["CATEGORIES", "QA", "QA_LANGUAGES", "caption_prompts", "open_emoji_qa", "questions"]

USAGES = ("train", "test")
NUM_WORDS = 4  # in a list of words; a description has one less
JOIN = {"zh": "、"}  # between words; ", " elsewhere
SPACE = {"zh": ""}  # between sentences; " " elsewhere


@dataclass(frozen=True, slots=True)
class QA:
    """One question about one concept in one language."""

    question: str
    references: tuple[str, ...]  # the answer to train on first
    category: str  # of CATEGORIES
    closed: bool
    template: str  # id in qa.toml


@dataclass(frozen=True, slots=True)
class QAOptions:
    """The table [data] of a task with source "emoji_qa"."""

    source: str
    split: str
    cells: tuple[str, ...] = (SEEN_UNSEEN, UNSEEN_UNSEEN)
    categories: tuple[str, ...] = CATEGORIES
    per_category: int = 0  # at most so many samples per category; 0: all
    allow_train: bool = False


def caption_prompts() -> Mapping[str, str]:
    """Return language -> the question "What is this?", in all 16 languages."""
    return templates().caption_prompt


def questions(concept: Concept, language: str, usage: str = "train", seed: str = "") -> list[QA]:
    """Return one question per template that suits `concept`, the same ones in every language.

    `usage` "test" asks with paraphrases that "train" never shows. Another seed (the vendor, an
    epoch) asks with other paraphrases, wrong kinds and facts; of the facts there is one per call.
    Raises UserError for a language without templates.
    """
    if language not in QA_LANGUAGES:
        raise unknown("language", language, QA_LANGUAGES, "emoji_qa")
    if usage not in USAGES:
        raise ValueError(f"usage must be one of {USAGES}, got {usage!r}")
    asked = [_ask(t, concept, language, usage, seed) for t in templates().template]
    return [qa for qa in asked if qa is not None]


def _ask(template: Template, concept: Concept, language: str, usage: str, seed: str) -> QA | None:
    filled = _fill(template, concept, language, seed)
    if filled is None:
        return None
    slots, references = filled
    if usage == "test":
        frame = template.test[language]
    else:
        frames = template.train[language]
        frame = frames[stable_hash("paraphrase", concept.id, template.id, seed) % len(frames)]
    return QA(
        question=frame.format(**slots),
        references=references,
        category=template.category,
        closed=template.closed,
        template=template.id,
    )


Filled = tuple[dict[str, str], tuple[str, ...]]  # slots of the question, references


def _fill(template: Template, concept: Concept, language: str, seed: str) -> Filled | None:
    """Return what fills the question and answers it; None where it does not suit the concept."""
    data = emoji_data()
    if not data.name(concept, language):
        return None
    if template.rule == "name":
        return {}, data.references(concept, language)
    if template.rule == "describe":
        return {}, (_description(data, concept, language),)
    if template.rule == "words":
        words = [data.name(concept, language), *_keywords(data, concept, language)]
        return {}, (JOIN.get(language, ", ").join(words[:NUM_WORDS]),)
    name = kinds().get(concept.id)
    if name is None:
        return None
    if template.rule in ("is_kind", "either"):
        return _ask_kind(template.rule, concept, name, language, seed)
    if template.rule == "fact":
        dealt = _deal_facts(seed).get(concept.id)
        if dealt is None or dealt[0] != template.id:
            return None
        return {}, (_yes_no(dealt[1], language),)
    kind = templates().kind[name]
    accepted = _phrases(template.rule, kind, language)
    return ({}, accepted) if accepted else None


def _phrases(rule: str, kind: Kind, language: str) -> tuple[str, ...]:
    if rule == "place":
        return templates().place[kind.place][language] if kind.place else ()
    return templates().use[kind.use][language] if kind.use else ()


def _yes_no(truth: bool, language: str) -> str:
    answer = templates().answer
    return (answer.yes if truth else answer.no)[language]


def _keywords(data: EmojiData, concept: Concept, language: str) -> list[str]:
    names = {name.casefold() for name in data.names(concept, language)}
    return [k for k in data.keywords(concept, language) if k.casefold() not in names]


def _description(data: EmojiData, concept: Concept, language: str) -> str:
    frames = templates().describe
    sentences = [frames.show[language].format(name=data.name(concept, language))]
    kind = kinds().get(concept.id)
    if kind is not None:
        phrase = templates().kind[kind].name[language][0]
        sentences.append(frames.kind[language].format(kind=phrase))
    words = _keywords(data, concept, language)[: NUM_WORDS - 1]
    if words:
        joined = JOIN.get(language, ", ").join(words)
        sentences.append(frames.words[language].format(words=joined))
    return SPACE.get(language, " ").join(sentences)


def _ask_kind(rule: str, concept: Concept, name: str, language: str, seed: str) -> Filled:
    right = templates().kind[name].name[language]
    wrong = templates().kind[_wrong_kind(concept, name, seed)].name[language]
    coin = stable_hash(rule, concept.id, seed) % 2
    if rule == "is_kind":
        return {"kind": (right if coin else wrong)[0]}, (_yes_no(bool(coin), language),)
    first, second = (right, wrong) if coin else (wrong, right)
    return {"a": first[0], "b": second[0]}, right


def _wrong_kind(concept: Concept, name: str, seed: str) -> str:
    """Return a kind the concept is surely not.

    It is drawn as the kind of another concept: a large kind then is as often the wrong answer as
    it is the right one, and the kind in the question tells nothing.
    """
    pool = _not_near(name)
    return pool[stable_hash("wrong kind", concept.id, seed) % len(pool)]


@cache
def _not_near(name: str) -> tuple[str, ...]:
    all_kinds = templates().kind
    phrase = all_kinds[name].name["en"][0]
    far = {
        other
        for other, kind in all_kinds.items()
        if other not in all_kinds[name].near
        and name not in kind.near
        and kind.name["en"][0] != phrase
    }
    return tuple(kind for kind in kinds().values() if kind in far)


@lru_cache(maxsize=32)
def _deal_facts(seed: str) -> Mapping[str, tuple[str, bool]]:
    """Return concept id -> (fact, whether it holds).

    Concepts come in hash order, each gets the fact and side most in need: within a split, each
    fact is true about as often as it is false, so that the question does not give the answer.
    """
    by_id = kinds()
    concepts = [c for c in emoji_data().concepts if c.id in by_id]
    surplus: dict[tuple[str, str], int] = {}  # (split, fact) -> times true minus times false
    dealt: dict[str, tuple[str, bool]] = {}
    for concept in sorted(concepts, key=lambda c: stable_hash("deal", c.id, seed)):
        kind = templates().kind[by_id[concept.id]]
        sides = [*((fact, True) for fact in kind.yes), *((fact, False) for fact in kind.no)]
        if not sides:
            continue

        def need(side: tuple[str, bool], concept: Concept = concept) -> tuple[int, int]:
            fact, truth = side
            balance = surplus.get((concept.split, fact), 0)
            return (balance if truth else -balance), stable_hash(concept.id, fact, seed)

        fact, truth = min(sides, key=need)
        dealt[concept.id] = (fact, truth)
        key = (concept.split, fact)
        surplus[key] = surplus.get(key, 0) + (1 if truth else -1)
    return dealt


def open_emoji_qa(task: Task) -> SampleSet:
    """Return one sample per picture and category, the same ones in every language.

    The cluster is the concept: its questions and its drawings share name and difficulty. Raises
    UserError for a wrong table [data] and for a language without templates.
    """
    options = read_options(QAOptions, task)
    for category in options.categories:
        one_of(task, "categories", category, CATEGORIES)
    for language in task.languages:
        if language not in QA_LANGUAGES:
            raise unknown("language", language, QA_LANGUAGES, where(task))
    data = emoji_data()
    found = pictures_of(task, data, options.split, options.cells, allow_train=options.allow_train)
    kept = in_all_languages(data, found, task.languages)

    def make(language: str) -> list[Sample]:
        samples = [
            _sample(picture, qa, language)
            for picture in kept
            for qa in _one_per_category(picture.concept, language, options.categories)
        ]
        return _first_per_category(samples, options.per_category)

    return SampleSet(
        task=task.name,
        languages=task.languages,
        make=make,
        load=data.load_image,
        sha256=data.sha256,
        description=describe(options.split, len(found) - len(kept)),
    )


def _one_per_category(concept: Concept, language: str, categories: Sequence[str]) -> list[QA]:
    asked = questions(concept, language, "test", seed="test")
    chosen = []
    for category in categories:
        suited = [qa for qa in asked if qa.category == category]
        if suited:
            chosen.append(suited[stable_hash("ask", concept.id, category) % len(suited)])
    return chosen


def _sample(picture: Picture, qa: QA, language: str) -> Sample:
    return Sample(
        id=f"{sample_id(picture)}/{qa.category}",
        language=language,
        image=picture.key,
        references=qa.references,
        cluster=picture.concept.id,
        question=qa.question,
        category=qa.category,
        cell=picture.cell,
        closed=qa.closed,
    )


def _first_per_category(samples: Sequence[Sample], count: int) -> list[Sample]:
    seen: dict[str, int] = {}
    kept = []
    for sample in samples:
        seen[sample.category] = seen.get(sample.category, 0) + 1
        if not count or seen[sample.category] <= count:
            kept.append(sample)
    return kept
