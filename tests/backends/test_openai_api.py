"""The endpoint backend against a real server process, which also fails."""

import base64
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops

from mpm_eval.backends import Failure
from mpm_eval.backends.openai_api import KEYS, OpenAIBackend
from mpm_eval.cards import open_model
from mpm_eval.endpoint import Patience
from mpm_eval.errors import UserError
from mpm_eval.schema import Request
from mpm_eval.stages.generate import run_tasks
from mpm_eval.tasks import load_task
from tests.backends.server import answer
from tests.conftest import Command, write_task

pytestmark = pytest.mark.slow  # each test starts a server

SERVER = Path(__file__).with_name("server.py")
KEY = "sk-a-key-that-must-never-be-seen"
QUICK = Patience(timeout_s=20, tries=2, concurrency=4, first_backoff_s=0.01)
ONE_BY_ONE = Patience(timeout_s=20, tries=1, concurrency=1)


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)


@dataclass
class LiveServer:
    port: int
    log: Path
    process: "subprocess.Popen[str]"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def asked(self) -> list[dict[str, Any]]:
        """Return the logged requests after the first, which only says hello."""
        return [json.loads(line) for line in self.log.read_text().splitlines()][1:]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


Start = Callable[..., LiveServer]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts a server with rules; its first request follows "ok"."""
    started: list[LiveServer] = []

    def start_(*rules: str, port: int = 0) -> LiveServer:
        log = tmp_path / "server.log"
        log.touch()
        process = subprocess.Popen(
            [sys.executable, str(SERVER), str(port), str(log), "ok", *rules],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        started.append(LiveServer(int(process.stdout.readline()), log, process))
        return started[-1]

    yield start_
    for server in started:
        server.kill()


def requests(number: int = 1, picture: bool = False) -> list[Request]:
    image = Image.effect_noise((9, 7), 60).convert("RGB") if picture else None
    return [Request(f"question {i}?", "de", image, max_new_tokens=17) for i in range(number)]


def test_answers_come_in_the_order_of_the_requests(start: Start) -> None:
    server = start("ok", "slow", "ok", "slow", "ok")
    answers = OpenAIBackend(server.url, "tiny", QUICK).generate(requests(10))
    by_prompt = {a["body"]["messages"][0]["content"]: answer(a["body"]) for a in server.asked()}
    assert answers == [by_prompt[f"question {i}?"] for i in range(10)]


def test_a_request_is_greedy_and_holds_the_picture_without_loss(start: Start) -> None:
    server = start()
    (request,) = requests(picture=True)
    OpenAIBackend(server.url, "tiny", QUICK).generate([request])
    (asked,) = server.asked()
    assert asked["key"] == ""
    body = asked["body"]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("tiny", 0, 17)
    (message,) = body["messages"]
    picture, text = message["content"]
    assert message["role"] == "user" and text == {"type": "text", "text": "question 0?"}
    head, _, content = picture["image_url"]["url"].partition(",")
    assert (picture["type"], head) == ("image_url", "data:image/png;base64")
    found = Image.open(io.BytesIO(base64.b64decode(content)))
    assert request.image is not None
    assert found.format == "PNG" and ImageChops.difference(found, request.image).getbbox() is None


def test_the_model_that_answers_is_part_of_what_a_run_is_of(start: Start) -> None:
    server = start()
    backend = OpenAIBackend(server.url, "tiny", QUICK)
    assert backend.identity == {
        "base_url": server.url,
        "model": "tiny",
        "temperature": "0",
        "answered_by": "tiny-2026",
    }
    assert (backend.name, backend.capabilities, backend.training_record) == (
        "tiny", {"generate"}, None,
    )  # fmt: skip
    named = OpenAIBackend(server.url, "tiny-2026", QUICK)
    assert "answered_by" not in named.identity and named.sha256 != backend.sha256


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("400", "HTTP 400: max_tokens is too large"),
        ("500", "HTTP 500: your header is (2 tries)"),
        ("html", "the reply has no choices[0].message (2 tries)"),
        ("no-message", "the reply has no choices[0].message (2 tries)"),
        ("reset", "broken reply: Server disconnected without sending a response. (2 tries)"),
        ("refusal", "refused: I cannot help with that."),
        ("filtered", "refused: content filter"),
        ("no-text", "the reply has no text (finish_reason length)"),
    ],
)
def test_a_request_that_fails_for_good_is_a_failure_with_its_reason(
    rule: str, reason: str, start: Start
) -> None:
    (found,) = OpenAIBackend(start(rule).url, "tiny", QUICK).generate(requests())
    assert found == Failure(reason)


@pytest.mark.slow
def test_a_reply_that_does_not_come_is_a_failure(start: Start) -> None:
    impatient = Patience(timeout_s=1, tries=2, first_backoff_s=0.01)
    backend = OpenAIBackend(start("hang").url, "tiny", impatient)
    assert backend.generate(requests()) == [Failure("no reply in 1 s (2 tries)")]


@pytest.mark.parametrize("rule", ["500", "503", "html", "reset"])
def test_a_passing_failure_is_tried_again(rule: str, start: Start) -> None:
    server = start(rule, "ok")
    (found,) = OpenAIBackend(server.url, "tiny", QUICK).generate(requests())
    assert isinstance(found, str) and [a["rule"] for a in server.asked()] == [rule, "ok"]


def test_an_empty_answer_is_an_answer(start: Start) -> None:
    assert OpenAIBackend(start("empty").url, "tiny", QUICK).generate(requests()) == [""]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("401", "HTTP 401: refuses the key; set MPM_EVAL_MODEL_KEY or OPENAI_API_KEY"),
        ("404", "HTTP 404: The model `tiny` does not exist.; check the URL and the model's name"),
        (
            "503",
            "HTTP 503: loading the model (2 tries); what is answered is kept: start the server",
        ),
        ("other-model", "answered by 'tiny-next', at the start by 'tiny-2026'"),
    ],
)
def test_what_no_request_can_mend_stops_the_run(rule: str, message: str, start: Start) -> None:
    server = start(rule)
    with pytest.raises(UserError) as caught:
        OpenAIBackend(server.url, "tiny", QUICK).generate(requests(3))
    assert str(caught.value).startswith(f"{server.url}: {message}")


def test_a_server_that_is_not_there_is_told_before_a_run_begins() -> None:
    with pytest.raises(
        UserError, match=r"^http://127.0.0.1:9/v1: cannot be reached: .*\(2 tries\)"
    ):
        OpenAIBackend("http://127.0.0.1:9/v1", "tiny", QUICK)


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("rule", ["500", "401", "tell"])
def test_the_key_is_sent_and_never_shown(
    name: str, rule: str, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, KEY)
    server = start(rule)
    backend = OpenAIBackend(server.url, "tiny", QUICK)
    try:
        shown = str(backend.generate(requests()))
    except UserError as error:
        shown = str(error)
    assert server.asked()[0]["key"] == f"Bearer {KEY}"
    assert KEY not in shown + repr(backend.identity) and (
        "HTTP" in shown or "I was sent [key]" in shown
    )


@pytest.mark.parametrize(
    "spec",
    ["openai:", "openai:http://localhost/v1", "openai:#m", "openai:localhost:8000/v1#m",
     "openai:ftp://x/v1#m", "openai:http://x:port/v1#m", "openai:http://x/v1# "],
)  # fmt: skip
def test_what_is_no_endpoint_shows_how_to_write_one(spec: str) -> None:
    with pytest.raises(
        UserError, match=r"write openai:BASE_URL#MODEL, e.g. openai:http://localhost"
    ):
        open_model(spec)


@pytest.mark.parametrize("url", ["http://user:secret@x/v1", "http://x/v1?key=secret"])
def test_a_url_with_a_secret_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(UserError, match="holds a user, a password or a query") as caught:
        open_model(f"openai:{url}#m")
    assert "secret" not in str(caught.value)


def predictions(run: Path) -> list[dict[str, Any]]:
    path = run / "small" / "predictions.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_failed_request_is_a_failed_sample_and_the_run_goes_on(
    start: Start, tmp_path: Path
) -> None:
    backend = OpenAIBackend(start("400", "ok").url, "tiny", ONE_BY_ONE)
    run = run_tasks(
        [load_task(write_task(tmp_path))], backend, model_spec="m", out=tmp_path / "run"
    )
    first, *rest = predictions(run)
    assert (first["error"], first["output"]) == ("HTTP 400: max_tokens is too large", "")
    assert len(rest) == 23 and all(p["output"] and not p["error"] for p in rest)


def test_a_server_that_dies_keeps_what_is_answered_and_the_same_command_continues(
    start: Start, tmp_path: Path
) -> None:
    task, out = load_task(write_task(tmp_path)), tmp_path / "run"
    whole = run_tasks(
        [task], OpenAIBackend(start().url, "tiny", QUICK), model_spec="m", out=tmp_path / "whole"
    )
    server = start()
    backend = OpenAIBackend(server.url, "tiny", QUICK)
    with pytest.raises(UserError, match="run the same command to continue"):
        run_tasks(
            [task], backend, model_spec="m", out=out, progress=lambda *_: server.kill()
        )  # fmt: skip
    kept = predictions(out)
    assert len(kept) == backend.batch_size and not any(p["error"] for p in kept)
    again = start(port=server.port)
    run_tasks([task], OpenAIBackend(again.url, "tiny", QUICK), model_spec="m", out=out)
    assert predictions(out) == predictions(whole)


@pytest.mark.slow
def test_the_command_line_runs_and_scores_it(
    start: Start, tmp_path: Path, mpm_eval: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEYS[0], KEY)
    task, spec = write_task(tmp_path), f"openai:{start().url}#tiny"
    done = mpm_eval("run", "--task", task, "--model", spec, "--json")
    assert done.returncode == 0, done.stderr
    run = tmp_path / "results" / "runs" / "tiny"
    manifest = json.loads((run / "small" / "manifest.json").read_text())
    assert manifest["model"]["spec"] == spec
    assert manifest["model"]["identity"]["temperature"] == "0"
    assert manifest["decoding"]["max_new_tokens"] == 32
    for path in run.rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes()
    assert KEY not in done.stdout + done.stderr
