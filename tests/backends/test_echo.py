"""The echo backend: right, wrong and half right, without weights."""

import numpy as np
import pytest
from PIL import Image

from mpm_eval.backends import Failure
from mpm_eval.backends.echo import open_echo
from mpm_eval.errors import UserError
from mpm_eval.schema import OptionScore, Request


def request(number: int = 0, language: str = "de", **fields: object) -> Request:
    content: dict[str, object] = {
        "prompt": f"Was ist {number}?",
        "references": (f"Hund {number}", f"Köter {number}"),
        "options": ("Katze", f"Hund {number}", "Maus"),
        **fields,
    }
    return Request(language=language, **content)  # type: ignore[arg-type]


def pick(scores: tuple[OptionScore, ...]) -> int:
    return max(range(len(scores)), key=lambda i: scores[i].logprob / scores[i].num_tokens)


@pytest.mark.parametrize("argument", ["", "slow"])
def test_it_repeats_the_first_reference_and_prefers_the_right_option(argument: str) -> None:
    backend = open_echo(argument, 0)
    assert backend.generate([request(1), request(2)]) == ["Hund 1", "Hund 2"]
    assert [pick(row) for row in backend.choose([request(1), request(2)])] == [1, 1]


def test_wrong_is_always_wrong() -> None:
    backend = open_echo("wrong", 0)
    requests = [request(n) for n in range(20)]
    for asked, answer, scores in zip(
        requests, backend.generate(requests), backend.choose(requests), strict=True
    ):
        assert answer not in asked.references
        assert pick(scores) != 1


def test_wrong_is_wrong_about_a_palindrome() -> None:
    asked = request(prompt="Anna", references=("Anna",))
    assert open_echo("wrong", 0).generate([asked])[0].casefold() != "anna"


def test_half_is_right_about_half_and_always_the_same_half() -> None:
    requests = [request(n) for n in range(200)]
    first, second = (open_echo("half", seed).generate(requests) for seed in (0, 1))
    assert first == second
    right = [a == r.references[0] for a, r in zip(first, requests, strict=True)]
    assert 70 < sum(right) < 130
    backwards = open_echo("half", 0).generate(requests[::-1])
    assert backwards[::-1] == first, "the order of requests must not matter"


def test_pivot_is_right_in_english_only() -> None:
    backend = open_echo("pivot", 0)
    asked = [request(1, language) for language in ("en", "de")]
    assert [answer == "Hund 1" for answer in backend.generate(asked)] == [True, False]
    assert [pick(row) == 1 for row in backend.choose(asked)] == [True, False]


def test_hidden_states_depend_on_the_text_alone() -> None:
    h_LND = open_echo("", 0).embed(["Hund", "Katze", "Hund"], "de")
    assert h_LND.shape == (3, 3, 16) and h_LND.dtype == np.float32
    assert np.array_equal(h_LND[:, 0], h_LND[:, 2])
    assert not np.allclose(h_LND[:, 0], h_LND[:, 1])
    assert not np.allclose(h_LND[0], h_LND[1])
    alone = open_echo("", 5).embed(["Katze"], "en")
    assert np.array_equal(alone[:, 0], h_LND[:, 1])


def test_each_rule_is_a_model_of_its_own() -> None:
    backends = [open_echo(rule, 0) for rule in ("", "wrong", "half", "pivot", "slow")]
    assert len({b.sha256 for b in backends}) == len({b.name for b in backends}) == 5
    assert open_echo("half", 7).sha256 == open_echo("half", 0).sha256
    assert backends[0].capabilities == {"oracle", "generate", "choose", "embed", "embed_images"}


def test_an_unknown_rule_names_the_nearest() -> None:
    with pytest.raises(UserError, match="unknown rule 'haf'; did you mean 'half'"):
        open_echo("haf", 0)


def test_noise_depends_on_the_seed_alone_and_has_the_size_asked_for() -> None:
    backend = open_echo("noise", 0)
    first, second = backend.paint([request(1, size=32), request(2, "fr", size=32)], [7, 7])
    (other,) = backend.paint([request(1)], [8])
    assert first.size == (32, 32) and other.size == (64, 64)
    assert first.tobytes() == second.tobytes() != other.tobytes()
    assert 40 < np.asarray(other).std() < 80


def test_real_paints_the_picture_it_is_told_or_says_that_there_is_none() -> None:
    picture = Image.new("RGB", (20, 20), "red")
    found, missing = open_echo("real", 0).paint([request(image=picture), request()], [1, 2])
    assert found is picture and missing == Failure("the data have no second picture of it")
    (small,) = open_echo("real", 0).paint([request(image=picture, size=8)], [1])
    assert small.size == (8, 8)


def test_only_the_one_that_is_told_the_picture_is_an_oracle() -> None:
    assert open_echo("noise", 0).capabilities == {"paint"}
    assert open_echo("real", 0).capabilities == {"paint", "oracle"}
