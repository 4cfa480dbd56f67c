"""The language of an output."""

import pytest

from mpm_eval.languages import EMOJI_LANGUAGES as LANGUAGES
from mpm_eval.metrics import Item
from mpm_eval.metrics.fidelity import Fidelity, identify, main_script, reference_error_rate

SENTENCES = {
    "en": "The dog is running across the grass in front of the house.",
    "zh": "狗正在房子前面的草地上奔跑。",
    "de": "Der Hund läuft über die Wiese vor dem Haus.",
    "fr": "Le chien court sur l'herbe devant la maison.",
    "es": "El perro está corriendo por el césped delante de la casa.",
    "pt": "O cachorro está correndo pela grama em frente da casa.",
    "it": "Il cane corre sull'erba davanti alla casa della famiglia.",
    "nl": "De hond rent over het gras voor het huis van de buren.",
    "ja": "犬が家の前の草の上を走っています。",
    "ko": "개가 집 앞의 잔디 위를 달리고 있습니다.",
    "ru": "Собака бежит по траве перед домом.",
    "ar": "الكلب يركض على العشب أمام المنزل.",
    "hi": "कुत्ता घर के सामने घास पर दौड़ रहा है।",
    "sw": "Mbwa anakimbia kwenye nyasi mbele ya nyumba yetu.",
    "tr": "Köpek evin önündeki çimenlerin üzerinde koşuyor.",
    "vi": "Con chó đang chạy trên cỏ trước ngôi nhà.",
}


def faithful(output: str, language: str, *references: str) -> bool:
    items = [Item(output, references or ("zzz",), language)]
    return bool(Fidelity().statistics(items, language)[0, 0])


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_sentence_is_known_in_every_language(language: str) -> None:
    assert identify(SENTENCES[language], LANGUAGES) == language
    assert Fidelity().supports(language)


@pytest.mark.parametrize("language", [tag for tag in LANGUAGES if tag != "en"])
def test_an_english_answer_is_not_faithful_to_another_language(language: str) -> None:
    assert not faithful(SENTENCES["en"], language)
    assert faithful(SENTENCES[language], language)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("iPhone 手机", "zh"),
        ("我有一台 Samsung 电视", "zh"),
        ("赤いリンゴ", "ja"),
        ("スマートフォン", "ja"),
        ("自転車", "ja"),
        ("自行车", "zh"),
        ("汽車", "zh"),  # traditional Chinese is Chinese
        ("Nokia 휴대폰", "ko"),
        ("КОШКА", "ru"),
    ],
)
def test_script_decides_and_a_brand_name_does_not_outweigh_it(text: str, expected: str) -> None:
    assert identify(text, LANGUAGES) == expected


@pytest.mark.parametrize("text", ["", "  ", "42", "?!", "😀", "١٢"])
def test_without_letters_the_language_cannot_be_told(text: str) -> None:
    assert identify(text, LANGUAGES) is None
    assert not faithful(text, "en")


def test_a_script_of_no_candidate_gives_no_language() -> None:
    assert identify("Собака бежит", ("en", "zh", "de")) is None
    assert identify("The dog runs", ("zh", "ru")) is None


def test_the_only_candidate_of_a_script_needs_no_identifier() -> None:
    assert identify("perro", ("es", "zh")) == "es"


def test_candidates_in_one_script_are_told_apart() -> None:
    assert identify("Це моя нова хата, вона дуже гарна і тепла.", ("ru", "uk")) == "uk"


def test_an_answer_equal_to_a_reference_of_any_item_is_faithful() -> None:
    # one word is too short for an identifier; "Chat" alone could be English
    items = [Item("le chat.", ("chien",), "fr"), Item("pomme", ("chat",), "fr")]
    assert Fidelity().statistics(items, "fr")[0].tolist() == [1, 1]
    assert faithful("42", "de", "42")
    assert faithful("猫", "ja", "猫")


def test_a_blank_output_is_not_faithful_even_to_a_blank_reference() -> None:
    assert not faithful(" ", "en", "")


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("Straße", "latin"),
        ("Ｄｏｇ", "latin"),
        ("漢字かな", "kana"),
        ("ก็ที่", "thai"),
        ("ñ́", "latin"),
        ("q̀q̀q̀ 漢漢", "han"),
        ("123", ""),
    ],
)
def test_the_script_of_most_words(text: str, script: str) -> None:
    assert main_script(text) == script


def test_the_error_rate_counts_references_taken_for_another_language() -> None:
    references = {
        "en": [SENTENCES["en"], SENTENCES["de"]],
        "de": [SENTENCES["de"]],
        "zh": [SENTENCES["zh"], SENTENCES["en"], SENTENCES["ja"], SENTENCES["zh"]],
    }
    assert reference_error_rate(references) == {"en": 50, "de": 0, "zh": 50}


def test_the_error_rate_of_one_language_is_not_zero_for_want_of_other_candidates() -> None:
    assert reference_error_rate({"de": [SENTENCES["en"]]}) == {"de": 100}


def test_the_error_rate_of_a_language_without_references_raises() -> None:
    with pytest.raises(ValueError, match="no references in 'de'"):
        reference_error_rate({"en": ["a dog"], "de": []})


def test_a_word_that_the_identifier_knows_nothing_of_gives_no_language() -> None:
    # all candidates have the same score, so the first would win by its place in the alphabet
    assert identify("ant", LANGUAGES) is None


def test_the_languages_that_a_text_is_told_apart_from_are_part_of_the_signature() -> None:
    # a language added to the project must not change what committed results say
    assert "|candidates:en,zh,de,fr,es,pt,it,nl,ja,ko,ru,ar,hi,sw,tr,vi|" in Fidelity().signature(
        "de"
    )
    assert not Fidelity().supports("cs")
