"""The question templates: parallel, native, balanced, and asked otherwise in the test."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from mpm_eval.data._qa_templates import kinds, kinds_of, read_templates, templates
from mpm_eval.data.emoji import Concept, emoji_data
from mpm_eval.data.emoji_qa import (
    CATEGORIES,
    QA_LANGUAGES,
    caption_prompts,
    open_emoji_qa,
    questions,
)
from mpm_eval.errors import UserError
from mpm_eval.languages import EMOJI_LANGUAGES
from mpm_eval.schema import Sample, Task

pytestmark = pytest.mark.slow  # all shipped data is read

MakeTask = Callable[..., Task]
YES = {"en": "Yes", "zh": "是", "de": "Ja", "fr": "Oui", "es": "Sí"}
NO = {"en": "No", "zh": "否", "de": "Nein", "fr": "Non", "es": "No"}


def concept_named(name: str) -> Concept:
    data = emoji_data()
    return next(c for c in data.concepts if data.name(c, "en") == name)


@pytest.fixture
def test_samples(make_task: MakeTask) -> dict[str, list[Sample]]:
    task = make_task(languages=QA_LANGUAGES, source="emoji_qa", split="test")
    dataset = open_emoji_qa(task)
    return {tag: list(dataset.samples(tag)) for tag in QA_LANGUAGES}


def test_a_concept_is_asked_about_in_all_three_categories() -> None:
    asked = questions(concept_named("violin"), "de", seed="noto")
    assert {qa.category for qa in asked} == set(CATEGORIES)
    answers = {qa.template: qa.references[0] for qa in asked}
    assert answers["what"] == "Geige"
    assert answers["either"] == "ein Musikinstrument"
    assert answers["place"] == "in einem Konzert"
    assert answers["describe"].startswith("Das Bild zeigt: Geige. Das ist ein Musikinstrument.")


@pytest.mark.parametrize("usage", ["train", "test"])
def test_questions_are_parallel_in_all_languages(usage: str) -> None:
    for concept in emoji_data().concepts[::7]:
        asked = {tag: questions(concept, tag, usage, "s") for tag in QA_LANGUAGES}
        shapes = {tag: [(q.template, q.category, q.closed) for q in asked[tag]] for tag in asked}
        assert all(shape == shapes["en"] for shape in shapes.values())
        for tag in QA_LANGUAGES:
            for english, other in zip(asked["en"], asked[tag], strict=True):
                assert (english.references == (YES["en"],)) == (other.references == (YES[tag],))
                assert other.references and all(other.references)
                assert "{" not in other.question + "".join(other.references)


def test_the_same_seed_asks_the_same_and_another_seed_asks_otherwise() -> None:
    concept = concept_named("violin")
    assert questions(concept, "en", seed="1") == questions(concept, "en", seed="1")
    assert len({tuple(questions(concept, "en", seed=str(i))) for i in range(8)}) > 4


def test_training_meets_every_paraphrase_of_a_question() -> None:
    asked = {questions(concept_named("violin"), "en", seed=str(i))[0].question for i in range(20)}
    assert asked == {"What do you see in the picture?", "What does the picture show?"}


def test_test_questions_are_never_training_questions() -> None:
    prompts = set(caption_prompts().values())
    for template in templates().template:
        for tag in QA_LANGUAGES:
            train = template.train[tag]
            assert len(set(train)) >= 2
            assert template.test[tag] not in train
            assert not prompts & {template.test[tag], *train}
    for concept in emoji_data().concepts[::5]:
        for tag in QA_LANGUAGES:
            train = {q.question for i in range(4) for q in questions(concept, tag, seed=str(i))}
            assert not train & {q.question for q in questions(concept, tag, "test", "test")}


def test_paraphrases_keep_the_slots_of_their_question() -> None:
    slots = {"is_kind": {"{kind}"}, "either": {"{a}", "{b}"}}
    for template in templates().template:
        for tag in QA_LANGUAGES:
            for frame in (*template.train[tag], template.test[tag]):
                found = {word for word in ("{kind}", "{a}", "{b}") if word in frame}
                assert found == slots.get(template.rule, set()), frame
                assert frame.count("{") == len(found), frame


def test_every_text_is_in_the_script_of_its_language() -> None:
    def is_han(text: str) -> bool:
        return any("一" <= char <= "鿿" for char in text)

    for template in templates().template:
        for tag in QA_LANGUAGES:
            for text in (*template.train[tag], template.test[tag]):
                assert is_han(text) == (tag == "zh"), text
    for table in (templates().place, templates().use):
        for texts in table.values():
            for tag in QA_LANGUAGES:
                assert all(is_han(text) == (tag == "zh") for text in texts[tag])
    for kind in templates().kind.values():
        for tag in QA_LANGUAGES:
            assert all(is_han(text) == (tag == "zh") for text in kind.name[tag])


def test_no_text_is_copied_from_another_language() -> None:
    for template in templates().template:
        texts = [
            text for tag in QA_LANGUAGES for text in (*template.train[tag], template.test[tag])
        ]
        assert len(set(texts)) == len(texts), template.id


def test_yes_and_no_are_single_words_and_about_equally_frequent(
    test_samples: dict[str, list[Sample]],
) -> None:
    for tag, samples in test_samples.items():
        counts = Counter(
            s.references[0] for s in samples if s.references in ((YES[tag],), (NO[tag],))
        )
        assert set(counts) == {YES[tag], NO[tag]}
        assert 0.45 < counts[YES[tag]] / counts.total() < 0.55


def test_a_fact_does_not_give_its_answer_away() -> None:
    facts = {t.id for t in templates().template if t.rule == "fact"}
    counts: Counter[tuple[str, str]] = Counter()
    for concept in emoji_data().concepts:
        for qa in questions(concept, "en", seed="test"):
            if qa.template in facts:
                counts[(qa.template, qa.references[0])] += 1
    for fact in facts:
        yes, no = counts[(fact, "Yes")], counts[(fact, "No")]
        assert yes and no
        assert abs(yes - no) <= max(10, 0.1 * (yes + no)), (fact, yes, no)


def test_the_kind_asked_for_does_not_give_the_answer_away() -> None:
    counts: Counter[tuple[str, str]] = Counter()
    for concept in emoji_data().concepts:
        for seed in "abc":
            for qa in questions(concept, "en", seed=seed):
                if qa.template == "is_kind" and "a person" in qa.question:
                    counts[("person", qa.references[0])] += 1
    yes, no = counts[("person", "Yes")], counts[("person", "No")]
    assert 0.35 < yes / (yes + no) < 0.65


def test_a_wrong_kind_never_overlaps_with_the_right_one() -> None:
    for name, wrong in (
        ("lobster", "something to eat"),
        ("mermaid", "a person"),
        ("rose", "a plant"),
    ):
        for i in range(30):
            either = [q for q in questions(concept_named(name), "en", seed=str(i))]
            assert not any(
                wrong in q.question for q in either if q.template in ("either", "is_kind")
            )


def test_samples_are_one_per_picture_and_category_and_parallel(
    test_samples: dict[str, list[Sample]],
) -> None:
    ids = [s.id for s in test_samples["en"]]
    assert len(set(ids)) == len(ids)
    for tag in QA_LANGUAGES:
        assert [s.id for s in test_samples[tag]] == ids
    for sample in test_samples["zh"][:50]:
        vendor, concept, category = sample.id.split("/")
        assert (vendor, concept, category) == ("openmoji", sample.cluster, sample.category)


def test_a_language_without_templates_is_refused(make_task: MakeTask) -> None:
    with pytest.raises(UserError, match="unknown language 'ja'"):
        open_emoji_qa(make_task(languages=("en", "ja"), source="emoji_qa", split="test"))


def test_categories_can_be_chosen_and_cut_short(make_task: MakeTask) -> None:
    task = make_task(
        source="emoji_qa", split="test", categories=("detail", "complex"), per_category=20
    )
    counts = Counter(s.category for s in open_emoji_qa(task).samples("zh"))
    assert counts == {"detail": 20, "complex": 20}
    with pytest.raises(UserError, match="did you mean 'detail'"):
        open_emoji_qa(make_task(source="emoji_qa", split="test", categories=("details",)))


def test_every_concept_has_at_most_one_kind_and_most_have_one() -> None:
    assert len(kinds()) > 1000
    assert set(kinds().values()) == set(templates().kind)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('subgroups = ["dishware"]', 'subgroups = ["dishwear"]', "did you mean 'dishware'"),
        ('without = ["amphora"]', 'without = ["amfora"]', "did you mean 'amphora'"),
        ('place = "rails"', 'place = "rail"', "did you mean 'rails'"),
        ('yes = ["body"]', 'yes = ["bodi"]', "did you mean 'body'"),
        ('rule = "either"', 'rule = "ether"', "did you mean 'either'"),
        ('es = "Sí"\n', "", "answer.yes"),
        ('subgroups = ["dishware"]', 'subgroups = ["dishware", "tool"]', "two kinds"),
    ],
)
def test_a_mistake_in_the_templates_is_a_message(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    text = (emoji_data().folder / "qa.toml").read_text("utf-8")
    assert old in text
    (tmp_path / "qa.toml").write_text(text.replace(old, new, 1), "utf-8")
    with pytest.raises(UserError, match=message):
        kinds_of(read_templates(tmp_path / "qa.toml", emoji_data()), emoji_data())


def test_caption_prompts_are_there_in_all_languages() -> None:
    assert set(caption_prompts()) == set(EMOJI_LANGUAGES)
    assert len(set(caption_prompts().values())) == len(EMOJI_LANGUAGES)
