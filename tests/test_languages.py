"""The text of --languages: tags, groups, and what of a group some tasks have."""

import pytest

from mpm_eval.errors import UserError
from mpm_eval.languages import GROUPS, parse_languages


@pytest.mark.parametrize(
    ("text", "known", "expected"),
    [
        ("zh, de,zh", None, ("zh", "de")),
        ("core", None, GROUPS["core"]),
        ("core", {"de", "en", "ja"}, ("en", "de")),  # in the group's order
        ("zh,core", {"de", "en"}, ("zh", "en", "de")),  # a tag is meant, wherever it is
    ],
)
def test_a_group_stands_for_what_is_known_of_it_and_a_tag_for_itself(
    text: str, known: set[str] | None, expected: tuple[str, ...]
) -> None:
    assert parse_languages(text, known) == expected


@pytest.mark.parametrize(
    ("text", "known", "message"),
    [
        ("core", {"ja", "hi"}, "--languages: no task has a language of 'core'; they have hi, ja"),
        (" , ", None, "--languages: no language given"),
        ("dee", {"de"}, "unknown language 'dee'; did you mean 'de'?"),
    ],
)
def test_nothing_to_choose_from_is_told(text: str, known: set[str] | None, message: str) -> None:
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        parse_languages(text, known)
