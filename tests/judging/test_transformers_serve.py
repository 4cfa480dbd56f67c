"""Judge and model against somebody else's server: `transformers serve` with a tiny model."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from mpm_eval.backends.openai_api import open_openai
from mpm_eval.endpoint import Patience
from mpm_eval.judging.judges import open_judge
from mpm_eval.judging.protocol import Reply
from mpm_eval.schema import Request
from tests.judging.conftest import requests
from tests.training.conftest import write_lm

pytestmark = pytest.mark.slow  # a server with a model starts
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return "URL#MODEL" of a running server of a tiny chat model with random weights."""
    folder = write_lm("qwen2", tmp_path_factory.mktemp("served") / "tiny")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).parent / "transformers"), "serve", str(folder)]
    log = (folder.parent / "server.log").open("w")
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"],
        stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            assert process.poll() is None, (folder.parent / "server.log").read_text()
            try:
                if httpx.get(f"{url}/health", timeout=1).is_success:
                    break
            except httpx.HTTPError:
                pass
            time.sleep(0.2)
        yield f"{url}/v1#{folder}"
    finally:
        process.kill()
        process.wait()
        log.close()


def replies(spec: str, patience: Patience | None = None) -> list[Reply]:
    judge = open_judge(f"openai:{spec}", patience or Patience(concurrency=2))
    return [reply for _, reply in sorted(judge.answers(requests(3)), key=lambda pair: pair[0].id)]


def test_a_judge_reads_its_replies_and_what_they_cost(server: str) -> None:
    found = replies(server)
    assert len(found) == 3
    for reply in found:
        assert reply.text and not reply.error
        assert reply.num_prompt_tokens > 20 and reply.num_reply_tokens > 0
        assert reply.answered_by


def test_a_model_that_is_not_there_is_a_failure_with_a_reason(server: str) -> None:
    url = server.partition("#")[0]
    found = replies(f"{url}#no/such-model", Patience(tries=1, concurrency=1))
    assert len(found) == 3
    assert all(reply.error and not reply.text for reply in found)


def test_a_model_behind_the_server_answers_as_it_does_again(server: str) -> None:
    backend = open_openai(server, 0)
    asked = [Request("What is this?", "en", max_new_tokens=6), Request("Was?", "de")]
    first, second = backend.generate(asked), open_openai(server, 0).generate(asked)
    assert first == second and all(isinstance(text, str) for text in first)
