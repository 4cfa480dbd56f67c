"""Stage generate: what is asked, in which order, what is written, and what stops it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mpm_eval.backends.echo import EchoBackend, open_echo
from mpm_eval.errors import Interrupted, UserError
from mpm_eval.schema import OptionScore, Prediction, Request, Task
from mpm_eval.stages.answer import input_sha256
from mpm_eval.stages.generate import default_folder, run_tasks
from mpm_eval.stages.score import score_run
from mpm_eval.store import read_predictions
from mpm_eval.strict import read_json
from tests.stages.conftest import MakeTask

Fake = Callable[[Sequence[Request]], Any]


class Spy(EchoBackend):
    """Echo that remembers its batches; `fake` answers in its place."""

    def __init__(self, fake: Fake | None = None, batch_size: int = 8, oracle: bool = True) -> None:
        super().__init__("")
        self.batches: list[list[Request]] = []
        self.fake, self.batch_size = fake, batch_size
        if not oracle:
            self.capabilities = self.capabilities - {"oracle"}

    @property
    def asked(self) -> list[Request]:
        return [request for batch in self.batches for request in batch]

    def generate(self, requests: Sequence[Request]) -> list[str]:
        self.batches.append(list(requests))
        return self.fake(requests) if self.fake else super().generate(requests)

    def choose(self, requests: Sequence[Request]) -> list[tuple[OptionScore, ...]]:
        self.batches.append(list(requests))
        return self.fake(requests) if self.fake else super().choose(requests)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def run(task: Task, backend: Spy, out: Path, **options: Any) -> list[Prediction]:
    assert run_tasks([task], backend, model_spec="spy", out=out, **options) == out
    return written(task, out)


def written(task: Task, out: Path) -> list[Prediction]:
    return read_predictions(out / task.name / "predictions.jsonl")


def choices(number: int = 4) -> list[dict[str, Any]]:
    return [
        {"id": f"{i}", "language": tag, "options": ["a", "b", "c"], "answer": i % 3}
        for tag in ("en", "de", "zh")
        for i in range(number)
    ]


def pictured(folder: Path, number: int = 4) -> list[dict[str, Any]]:
    folder.mkdir(exist_ok=True)
    for i in range(number):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(folder / f"{i}.png")
    return [
        {"id": f"{i}", "language": tag, "image": f"{i}.png", "references": [f"{tag} {i}"]}
        for tag in ("en", "de", "zh")
        for i in range(number)
    ]


def test_every_sample_is_answered_once(make_task: MakeTask, out: Path) -> None:
    found = run(make_task(), Spy(), out)
    assert {p.key: p.output for p in found} == {
        (f"{i}", tag): f"{tag} {i}" for tag in ("en", "de", "zh") for i in range(8)
    }
    assert len(found) == 24


def test_all_languages_of_a_sample_are_asked_together(make_task: MakeTask, out: Path) -> None:
    found = run(make_task(), Spy(batch_size=5), out)
    assert [p.key for p in found[:6]] == [(i, tag) for i in "01" for tag in ("en", "de", "zh")]


def test_batches_are_as_large_as_the_backend_likes(make_task: MakeTask, out: Path) -> None:
    spy = Spy(batch_size=7)
    run(make_task(), spy, out)
    assert [len(batch) for batch in spy.batches] == [7, 7, 7, 3]


def test_a_picture_is_decoded_once_for_all_languages(
    make_task: MakeTask, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mpm_eval.data import jsonl

    task = make_task(rows=pictured(tmp_path / "animals"))
    decoded: list[str] = []

    def count(content: bytes, where: str) -> Image.Image:
        decoded.append(where)
        return original(content, where)

    original = jsonl.decode
    monkeypatch.setattr(jsonl, "decode", count)
    spy = Spy(batch_size=2)  # the three languages of a picture do not fit into a batch
    run(task, spy, out)
    assert [Path(where).name for where in decoded] == ["0.png", "1.png", "2.png", "3.png"]
    assert [r.image_key for r in spy.asked] == [f"{i}.png" for i in range(4) for _ in range(3)]
    assert {(r.image.mode, r.image.size) for r in spy.asked if r.image} == {("RGB", (8, 8))}


def test_the_question_is_put_into_the_prompt_and_nothing_else_is(
    make_task: MakeTask, out: Path
) -> None:
    row = {"id": "0", "language": "en", "question": "{0} {question} %s?", "references": ["x"]}
    task = replace(make_task(rows=[row], languages=["en"]), prompts={"en": "{ } {question} %d"})
    spy = Spy()
    (found,) = run(task, spy, out)
    assert spy.asked[0].prompt == found.prompt == "{ } {0} {question} %s? %d"


def test_only_an_oracle_sees_the_references(make_task: MakeTask, out: Path) -> None:
    def answer(requests: Sequence[Request]) -> list[str]:
        return ["?"] * len(requests)

    blind, oracle = Spy(answer, oracle=False), Spy(answer)
    run(make_task(), blind, out)
    run(make_task(), oracle, out.with_name("other"))
    assert {r.references for r in blind.asked} == {()}
    assert all(r.references for r in oracle.asked)


def test_what_is_answered_is_not_asked_again(make_task: MakeTask, out: Path) -> None:
    task, spy = make_task(), Spy()
    run(task, spy, out, languages=["en"])
    before = (out / task.name / "predictions.jsonl").read_bytes()
    again = Spy()
    run(task, again, out)
    assert {r.language for r in again.asked} == {"de", "zh"} and len(again.asked) == 16
    assert (out / task.name / "predictions.jsonl").read_bytes().startswith(before)
    third = Spy()
    run(task, third, out)
    assert not third.batches
    assert read_json(out / task.name / "manifest.json")["languages"] == ["en", "de", "zh"]


def test_a_language_given_twice_is_asked_once(make_task: MakeTask, out: Path) -> None:
    assert len(run(make_task(), Spy(), out, languages=["de", "de"])) == 8


def test_a_limit_takes_the_first_ids_of_every_language(make_task: MakeTask, out: Path) -> None:
    found = run(make_task(), Spy(), out, limit=2)
    assert sorted(p.key for p in found) == sorted(
        (i, tag) for i in "01" for tag in ("en", "de", "zh")
    )


@pytest.mark.parametrize("first", ["en", "de"])
def test_a_limited_run_that_grows_by_a_language_can_be_scored(
    make_task: MakeTask, out: Path, first: str
) -> None:
    # The languages share ids 2 and 3 only: the first ids of each alone would differ.
    rows = [
        {"id": f"{i}", "language": tag, "question": "?", "references": [f"{tag} {i}"]}
        for tag, ids in (("en", (0, 1, 2, 3)), ("de", (3, 2, 5)))
        for i in ids
    ]
    task = make_task(rows=rows, languages=["en", "de"])
    run(task, Spy(), out, limit=3, languages=[first])
    run(task, Spy(), out, limit=3)
    (result,) = score_run(out)
    assert result["limit"] == 3


def test_a_corrupt_picture_fails_its_samples_and_the_run_goes_on(
    make_task: MakeTask, tmp_path: Path, out: Path
) -> None:
    rows = pictured(tmp_path / "animals")
    (tmp_path / "animals" / "1.png").write_bytes(b"no picture")
    found = run(make_task(rows=rows), Spy(), out)
    failed = [p for p in found if p.error]
    assert [p.key for p in failed] == [("1", tag) for tag in ("en", "de", "zh")]
    assert all("1.png" in p.error and not p.output for p in failed)
    assert len(found) == 12


def test_a_run_of_corrupt_pictures_never_calls_the_model(
    make_task: MakeTask, tmp_path: Path, out: Path
) -> None:
    rows = pictured(tmp_path / "animals", 1)
    (tmp_path / "animals" / "0.png").write_bytes(b"")
    spy = Spy()
    assert all(p.error for p in run(make_task(rows=rows), spy, out)) and not spy.batches


def test_the_input_hash_tells_prompts_options_and_pictures_apart() -> None:
    red, blue = (Image.new("RGB", (2, 2), colour) for colour in ("red", "blue"))
    requests = [
        Request("p", "en"),
        Request("q", "en"),
        Request("p", "en", options=("a", "b")),
        Request("p", "en", options=("b", "a")),
        Request("p", "en", image=red),
        Request("p", "en", image=blue),
        Request("p", "en", image=Image.new("RGB", (4, 1), "red")),  # the same bytes
    ]
    assert len({input_sha256(r) for r in requests}) == len(requests)
    assert input_sha256(Request("p", "en")) == input_sha256(requests[0])


def test_the_best_option_by_mean_logprob_is_the_output(make_task: MakeTask, out: Path) -> None:
    def scores(requests: Sequence[Request]) -> list[tuple[OptionScore, ...]]:
        row = (OptionScore(-4.0, 2), OptionScore(-5.0, 5), OptionScore(-3.0, 3))
        return [row for _ in requests]

    task = make_task(kind="choose", rows=choices(), metrics=["accuracy"], main_metric="accuracy")
    found = run(task, Spy(scores), out)
    assert {p.output for p in found} == {"b"}, "of -2, -1 and -1 a token the first best one"
    assert found[0].option_scores[1] == OptionScore(-5.0, 5)


@pytest.mark.parametrize(
    "bad", [OptionScore(float("nan"), 1), OptionScore(float("-inf"), 1), OptionScore(-1.0, 0)]
)
def test_a_score_that_is_no_number_is_a_failed_sample(
    make_task: MakeTask, out: Path, bad: OptionScore
) -> None:
    def scores(requests: Sequence[Request]) -> list[tuple[OptionScore, ...]]:
        good = OptionScore(-1.0, 1)
        return [(good, good, bad if r.language == "de" else good) for r in requests]

    task = make_task(kind="choose", rows=choices(), metrics=["accuracy"], main_metric="accuracy")
    found = run(task, Spy(scores), out)
    assert {p.language for p in found if p.error} == {"de"}
    assert all(not p.option_scores and not p.output for p in found if p.error)


def test_scores_of_another_number_type_are_written_as_numbers(
    make_task: MakeTask, out: Path
) -> None:
    import numpy as np

    def scores(requests: Sequence[Request]) -> list[tuple[OptionScore, ...]]:
        one = OptionScore(np.float32(-0.5), np.int64(2))  # type: ignore[arg-type]
        return [(one, one, one) for _ in requests]

    task = make_task(kind="choose", rows=choices(), metrics=["accuracy"], main_metric="accuracy")
    assert run(task, Spy(scores), out)[0].option_scores[0] == OptionScore(-0.5, 2)


@pytest.mark.parametrize(
    ("kind", "fake", "message"),
    [
        ("generate", lambda requests: ["x"] * (len(requests) - 1), "7 answers to 8 requests"),
        ("generate", lambda requests: ["x"] * (len(requests) + 1), "9 answers to 8 requests"),
        ("generate", lambda requests: [None] * len(requests), "an answer is NoneType, not text"),
        ("choose", lambda requests: [], "0 answers to 8 requests"),
        ("choose", lambda requests: [(OptionScore(-1.0, 1),)] * 8, "1 scores to 3 options"),
    ],
)
def test_a_backend_that_breaks_its_contract_stops_the_run(
    make_task: MakeTask, out: Path, kind: str, fake: Fake, message: str
) -> None:
    metric = "accuracy" if kind == "choose" else "exact_match"
    rows = choices() if kind == "choose" else None
    task = make_task(kind=kind, rows=rows, metrics=[metric], main_metric=metric)
    with pytest.raises(ValueError, match=message):
        run(task, Spy(fake), out)
    assert not (out / task.name / "predictions.jsonl").exists()


@pytest.mark.parametrize("error", [RuntimeError("CUDA out of memory. Tried"), MemoryError()])
def test_out_of_memory_halves_the_batch_and_loses_nothing(
    make_task: MakeTask, out: Path, error: Exception
) -> None:
    def small(requests: Sequence[Request]) -> list[str]:
        if len(requests) > 3:
            raise error
        return [r.references[0] for r in requests]

    spy = Spy(small, batch_size=16)
    found = run(make_task(), spy, out)
    assert len(found) == 24 and all(p.output == f"{p.language} {p.id}" for p in found)
    assert [len(batch) for batch in spy.batches] == [16, 8, 4, *[2] * 12]


def test_out_of_memory_on_one_sample_is_the_users_to_mend(make_task: MakeTask, out: Path) -> None:
    def never(requests: Sequence[Request]) -> list[str]:
        raise RuntimeError("out of memory")

    with pytest.raises(
        UserError, match=r"'animals': out of memory on the single sample '0' \(en\)"
    ):
        run(make_task(), Spy(never), out)


def test_any_other_error_of_a_backend_is_not_swallowed(make_task: MakeTask, out: Path) -> None:
    calls: list[int] = []

    def breaks(requests: Sequence[Request]) -> list[str]:
        calls.append(len(requests))
        if len(calls) == 2:
            raise RuntimeError("shapes do not match")
        return ["x"] * len(requests)

    task = make_task()
    with pytest.raises(RuntimeError, match="shapes do not match"):
        run(task, Spy(breaks), out)
    assert calls == [8, 8]
    assert len(written(task, out)) == 8, "the batch before is kept"


def test_ctrl_c_says_how_far_it_came_and_the_rest_follows(make_task: MakeTask, out: Path) -> None:
    calls: list[int] = []

    def stop(requests: Sequence[Request]) -> list[str]:
        calls.append(len(requests))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return ["x"] * len(requests)

    task = make_task()
    with pytest.raises(Interrupted, match="animals: stopped at 16 of 24 samples; run the same"):
        run(task, Spy(stop), out)
    assert len(run(task, Spy(), out)) == 24
    sessions = read_json(out / task.name / "environment.json")["sessions"]
    assert [session["num_new"] for session in sessions] == [16, 8]


def test_progress_counts_what_was_there_before(make_task: MakeTask, out: Path) -> None:
    told: list[tuple[str, int, int]] = []
    task = make_task()
    run(task, Spy(), out, languages=["en"])
    run(task, Spy(), out, progress=lambda *state: told.append(state))
    assert told == [("animals", 16, 24), ("animals", 24, 24)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"languages": ["fr"]}, "task 'animals': unknown language 'fr'; .*known: de, en, zh"),
        ({"languages": []}, "task 'animals': none of the languages asked for; it has en, de, zh"),
        ({"limit": 0}, "--limit: must be at least 1, got 0"),
    ],
)
def test_a_mistake_is_told_before_anything_is_written(
    make_task: MakeTask, out: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run(make_task(), Spy(), out, **options)
    assert not out.exists()


def test_each_task_answers_in_the_languages_it_has(make_task: MakeTask, out: Path) -> None:
    wide, narrow = make_task(), make_task("narrow", languages=["en", "de"])
    run_tasks([wide, narrow], Spy(), model_spec="echo", languages=["de", "zh"], out=out)
    for name, languages in (("animals", {"de", "zh"}), ("narrow", {"de"})):
        found = read_predictions(out / name / "predictions.jsonl")
        assert {prediction.language for prediction in found} == languages


def test_a_language_of_no_task_names_the_tasks(make_task: MakeTask, out: Path) -> None:
    tasks = [make_task("a", languages=["en", "de"]), make_task("b", languages=["en", "zh"])]
    with pytest.raises(UserError, match=r"task 'a', 'b': unknown language 'fr'; .*: de, en, zh"):
        run_tasks(tasks, Spy(), model_spec="spy", out=out, languages=["en", "fr"])
    assert not out.exists()


def test_a_task_the_model_cannot_do_stops_all_before_the_first_answer(
    make_task: MakeTask, out: Path
) -> None:
    spy = Spy()
    spy.capabilities = frozenset({"generate"})
    tasks = [
        make_task(),
        make_task("c", choices(), kind="choose", metrics=["accuracy"], main_metric="accuracy"),
    ]
    with pytest.raises(UserError, match="task 'c' needs a model that can 'choose'; 'echo' can gen"):
        run_tasks(tasks, spy, model_spec="spy", out=out)
    assert not spy.batches and not out.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"seed": 1}, "with seed 0, not 1"), ({"limit": 3}, "with limit None, not 3")],
)
def test_another_setting_does_not_mix_into_a_run(
    make_task: MakeTask, out: Path, options: dict[str, Any], message: str
) -> None:
    task = make_task()
    run(task, Spy(), out)
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    with pytest.raises(UserError, match=message):
        run(task, Spy(), out, **options)
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before


def test_another_model_does_not_mix_into_a_run(make_task: MakeTask, out: Path) -> None:
    task = make_task()
    run(task, Spy(), out)
    with pytest.raises(UserError, match=r"another model \('echo'.*now 'echo-half'"):
        run_tasks([task], open_echo("half", 0), model_spec="echo:half", out=out)


def test_a_broken_run_file_is_named(make_task: MakeTask, out: Path) -> None:
    out.mkdir()
    (out / "run.json").write_text("{}")
    with pytest.raises(UserError, match=r"run\.json: key 'schema_version' is missing"):
        run(make_task(), Spy(), out)


def test_a_run_collects_its_tasks(make_task: MakeTask, out: Path) -> None:
    for name in ("b", "a", "b"):
        run(make_task(name), Spy(), out)
    assert read_json(out / "run.json")["tasks"] == ["b", "a"]


def test_the_files_say_what_made_the_predictions(make_task: MakeTask, out: Path) -> None:
    task, spy = make_task(), Spy()
    run(task, spy, out, seed=4, limit=1)
    manifest = read_json(out / task.name / "manifest.json")
    assert manifest["task"] == {"name": task.name, "version": 1, "sha256": task.sha256}
    assert manifest["model"] == read_json(out / "run.json")["model"]
    assert manifest["model"]["spec"] == "spy" and manifest["model"]["sha256"] == spy.sha256
    assert (manifest["seed"], manifest["limit"]) == (4, 1)
    assert manifest["decoding"]["max_new_tokens"] == task.max_new_tokens
    assert {"mpm-eval", "python", "numpy", "pillow"} <= set(manifest["versions"])
    assert read_json(out / task.name / "task.json")["sha256"] == task.sha256
    (session,) = read_json(out / task.name / "environment.json")["sessions"]
    assert session["num_new"] == 3 and session["started"] <= session["finished"]


def test_an_environment_file_of_an_earlier_version_does_not_stop_a_run(
    make_task: MakeTask, out: Path
) -> None:
    (out / "animals").mkdir(parents=True)
    (out / "animals" / "environment.json").write_text(json.dumps({"started": "2026", "host": "x"}))
    run(make_task(), Spy(), out)
    assert len(read_json(out / "animals" / "environment.json")["sessions"]) == 1


def test_a_probe_task_writes_hidden_states_and_keeps_them(make_task: MakeTask, out: Path) -> None:
    task = make_task(kind="probe", metrics=["retrieval_p1"], main_metric="retrieval_p1")
    run_tasks([task], open_echo("", 0), model_spec="echo", out=out)
    files = sorted((out / task.name / "embeddings").iterdir())
    assert [p.name for p in files] == [f"{tag}.safetensors" for tag in ("de", "en", "zh")]
    run_tasks([task], open_echo("", 0), model_spec="echo", out=out)
    (session,) = read_json(out / task.name / "environment.json")["sessions"]
    assert session["num_new"] == 3


@pytest.mark.parametrize(
    ("name", "limit", "seed", "expected"),
    [
        ("mpm-tiny", None, 0, "mpm-tiny"),
        ("mpm-tiny", 5, 0, "mpm-tiny-limit5"),
        ("mpm-tiny", None, 2, "mpm-tiny-seed2"),
        ("org/model", 5, 2, "org--model-limit5-seed2"),
    ],
)
def test_the_default_folder_tells_limits_and_seeds_apart(
    name: str, limit: int | None, seed: int, expected: str
) -> None:
    assert default_folder(name, limit, seed) == Path("results/runs") / expected
