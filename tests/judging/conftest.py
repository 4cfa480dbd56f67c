"""A live judge server in a process of its own, and a small set in the format of LLaVA's files."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from mpm_eval.judging.protocol import JudgeRequest, Judging, judge_requests
from mpm_eval.schema import Brief, Sample

KEY = "sk-a-key-that-must-never-be-seen"


@dataclass
class LiveServer:
    """A running server."""

    port: int
    log: Path
    process: "subprocess.Popen[str]"

    @property
    def spec(self) -> str:
        return f"openai:http://127.0.0.1:{self.port}/v1#tiny"

    def asked(self) -> list[str]:
        """Return the rules that requests met, in order."""
        return [line.split()[0] for line in self.log.read_text(encoding="utf-8").splitlines()]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


StartServer = Callable[..., LiveServer]


def _start(folder: Path, port: int = 0, *rules: str) -> LiveServer:
    log = folder / "server.log"
    log.touch()
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "server.py"), str(port), str(log), *rules],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return LiveServer(int(process.stdout.readline()), log, process)


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """One server process for all tests that do not kill it."""
    server = _start(tmp_path_factory.mktemp("server"))
    yield server
    server.kill()


@pytest.fixture
def start_server(shared_server: LiveServer) -> StartServer:
    """Return a function that gives the shared server rules (see server.py) and an empty log."""

    def start(*rules: str) -> LiveServer:
        url = f"http://127.0.0.1:{shared_server.port}/rules"
        httpx.post(url, json=list(rules) or ["ok"]).raise_for_status()
        return shared_server

    return start


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[StartServer]:
    """Return a function that starts a server with rules, on a port if given, to be killed."""
    started: list[LiveServer] = []

    def start(*rules: str, port: int = 0) -> LiveServer:
        started.append(_start(tmp_path, port, *rules))
        return started[-1]

    yield start
    for server in started:
        server.kill()


def sample(number: int = 0, language: str = "en", category: str = "conv") -> Sample:
    """Return a sample with a brief of captions and one box."""
    return Sample(
        id=str(number),
        language=language,
        image=f"{number // 3}.jpg",
        references=(f"There are {number} red boats in the harbour.",),
        cluster=f"{number // 3}.jpg",
        question=f"How many boats are there, {number}?",
        category=category,
        closed=False,
        brief=Brief("Boats in a harbour.\n\nboat: [0.1, 0.2, 0.3, 0.4]", "Assistant", "Judge."),
    )


def requests(number: int = 3, judging: Judging | None = None) -> list[JudgeRequest]:
    """Return what a judge is asked about `number` samples."""
    judging = judging or Judging("openai:tiny", {}, "llava", 1)
    return [
        request for i in range(number) for request in judge_requests(judging, sample(i), f"{i}.")
    ]


# a set in the official format: one line per list
QUESTIONS = [
    (0, "000000000001.jpg", "conv", "What colour is the boat?", "The boat is red."),
    (1, "000000000001.jpg", "detail", "Describe the picture.", "A red boat lies in a small harbour."),
    (2, "000000000001.jpg", "complex", "Why is nobody there?", "It is early in the morning."),
    (3, "000000000002.jpg", "conv", "What is on the table?", "A loaf of bread is on the table."),
    (4, "000000000002.jpg", "detail", "Describe the picture.", "A wooden table with bread and milk."),
    (5, "000000000002.jpg", "complex", "Who will eat?", "Probably a family at breakfast time."),
]  # fmt: skip
CONTEXTS = [
    ("000000000001", ["A red boat.", "A harbour at dawn."], [("boat", [0.1, 0.25, 0.9, 1])]),
    ("000000000002", ["Bread on a table."], []),
]


def write_llava(folder: Path, language: str = "en") -> Path:
    """Write the four files of a tiny set, in the official format, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    suffix = "" if language == "en" else f"_{language}"

    def lines(name: str, rows: list[dict[str, object]]) -> None:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}{suffix}.jsonl").write_text(text, encoding="utf-8")

    lines("qa90_questions", [{"question_id": i, "image": image, "text": text, "category": category}
                             for i, image, category, text, _ in QUESTIONS])  # fmt: skip
    # in another order than the questions: they are joined by id
    lines("qa90_gpt4_answer", [{"question_id": i, "text": answer, "category": category}
                               for i, _, category, _, answer in reversed(QUESTIONS)])  # fmt: skip
    lines("caps_boxes_coco2014_val_80", [
        {"id": i, "image": f"{i}.jpg", "captions": captions,
         "instances": [{"category": c, "bbox": box} for c, box in boxes]}
        for i, captions, boxes in CONTEXTS
    ])  # fmt: skip
    rules = {
        category: {"role": "Assistant", "prompt": f"Rate both for {category}."}
        for category in ("conv", "detail", "complex")
    }
    (folder / f"rule{suffix}.json").write_text(json.dumps(rules), encoding="utf-8")
    return folder


TASK = """
version = 1
kind = "generate"
description = "A tiny set in LLaVA's format."
languages = ["en"]
metrics = ["relative_score", "exact_match"]
main_metric = "relative_score"

[data]
source = "llava"
path = "boats"

[prompts]
en = "{question}"
"""


def write_judged_task(folder: Path) -> Path:
    """Write a task, its files and its pictures, and return the task file."""
    from PIL import Image

    data = write_llava(folder / "boats")
    (data / "images").mkdir()
    for name in ("000000000001.jpg", "COCO_val2014_000000000002.jpg"):
        Image.new("RGB", (8, 8), (200, 30, 30)).save(data / "images" / name)
    path = folder / "boats.toml"
    path.write_text(TASK, encoding="utf-8")
    return path
