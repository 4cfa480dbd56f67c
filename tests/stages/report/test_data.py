"""The JSON of the sample browser: safe inside a script element, and small whatever is in it."""

import json
from collections.abc import Mapping
from types import MappingProxyType

import pytest
from PIL import Image

from mpm_eval.errors import CorruptImage
from mpm_eval.schema import Sample
from mpm_eval.stages.report import data
from mpm_eval.stages.report.data import browser_data
from mpm_eval.stages.report.samples import Answer, Group, Member, TaskSamples

LANGUAGES = ("en", "zh", "de", "fr", "es")


class Noise:
    """Pictures that compress badly; "broken" cannot be read."""

    sha256 = "0" * 64
    description: Mapping[str, str] = MappingProxyType({})

    def samples(self, language: str) -> list[Sample]:
        return []

    def load_image(self, key: str) -> Image.Image:
        if key == "broken":
            raise CorruptImage("broken")
        if key == "clear":
            return Image.new("RGBA", (10, 10), (0, 0, 0, 0))
        return Image.effect_noise((160, 120), 90 + int(key) % 60).convert("RGB")


def task(number: int, text: str, images: list[str | None]) -> TaskSamples:
    groups = []
    for i in range(number):
        members = {}
        for tag in LANGUAGES:
            sample = Sample(f"s{i}", tag, images[i % len(images)], (text,), str(i))
            members[tag] = Member(sample, text, (Answer(text, "right", (100.0,)),))
        groups.append(Group(f"s{i}", members))
    return TaskSamples("t", ("exact_match",), tuple(groups), number, 0, 0, (), Noise())


def test_nothing_in_the_data_can_end_the_script_element() -> None:
    text = "</script><!-- \u2028\u2029 & \x00 \u202e"
    html, _ = browser_data([task(1, text, [None])], ["<b>"], LANGUAGES)
    assert not {"<", ">", "&", "\u2028", "\u2029", "\x00"} & set(html)
    found = json.loads(html)
    assert found["runs"] == ["<b>"]
    assert found["tasks"][0]["samples"][0]["by"]["zh"]["a"][0]["t"] == text


def test_a_long_text_is_cut_and_says_how_long_it_was() -> None:
    html, limit = browser_data([task(1, "x" * 1_000_000, [None])], ["m"], LANGUAGES)
    assert limit == 20_000
    answer = json.loads(html)["tasks"][0]["samples"][0]["by"]["en"]["a"][0]["t"]
    assert answer == ["x" * 20_000, 1_000_000]


def test_pictures_are_shared_white_behind_and_may_be_broken() -> None:
    html, _ = browser_data([task(4, "x", ["clear", None, "broken", "clear"])], ["m"], LANGUAGES)
    found = json.loads(html)
    assert [sample["picture"] for sample in found["tasks"][0]["samples"]] == [0, -1, -2, 0]
    assert len(found["pictures"]) == 1
    assert found["pictures"][0].startswith("data:image/webp;base64,")


def test_a_language_with_a_picture_of_its_own_keeps_it() -> None:
    made = task(1, "x", ["1"])
    member = made.groups[0].members["de"]
    own = Sample("s0", "de", "2", ("x",), "0")
    members = {**made.groups[0].members, "de": Member(own, "x", member.answers)}
    changed = TaskSamples("t", (), (Group("s0", members),), 1, 0, 0, (), Noise())
    sample = json.loads(browser_data([changed], ["m"], LANGUAGES)[0])["tasks"][0]["samples"][0]
    assert (sample["picture"], sample["by"]["de"]["p"]) == (0, 1)
    assert "p" not in sample["by"]["en"]


def test_long_texts_and_noise_stay_below_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    # a twentieth of a thousand samples in a twentieth of the room
    monkeypatch.setattr(data, "MAX_BYTES", data.MAX_BYTES // 20)
    monkeypatch.setattr(data, "PICTURE_BYTES", data.PICTURE_BYTES // 20)
    images: list[str | None] = [str(i) for i in range(50)]
    html, limit = browser_data([task(50, "漢字" * 20_000, images)], ["m"], LANGUAGES)
    assert limit == data.TEXT_LIMITS[-1]
    found = json.loads(html)
    assert len(found["pictures"]) == 50
    assert sum(map(len, found["pictures"])) < data.PICTURE_BYTES
    assert len(html.encode()) < data.MAX_BYTES
