"""The emoji reader: names, pictures, cells and choices."""

from collections import Counter
from collections.abc import Callable

import pytest

from mpm_eval.data._choices import role
from mpm_eval.data.emoji import (
    SEEN_UNSEEN,
    UNSEEN_SEEN,
    UNSEEN_UNSEEN,
    Concept,
    EmojiData,
    emoji_data,
    open_emoji,
)
from mpm_eval.data.emoji_text import open_emoji_text
from mpm_eval.errors import CorruptImage, UserError
from mpm_eval.languages import EMOJI_LANGUAGES
from mpm_eval.schema import Sample, Task

pytestmark = pytest.mark.slow  # all shipped data is read

ALL = EMOJI_LANGUAGES
MakeTask = Callable[..., Task]


@pytest.fixture(scope="module")
def data() -> EmojiData:
    return emoji_data()


def concept_named(data: EmojiData, name: str) -> Concept:
    return next(c for c in data.concepts if data.name(c, "en") == name)


def test_names_come_before_keywords_and_nothing_comes_twice(data: EmojiData) -> None:
    horse = concept_named(data, "horse")
    references = data.references(horse, "de")
    assert references[0] == data.name(horse, "de") == "Pferd"
    assert set(data.keywords(horse, "de")) <= set(references)
    assert len(set(references)) == len(references)
    for concept in data.concepts[::10]:
        names = data.names(concept, "fr")
        assert data.references(concept, "fr")[: len(names)] == names


def test_merged_emoji_give_all_their_names_the_canonical_one_first(data: EmojiData) -> None:
    merged = next(c for c in data.concepts if len(c.members) > 1)
    names = data.names(merged, "en")
    assert len(names) > 1
    assert data.name(merged, "en") == names[0]


def test_a_concept_without_a_name_is_missing_in_that_language(data: EmojiData) -> None:
    missing = [c for c in data.concepts if not data.name(c, "sw")]
    assert len(missing) == 2
    assert all(data.references(c, "sw") == () and data.name(c, "en") for c in missing)


def test_a_picture_is_rgb_and_64_by_64(data: EmojiData) -> None:
    for key in ("openmoji/1f40e", "fluent/1f9a2"):  # the second one is stored 63 wide
        picture = data.load_image(key)
        assert (picture.mode, picture.size) == ("RGB", (64, 64))


@pytest.mark.parametrize("key", ["openmoji/nothing", "nobody/1f40e", "1f40e", "../noto/1f40e"])
def test_a_picture_that_does_not_exist_is_a_corrupt_image(data: EmojiData, key: str) -> None:
    with pytest.raises(CorruptImage, match="no picture"):
        data.load_image(key)


def test_bytes_that_are_no_picture_are_a_corrupt_image(
    data: EmojiData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "_vendor", lambda vendor: {"1f40e": b"RIFF no picture"})
    with pytest.raises(CorruptImage, match="cannot be decoded"):
        data.load_image("noto/1f40e")


def test_each_style_gives_one_picture_per_concept(data: EmojiData) -> None:
    pictures = data.pictures("train")
    counts = Counter((key.partition("/")[0], concept.id) for key, concept in pictures)
    assert set(counts.values()) == {1}
    assert {vendor for vendor, _ in counts} == {"noto", "twemoji"}


def test_the_hash_covers_the_question_templates(data: EmojiData, tmp_path) -> None:
    for name in ("labels.parquet", "splits.json", "qa.toml", "images"):
        (tmp_path / name).symlink_to(data.folder / name)
    assert EmojiData(tmp_path).sha256 == data.sha256
    (tmp_path / "qa.toml").unlink()
    (tmp_path / "qa.toml").write_text("version = 2")
    assert EmojiData(tmp_path).sha256 != data.sha256


def test_cells_say_what_a_model_trained_on_the_train_split_has_seen(
    data: EmojiData, make_task: MakeTask
) -> None:
    splits = {c.id: c.split for c in data.concepts}
    samples = open_emoji(make_task(source="emoji", split="test")).samples("en")
    seen = {(s.cell, s.image.partition("/")[0], splits[s.cluster]) for s in samples}
    assert seen == {
        (SEEN_UNSEEN, "openmoji", "train"),
        (UNSEEN_UNSEEN, "openmoji", "test"),
        (UNSEEN_SEEN, "noto", "test"),
        (UNSEEN_SEEN, "twemoji", "test"),
    }


def test_two_drawings_of_a_concept_are_one_cluster(make_task: MakeTask) -> None:
    samples = open_emoji(make_task(source="emoji", split="test", cells=(UNSEEN_SEEN,))).samples(
        "en"
    )
    assert len({s.cluster for s in samples}) < len({s.id for s in samples}) == len(samples)
    assert all(s.id == f"{s.image.partition('/')[0]}/{s.cluster}" for s in samples)


def test_the_training_pictures_are_only_given_on_request(make_task: MakeTask) -> None:
    with pytest.raises(UserError, match="allow_train = true"):
        open_emoji(make_task(source="emoji", split="train"))
    samples = open_emoji(make_task(source="emoji", split="train", allow_train=True)).samples("en")
    assert {s.cell for s in samples} == {"seen_concept/seen_style"}


def test_a_concept_missing_in_one_language_is_left_out_of_all(make_task: MakeTask) -> None:
    task = make_task(languages=("en", "sw"), source="emoji", split="test")
    dataset, english = open_emoji(task), open_emoji(make_task(source="emoji", split="test"))
    ids = [[s.id for s in dataset.samples(tag)] for tag in task.languages]
    assert ids[0] == ids[1]
    missing = len(english.samples("en")) - len(ids[0])
    assert missing > 0
    assert dataset.description["left_out"].startswith(f"{missing} pictures")


