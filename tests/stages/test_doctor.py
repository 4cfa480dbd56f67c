"""The doctor finds each way of calling a model wrong, and nothing wrong with a right one."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest

from mpm_eval.backends.echo import EchoBackend
from mpm_eval.errors import UserError
from mpm_eval.schema import OptionScore, Request, Task
from mpm_eval.stages.doctor import Check, examine
from mpm_eval.tasks import load_task
from tests.conftest import Command, write_task
from tests.stages.paint_runs import paint_task


class Healthy(EchoBackend):
    """Answers from picture and language alone."""

    def __init__(self) -> None:
        super().__init__("")

    def generate(self, requests: Sequence[Request]) -> list[str]:
        return [self.answer(request) for request in requests]

    def answer(self, request: Request) -> str:
        colour = request.image.getpixel((0, 0)) if request.image else None
        text = {"en": "the colour is a shade of", "de": "die Farbe ist ein Ton von"}
        return f"{text[request.language]} {colour}"

    def choose(self, requests: Sequence[Request]) -> list[tuple[OptionScore, ...]]:
        rows = []
        for request in requests:
            red = request.image.getpixel((0, 0))[0] if request.image else 0  # type: ignore[index]
            # a number for each text, whatever its place
            rows.append(
                tuple(
                    OptionScore(-float(sum(map(ord, option)) * (red + 7) % 101), 1)
                    for option in request.options
                )
            )
        return rows


class Random(Healthy):
    number = itertools.count()

    def generate(self, requests: Sequence[Request]) -> list[str]:
        return [f"{self.answer(request)} {next(self.number)}" for request in requests]


class Batched(Healthy):
    """The size of the batch changes the answers."""

    def generate(self, requests: Sequence[Request]) -> list[str]:
        return [f"{self.answer(request)} {len(requests) > 1}" for request in requests]


class Ordered(Healthy):
    """Gives each answer to the sample that stood in its place, as mixed-up pictures do."""

    def generate(self, requests: Sequence[Request]) -> list[str]:
        first = requests[0]
        return [self.answer(dataclasses.replace(r, image=first.image)) for r in requests]


class Padded(Healthy):
    """The longest prompt of the batch changes the other answers."""

    def generate(self, requests: Sequence[Request]) -> list[str]:
        longest = max(len(request.prompt) for request in requests)
        return [f"{self.answer(request)} {longest > 100}" for request in requests]


class Blind(Healthy):
    def answer(self, request: Request) -> str:
        return super().answer(dataclasses.replace(request, image=None))


class PivotOnly(Healthy):
    def answer(self, request: Request) -> str:
        return super().answer(dataclasses.replace(request, language="en"))


class FirstOption(Healthy):
    def choose(self, requests: Sequence[Request]) -> list[tuple[OptionScore, ...]]:
        return [tuple(OptionScore(-float(i), 1) for i in range(len(r.options))) for r in requests]


@pytest.fixture
def task(tmp_path: Path) -> Task:
    path = write_task(tmp_path)
    samples = tmp_path / "pictures" / "samples.jsonl"
    text = samples.read_text(encoding="utf-8")
    text = text.replace("en colour", "the colour is a shade of number")
    text = text.replace("de colour", "die Farbe ist ein Ton der Nummer")
    samples.write_text(text, encoding="utf-8")
    return load_task(path)


@pytest.fixture
def choice(tmp_path: Path) -> Task:
    return load_task(write_task(tmp_path / "choice", "choose"))


def verdicts(checks: Sequence[Check]) -> dict[str, str]:
    return {check.name: check.verdict for check in checks}


OPTIONS = "order of options does not matter"
LANGUAGE = "the language asked for is answered in"


def test_a_healthy_model_passes_everything_that_can_be_told(task: Task, choice: Task) -> None:
    assert set(verdicts(examine(Healthy(), task)).values()) == {"ok", "cannot tell"}
    assert verdicts(examine(Healthy(), task))[OPTIONS] == "cannot tell"
    assert set(verdicts(examine(Healthy(), choice)).values()) == {"ok", "cannot tell"}
    assert verdicts(examine(Healthy(), choice))[LANGUAGE] == "cannot tell"


@pytest.mark.parametrize(
    ("backend", "name"),
    [
        (Random, "same answer twice"),
        (Batched, "batch of one equals batch of many"),
        (Ordered, "order of samples and pictures does not matter"),
        (Padded, "padding changes nothing"),
        (Blind, "the picture is used"),
        (PivotOnly, LANGUAGE),
    ],
)
def test_a_fault_is_found(task: Task, backend: type[Healthy], name: str) -> None:
    assert verdicts(examine(backend(), task))[name] == "fails"


def test_a_model_that_takes_the_first_option_is_found(choice: Task) -> None:
    assert verdicts(examine(FirstOption(), choice))[OPTIONS] == "fails"


def test_corrupt_pictures_fail_the_first_check(task: Task, tmp_path: Path) -> None:
    for picture in (tmp_path / "pictures").glob("*.png"):
        picture.write_bytes(b"no picture")
    (check,) = examine(Healthy(), load_task(tmp_path / "small.toml"))
    assert check.verdict == "fails" and check.detail.startswith("all 24 failed: ")


def test_a_language_that_the_task_lacks_is_refused(task: Task) -> None:
    with pytest.raises(UserError, match="none of the languages asked for"):
        examine(Healthy(), task, ["zh"])


@pytest.mark.slow
def test_the_command_prints_verdicts_and_exits_1_when_one_fails(
    mpm_eval: Command, tmp_path: Path
) -> None:
    done = mpm_eval("doctor", "echo", "--task", write_task(tmp_path), "--samples", "4")
    assert done.returncode == 1, done.stderr
    # echo is told the answer and looks at no picture
    assert "fails" in done.stdout and "the picture is used" in done.stdout
    assert "Traceback" not in done.stderr


def test_the_command_needs_a_known_model(mpm_eval: Command) -> None:
    done = mpm_eval("doctor", "ecko")
    assert done.returncode == 2 and "did you mean 'echo'" in done.stderr


def test_a_task_that_paints_is_not_for_the_doctor(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the doctor asks tasks of kind choose or generate"):
        examine(Healthy(), load_task(paint_task(tmp_path)))
