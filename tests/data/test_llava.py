"""LLaVA's official files: a tiny set in the same format, and the real ones where they are."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from mpm_eval.data import open_dataset
from mpm_eval.errors import CorruptImage, UserError
from mpm_eval.judging.protocol import Judging, judge_requests
from mpm_eval.schema import Task
from mpm_eval.tasks import load_task
from tests.judging.conftest import write_llava

MakeTask = Callable[..., Task]


@pytest.fixture(autouse=True)
def no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MPM_EVAL_DATA", raising=False)


@pytest.fixture
def task(make_task: MakeTask, tmp_path: Path) -> Task:
    write_llava(tmp_path / "set")
    return make_task(languages=("en",), source="llava", path="set")


def rewrite(path: Path, change: Callable[[list[dict[str, object]]], object]) -> None:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    change(rows)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_files_are_joined_by_question_id_not_by_line(task: Task) -> None:
    samples = open_dataset(task).samples("en")
    assert [s.id for s in samples] == ["0", "1", "2", "3", "4", "5"]
    first = samples[0]
    assert first.references == ("The boat is red.",)
    assert (first.image, first.cluster) == ("000000000001.jpg",) * 2
    assert (first.category, first.closed) == ("conv", False)


def test_a_judge_reads_captions_then_boxes_with_the_digits_of_the_file(task: Task) -> None:
    samples = open_dataset(task).samples("en")
    assert samples[0].brief is not None and samples[3].brief is not None
    assert samples[0].brief.context == (
        "A red boat.\nA harbour at dawn.\n\nboat: [0.1, 0.25, 0.9, 1]"
    )
    assert samples[0].brief.rule == "Rate both for conv."
    assert samples[3].brief.context == "Bread on a table.\n\n"  # no boxes: an empty block


def test_a_set_without_boxes_has_no_block_for_them(task: Task, tmp_path: Path) -> None:
    def wild(rows: list[dict[str, object]]) -> None:
        for row in rows:
            del row["instances"]
            row["caption"] = row.pop("captions")

    rewrite(tmp_path / "set" / "caps_boxes_coco2014_val_80.jsonl", wild)
    brief = open_dataset(task).samples("en")[0].brief
    assert brief is not None and brief.context == "A red boat.\nA harbour at dawn."


@pytest.mark.parametrize("layout", ["set", "set/zh"])
def test_a_translation_works_by_dropping_in_its_files(
    layout: str, make_task: MakeTask, tmp_path: Path
) -> None:
    write_llava(tmp_path / "set")
    write_llava(tmp_path / layout, "zh")
    both = make_task(languages=("en", "zh"), source="llava", path="set")
    dataset = open_dataset(both)
    assert [s.id for s in dataset.samples("zh")] == [s.id for s in dataset.samples("en")]


def test_every_word_that_a_judge_reads_changes_the_data_s_hash(task: Task, tmp_path: Path) -> None:
    hashes = {open_dataset(task).sha256}
    path = tmp_path / "set" / "rule.json"
    path.write_text(path.read_text(encoding="utf-8").replace("Rate", "Judge"), encoding="utf-8")
    hashes.add(open_dataset(task).sha256)
    for name, key in (("qa90_questions", "text"), ("qa90_gpt4_answer", "text")):
        rewrite(
            tmp_path / "set" / f"{name}.jsonl", lambda rows, key=key: rows[0].update({key: "x"})
        )  # type: ignore[misc]
        hashes.add(open_dataset(task).sha256)
    assert len(hashes) == 4


def test_fields_that_are_not_needed_are_left_out(task: Task, tmp_path: Path) -> None:
    before = open_dataset(task).sha256
    rewrite(tmp_path / "set" / "qa90_gpt4_answer.jsonl", lambda rows: rows[0].update(model="gpt-4"))
    assert open_dataset(task).sha256 == before


MISTAKES = [
    ("qa90_questions", lambda rows: rows.append(rows[0]), r"qa90_questions\.jsonl:7: '0' is already in"),
    ("qa90_questions", lambda rows: rows.pop(), r"qa90_questions\.jsonl: no line for question_id 5 of"),
    ("qa90_gpt4_answer", lambda rows: rows.pop(), r"qa90_gpt4_answer\.jsonl: no line for question_id 0 of"),
    ("qa90_questions", lambda rows: rows[1].update(image="x.jpg"), r"questions\.jsonl:2: image 'x\.jpg' is not in"),
    ("qa90_questions", lambda rows: rows[1].update(category="deep"), r"jsonl:2: category: .*unknown category 'deep'"),
    ("qa90_questions", lambda rows: rows[1].pop("text"), r"jsonl:2: key 'text' is missing"),
    ("qa90_questions", lambda rows: rows[1].update(text=" "), r"text: is empty"),
    ("qa90_questions", lambda rows: rows[1].update(question_id=True), r"question_id: expected a string, got a boolean"),
    ("qa90_questions", lambda rows: rows.clear(), r"questions\.jsonl: is empty"),
    ("caps_boxes_coco2014_val_80", lambda rows: rows[0]["instances"][0].update(bbox=[1, 2, 3]), r"bbox: expected 4 numbers, got \[1, 2, 3\]"),
    ("caps_boxes_coco2014_val_80", lambda rows: rows[0]["instances"][0].update(bbox=["1", 2, 3, 4]), r"bbox: expected 4 numbers"),
    ("caps_boxes_coco2014_val_80", lambda rows: rows[0].pop("captions"), r"captions \(or caption\): expected a text"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change", "message"), MISTAKES)
def test_a_mistake_in_a_file_is_named(
    name: str,
    change: Callable[[list[dict[str, object]]], object],
    message: str,
    task: Task,
    tmp_path: Path,
) -> None:
    rewrite(tmp_path / "set" / f"{name}.jsonl", change)
    with pytest.raises(UserError, match=message):
        open_dataset(task)


def test_a_missing_or_a_double_file_is_named(task: Task, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    (folder / "rule_en.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match=r"both rule_en\.json and rule\.json are there"):
        open_dataset(task)
    (folder / "rule_en.json").unlink()
    (folder / "rule.json").unlink()
    with pytest.raises(UserError, match=r"none of en/rule_en\.json, en/rule\.json"):
        open_dataset(task)


def test_languages_about_other_pictures_are_not_parallel(
    make_task: MakeTask, tmp_path: Path
) -> None:
    write_llava(tmp_path / "set")
    write_llava(tmp_path / "set", "zh")
    rewrite(
        tmp_path / "set" / "qa90_questions_zh.jsonl",
        lambda rows: rows[0].update(image="000000000002.jpg"),
    )
    with pytest.raises(UserError, match=r"question_id 0 has picture '000000000002\.jpg'"):
        open_dataset(make_task(languages=("en", "zh"), source="llava", path="set"))


def test_a_missing_folder_says_what_to_get_and_where_to_put_it() -> None:
    with pytest.raises(UserError, match=r"no folder .*llava_qa90") as caught:
        open_dataset(load_task("llava_qa90_zh"))
    message = str(caught.value)
    assert "MPM_EVAL_DATA" in message and "https://github.com/OpenBMB/VisCPM" in message


def test_a_folder_is_also_found_in_the_data_folder(
    make_task: MakeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_llava(tmp_path / "elsewhere" / "set")
    monkeypatch.setenv("MPM_EVAL_DATA", str(tmp_path / "elsewhere"))
    task = make_task(languages=("en",), source="llava", path="set")
    assert len(open_dataset(task).samples("en")) == 6


def test_a_hub_data_set_is_read_at_its_commit(
    make_task: MakeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = pytest.importorskip("huggingface_hub")
    asked = []

    def download(repo_id: str, **options: str) -> str:
        asked.append((repo_id, options))
        return str(write_llava(tmp_path / "snapshot"))

    monkeypatch.setattr(hub, "snapshot_download", download)
    task = make_task(languages=("en",), source="llava", id="me/set", revision="a" * 40)
    assert len(open_dataset(task).samples("en")) == 6
    assert asked == [("me/set", {"repo_type": "dataset", "revision": "a" * 40})]
    with pytest.raises(UserError, match=r"revision: give the commit"):
        open_dataset(make_task(languages=("en",), source="llava", id="me/set", revision="main"))
    with pytest.raises(UserError, match=r"give either path .* or id"):
        open_dataset(make_task(languages=("en",), source="llava"))


def test_pictures_are_found_by_either_name_and_in_either_place(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coco = tmp_path / "data" / "coco" / "val2014"
    coco.mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(coco / "COCO_val2014_000000000001.jpg")
    (tmp_path / "set" / "images").mkdir()
    Image.new("RGB", (5, 5)).save(tmp_path / "set" / "images" / "000000000002.jpg")
    monkeypatch.setenv("MPM_EVAL_DATA", str(tmp_path / "data"))
    dataset = open_dataset(task)
    sizes = [dataset.load_image(f"00000000000{i}.jpg").size for i in (1, 2)]
    assert sizes == [(4, 4), (5, 5)]


def test_no_picture_at_all_is_one_clear_error_and_one_missing_a_failed_sample(
    task: Task, tmp_path: Path
) -> None:
    dataset = open_dataset(task)
    with pytest.raises(UserError, match=r"no picture of the set .*val2014\.zip.*MPM_EVAL_DATA"):
        dataset.load_image("000000000001.jpg")
    (tmp_path / "set" / "images").mkdir()
    Image.new("RGB", (5, 5)).save(tmp_path / "set" / "images" / "000000000002.jpg")
    with pytest.raises(CorruptImage, match=r"000000000001\.jpg: no such picture"):
        dataset.load_image("000000000001.jpg")


@pytest.mark.parametrize("name", ["llava_qa90_en", "llava_qa90_zh", "llava_bench_wild"])
def test_a_shipped_judged_task_says_what_it_is(name: str) -> None:
    task = load_task(name)
    assert task.main_metric == "relative_score" and task.groups == ("judged",)
    assert task.licence and task.citation and len(task.languages) == 1


OFFICIAL = Path(
    os.environ.get("MPM_EVAL_LLAVA_QA90")
    or Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "llava_qa90"
).resolve()


@pytest.mark.skipif(not OFFICIAL.is_dir(), reason=f"no official files in {OFFICIAL}")
class TestOfficialFiles:
    @pytest.fixture(autouse=True)
    def data(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MPM_EVAL_DATA", str(OFFICIAL.parent))

    @pytest.mark.parametrize("language", ["en", "zh"])
    def test_they_hold_90_questions_on_30_pictures(self, language: str) -> None:
        samples = open_dataset(load_task(f"llava_qa90_{language}")).samples(language)
        assert [s.id for s in samples] == [str(i) for i in range(90)]
        assert len({s.cluster for s in samples}) == 30
        counts = {c: sum(s.category == c for s in samples) for c in ("conv", "detail", "complex")}
        assert counts == {"conv": 30, "detail": 30, "complex": 30}

    def test_the_translation_is_aligned_one_to_one(self) -> None:
        en, zh = (open_dataset(load_task(f"llava_qa90_{tag}")).samples(tag) for tag in ("en", "zh"))
        for one, other in zip(en, zh, strict=True):
            assert (one.id, one.image, one.category) == (other.id, other.image, other.category)
            assert one.brief and other.brief
            boxes = [s.brief.context.partition("\n\n")[2].count("\n") for s in (one, other)]  # type: ignore[union-attr]
            assert boxes[0] == boxes[1]

    @pytest.mark.parametrize("language", ["en", "zh"])
    def test_every_prompt_is_the_one_that_llava_s_script_writes(self, language: str) -> None:
        # llava/eval/eval_gpt_review_visual.py, on the raw files and by line order as it does
        suffix = "" if language == "en" else f"_{language}"

        def lines(name: str) -> list[dict[str, object]]:
            text = (OFFICIAL / language / f"{name}{suffix}.jsonl").read_text(encoding="utf-8")
            return [json.loads(line) for line in text.split("\n") if line]

        contexts = {c["image"]: c for c in lines("caps_boxes_coco2014_val_80")}
        rule_text = (OFFICIAL / language / f"rule{suffix}.json").read_text(encoding="utf-8")
        rules = json.loads(rule_text)
        samples = open_dataset(load_task(f"llava_qa90_{language}")).samples(language)
        judging = Judging("j", {}, "llava", 1)
        rows = zip(lines("qa90_questions"), lines("qa90_gpt4_answer"), samples, strict=True)
        for question, answer, sample in rows:
            inst, rule = contexts[question["image"]], rules[question["category"]]
            captions = "\n".join(inst["captions"])  # type: ignore[arg-type]
            boxes = "\n".join(f"{i['category']}: {i['bbox']}" for i in inst["instances"])  # type: ignore[attr-defined]
            content = (
                f"[Context]\n{captions}\n\n{boxes}\n\n"
                f"[Question]\n{question['text']}\n\n"
                f"[{rule['role']} 1]\n{answer['text']}\n\n[End of {rule['role']} 1]\n\n"
                f"[{rule['role']} 2]\nmine\n\n[End of {rule['role']} 2]\n\n"
                f"[System]\n{rule['prompt']}\n\n"
            )
            (request,) = judge_requests(judging, sample, "mine")
            assert request.prompt == content