def test_a_cell_can_be_cut_short_and_keeps_its_first_samples(make_task: MakeTask) -> None:
    whole = open_emoji(make_task(source="emoji", split="test", cells=(SEEN_UNSEEN,))).samples("en")
    few = open_emoji(make_task(source="emoji", split="test", per_cell=10)).samples("en")
    assert Counter(s.cell for s in few) == {SEEN_UNSEEN: 10, UNSEEN_UNSEEN: 10, UNSEEN_SEEN: 10}
    assert [s.id for s in few if s.cell == SEEN_UNSEEN] == [s.id for s in whole[:10]]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"split": "tset"}, "did you mean 'test'"),
        ({"split": "test", "mode": "choices"}, "did you mean 'choice'"),
        ({"split": "test", "cells": ("unseen",)}, "unknown cells 'unseen'"),
        ({"split": "test", "sell": "x"}, "sell"),
        ({}, "split"),
    ],
)
def test_a_wrong_table_of_data_is_a_message_for_the_user(
    make_task: MakeTask, wrong: dict, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        open_emoji(make_task(source="emoji", **wrong))


def test_a_language_the_task_does_not_have_is_refused(make_task: MakeTask) -> None:
    with pytest.raises(UserError, match="unknown language 'de'"):
        open_emoji(make_task(source="emoji", split="test")).samples("de")


def choices(make_task: MakeTask, languages: tuple[str, ...], **more) -> dict[str, list[Sample]]:
    task = make_task("choose", languages, source="emoji", split="test", mode="choice", **more)
    dataset = open_emoji(task)
    return {tag: list(dataset.samples(tag)) for tag in languages}


def test_options_are_the_same_concepts_in_every_language(
    data: EmojiData, make_task: MakeTask
) -> None:
    by_language = choices(make_task, ALL)
    english = by_language["en"]
    concepts = {data.name(c, "en"): c for c in data.concepts}
    for tag, samples in by_language.items():
        for sample, model in zip(samples, english, strict=True):
            assert (sample.id, sample.answer) == (model.id, model.answer)
            assert sample.options == tuple(data.name(concepts[o], tag) for o in model.options)
            assert sample.references == (sample.options[sample.answer],)


def test_no_wrong_option_is_an_accepted_answer_in_any_language(
    data: EmojiData, make_task: MakeTask
) -> None:
    concepts = {c.id: c for c in data.concepts}
    for tag, samples in choices(make_task, ALL).items():
        for sample in samples:
            accepted = {r.casefold() for r in data.references(concepts[sample.cluster], tag)}
            wrong = [o for i, o in enumerate(sample.options) if i != sample.answer]
            assert not accepted & {o.casefold() for o in wrong}
            assert len({o.casefold() for o in sample.options}) == 4


def test_each_place_is_right_equally_often_in_every_cell(make_task: MakeTask) -> None:
    samples = choices(make_task, ALL)["en"]
    for cell in (SEEN_UNSEEN, UNSEEN_UNSEEN, UNSEEN_SEEN):
        places = Counter(s.answer for s in samples if s.cell == cell)
        assert all(abs(n / places.total() - 0.25) < 0.02 for n in places.values())


def test_options_are_all_seen_or_all_unseen(data: EmojiData, make_task: MakeTask) -> None:
    split = {data.name(c, "en"): c.split for c in data.concepts}
    samples = choices(make_task, ("en",))["en"]
    assert all(len({split[o] for o in s.options}) == 1 for s in samples)


def test_options_do_not_depend_on_the_languages_of_the_task(make_task: MakeTask) -> None:
    two = choices(make_task, ("en", "de"), cells=(SEEN_UNSEEN,), per_cell=50)["en"]
    whole = {s.id: s.options for s in choices(make_task, ALL)["en"]}
    assert all(whole[s.id] == s.options for s in two)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("woman judge", "judge"),
        ("man running: facing right", "running"),
        ("woman", "person"),
        ("humanist manager", "humanist manager"),
    ],
)
def test_the_role_of_a_name_has_no_gender_and_no_direction(name: str, expected: str) -> None:
    assert role(name) == expected


def test_forms_of_one_role_never_meet(make_task: MakeTask) -> None:
    for sample in choices(make_task, ("en",))["en"]:
        assert len({role(option) for option in sample.options}) == 4


def test_parallel_names_are_unique_in_every_language(make_task: MakeTask) -> None:
    task = make_task("probe", ALL, source="emoji_text", splits=("train", "test"))
    dataset = open_emoji_text(task)
    ids = [s.id for s in dataset.samples("en")]
    for tag in ALL:
        samples = dataset.samples(tag)
        assert [s.id for s in samples] == ids
        assert len({s.question.casefold() for s in samples}) == len(samples)
        assert all(s.image is None and s.references == (s.question,) for s in samples)


def test_concepts_that_share_a_name_in_one_language_are_left_out(
    data: EmojiData, monkeypatch: pytest.MonkeyPatch, make_task: MakeTask
) -> None:
    twins = {concept_named(data, name).id for name in ("horse", "zebra")}
    real = EmojiData.name

    def name(self: EmojiData, concept: Concept, language: str) -> str:
        same = language == "zh" and concept.id in twins
        return "马" if same else real(self, concept, language)

    monkeypatch.setattr(EmojiData, "name", name)
    ids = {s.id for s in open_emoji_text(make_task("probe", source="emoji_text")).samples("en")}
    assert len(ids) > 1000
    assert not twins & ids


def test_parallel_names_can_be_cut_short(make_task: MakeTask) -> None:
    dataset = open_emoji_text(make_task("probe", source="emoji_text", count=7))
    assert len(dataset.samples("en")) == 7
    with pytest.raises(UserError, match="no pictures"):
        dataset.load_image("noto/1f40e")
