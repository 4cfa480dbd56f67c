"""The question templates of qa.toml as records, checked when they are read."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from mpm_eval.data._emoji_data import Concept, EmojiData, emoji_data
from mpm_eval.errors import UserError, unknown
from mpm_eval.strict import build, read_toml

QA_LANGUAGES = ("en", "zh", "de", "fr", "es")
CATEGORIES = ("conversation", "detail", "complex")
RULES = ("name", "is_kind", "either", "describe", "words", "place", "use", "fact")

Texts = Mapping[str, str]  # language -> text
Accepted = Mapping[str, tuple[str, ...]]  # language -> answers, the best one first


@dataclass(frozen=True, slots=True)
class Template:
    """One question; the rule says which concepts it suits and how it is answered."""

    id: str
    category: str  # of CATEGORIES
    rule: str  # of RULES
    closed: bool
    train: Accepted  # paraphrases for training
    test: Texts  # one more paraphrase, never trained on


@dataclass(frozen=True, slots=True)
class Kind:
    """What most people would call a thing, and what holds for all things of the kind."""

    subgroups: tuple[str, ...]
    name: Accepted
    near: tuple[str, ...]  # kinds that overlap with this one: no wrong answers
    yes: tuple[str, ...]  # facts that hold
    no: tuple[str, ...]  # facts that do not
    also: tuple[str, ...] = ()  # concepts, by English name
    without: tuple[str, ...] = ()
    place: str = ""
    use: str = ""


@dataclass(frozen=True, slots=True)
class YesNo:
    """The answers of a yes/no question."""

    yes: Texts
    no: Texts


@dataclass(frozen=True, slots=True)
class Describe:
    """The sentences of a description."""

    show: Texts
    kind: Texts
    words: Texts


@dataclass(frozen=True, slots=True)
class Templates:
    """The content of qa.toml."""

    version: int
    caption_prompt: Texts
    answer: YesNo
    describe: Describe
    template: tuple[Template, ...]
    place: Mapping[str, Accepted]
    use: Mapping[str, Accepted]
    kind: Mapping[str, Kind]


def read_templates(path: Path, data: EmojiData) -> Templates:
    """Return the checked content of `path`; raises UserError for a gap or an unknown name."""
    content = build(Templates, read_toml(path), str(path))
    texts: list[tuple[str, Iterable[str]]] = [
        ("answer.yes", content.answer.yes),
        ("answer.no", content.answer.no),
        ("describe.show", content.describe.show),
        ("describe.kind", content.describe.kind),
        ("describe.words", content.describe.words),
        *((f"place.{name}", texts) for name, texts in content.place.items()),
        *((f"use.{name}", texts) for name, texts in content.use.items()),
        *((f"kind.{name}.name", kind.name) for name, kind in content.kind.items()),
        *((f"template {one.id}: train", one.train) for one in content.template),
        *((f"template {one.id}: test", one.test) for one in content.template),
    ]
    for key, tags in texts:
        if set(tags) != set(QA_LANGUAGES):
            raise UserError(f"{path}: {key}: needs exactly the languages {QA_LANGUAGES}")
    facts = [one.id for one in content.template if one.rule == "fact"]
    for one in content.template:
        _known("category", (one.category,), CATEGORIES, f"{path}: template {one.id}")
        _known("rule", (one.rule,), RULES, f"{path}: template {one.id}")
    subgroups = {concept.subgroup for concept in data.concepts}
    names = {data.name(concept, "en") for concept in data.concepts}
    for name, kind in content.kind.items():
        where = f"{path}: kind.{name}"
        _known("fact", (*kind.yes, *kind.no), facts, where)
        _known("kind", kind.near, content.kind, where)
        _known("subgroup", kind.subgroups, subgroups, where)
        _known("concept", (*kind.also, *kind.without), names, where)
        _known("place", (kind.place,) if kind.place else (), content.place, where)
        _known("use", (kind.use,) if kind.use else (), content.use, where)
    return content


def _known(what: str, got: Iterable[str], known: Iterable[str], where: str) -> None:
    known = tuple(known)
    for name in got:
        if name not in known:
            raise unknown(what, name, known, where)


def kinds_of(templates: Templates, data: EmojiData) -> dict[str, str]:
    """Return concept id -> kind, for the concepts that have one.

    Raises UserError when a concept has two: its questions would have two right answers.
    """
    found: dict[str, str] = {}
    for concept in data.concepts:
        name = data.name(concept, "en")
        kinds = [k for k, kind in templates.kind.items() if _belongs(concept, name, kind)]
        if len(kinds) > 1:
            raise UserError(f"qa.toml: '{name}' is of two kinds, {kinds}; leave it out of one")
        if kinds:
            found[concept.id] = kinds[0]
    return found


def _belongs(concept: Concept, name: str, kind: Kind) -> bool:
    return name in kind.also or (concept.subgroup in kind.subgroups and name not in kind.without)


@lru_cache(maxsize=1)
def templates() -> Templates:
    """Return the shipped templates, read once in a process."""
    data = emoji_data()
    return read_templates(data.folder / "qa.toml", data)


@lru_cache(maxsize=1)
def kinds() -> Mapping[str, str]:
    """Return concept id -> kind for the shipped data."""
    return kinds_of(templates(), emoji_data())
