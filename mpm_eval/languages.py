"""The languages the project knows, their own names, and the named groups."""

from collections.abc import Collection

from mpm_eval.errors import UserError, unknown

PIVOT = "en"

# BCP 47 tag -> (English name, its own name)
LANGUAGES: dict[str, tuple[str, str]] = {
    "en": ("English", "English"),
    "zh": ("Chinese", "中文"),
    "de": ("German", "Deutsch"),
    "fr": ("French", "français"),
    "es": ("Spanish", "español"),
    "pt": ("Portuguese", "português"),
    "it": ("Italian", "italiano"),
    "nl": ("Dutch", "Nederlands"),
    "ja": ("Japanese", "日本語"),
    "ko": ("Korean", "한국어"),
    "ru": ("Russian", "русский"),
    "ar": ("Arabic", "العربية"),
    "hi": ("Hindi", "हिन्दी"),
    "sw": ("Swahili", "Kiswahili"),
    "tr": ("Turkish", "Türkçe"),
    "vi": ("Vietnamese", "Tiếng Việt"),
    "bn": ("Bengali", "বাংলা"),
    "cs": ("Czech", "čeština"),
    "da": ("Danish", "dansk"),
    "el": ("Greek", "Ελληνικά"),
    "fa": ("Persian", "فارسی"),
    "fi": ("Finnish", "suomi"),
    "fil": ("Filipino", "Filipino"),
    "he": ("Hebrew", "עברית"),
    "hr": ("Croatian", "hrvatski"),
    "hu": ("Hungarian", "magyar"),
    "id": ("Indonesian", "Bahasa Indonesia"),
    "mi": ("Māori", "te reo Māori"),
    "no": ("Norwegian", "norsk"),
    "pl": ("Polish", "polski"),
    "quz": ("Cusco Quechua", "Runasimi"),
    "ro": ("Romanian", "română"),
    "sv": ("Swedish", "svenska"),
    "ta": ("Tamil", "தமிழ்"),
    "te": ("Telugu", "తెలుగు"),
    "th": ("Thai", "ไทย"),
    "uk": ("Ukrainian", "українська"),
}

# those that the shipped emoji have names in
EMOJI_LANGUAGES = (
    *("en", "zh", "de", "fr", "es", "pt", "it", "nl"),
    *("ja", "ko", "ru", "ar", "hi", "sw", "tr", "vi"),
)

GROUPS: dict[str, tuple[str, ...]] = {
    "core": ("en", "zh", "de", "fr", "es"),
    "european": ("pt", "it", "nl", "ru", "tr"),
    "asian": ("ja", "ko", "vi", "hi", "ar"),
    "low-resource": ("hi", "sw", "tr", "vi"),
    "emoji": EMOJI_LANGUAGES,
}


def parse_languages(text: str, known: Collection[str] | None = None) -> tuple[str, ...]:
    """Return the language tags in `text` ("zh,de" or group names), in order, each once.

    A group stands for those of its languages that are `known`; a tag for itself, known or not.
    Raises UserError for an unknown tag, an empty list, and a group without a known language.
    """
    tags: list[str] = []
    for part in (p.strip() for p in text.split(",")):
        if not part:
            continue
        if part in GROUPS:
            found = [tag for tag in GROUPS[part] if known is None or tag in known]
            if not found:
                raise UserError(
                    f"--languages: no task has a language of '{part}'; they have "
                    f"{', '.join(sorted(known or ()))}"
                )
            tags.extend(found)
        elif part in LANGUAGES:
            tags.append(part)
        else:
            raise unknown("language", part, [*LANGUAGES, *GROUPS], "--languages")
    if not tags:
        raise UserError("--languages: no language given; write tags or groups, e.g. zh,de or core")
    return tuple(dict.fromkeys(tags))
