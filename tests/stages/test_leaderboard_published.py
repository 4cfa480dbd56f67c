"""Published results: strictly read, cited, beside the task they belong to, never ranked."""

import json
from pathlib import Path

import pytest

from mpm_eval.errors import UserError
from mpm_eval.resources import shipped
from mpm_eval.stages.leaderboard import Selection, write_leaderboard
from mpm_eval.stages.leaderboard.published import list_published, load_published
from mpm_eval.tasks import list_tasks
from tests.stages.leaderboard_runs import add, score

TABLE = """
title = "A table"
metric = "relative_score"
higher_is_better = true
protocol = "judged"
citation = "Somebody 2023"
url = "https://example.org/paper"
columns = ["all"]

[[systems]]
name = "One"
values.en = { all = 70.5 }
"""


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "results" / "runs"


def judged(runs: Path, task: str, language: str) -> None:
    one = score(language, 61.0, metric="relative_score", signature="relative_score|judge:x|v:1")
    add(runs, "x", one, task=task)


def board(runs: Path, published: bool = False) -> str:
    path = write_leaderboard(runs, runs.parent, Selection(), published=published)[0]
    return path.read_text(encoding="utf-8")


def test_the_shipped_tables_load_and_name_tasks_that_exist() -> None:
    tables = {table.name: table for table in list_published()}
    assert set(tables) == {"coco_30k", "llava_qa90"}
    names = {task.name: task for task in list_tasks()}
    for table in tables.values():
        for language, task in table.tasks.items():
            assert language in names[task].languages
            assert names[task].main_metric == table.metric


def test_published_tables_are_no_tasks() -> None:
    assert not {path.stem for path in (shipped("tasks") / "published").glob("*.toml")} & {
        task.name for task in list_tasks()
    }


def test_the_averages_fit_their_columns_but_for_the_value_in_doubt() -> None:
    # pooled ratios lie within 0.3 of the mean of the three categories
    table = load_published(shipped("tasks") / "published" / "llava_qa90.toml")
    far = [
        f"{system.name}.{tag}"
        for system in table.systems
        for tag, row in system.values.items()
        if abs(sum(row[c] for c in ("conversation", "detail", "complex")) / 3 - row["average"])
        > 0.4
    ]
    doubtful = [s.name + "." + cell.split(".")[0] for s in table.systems for cell in s.doubtful]
    assert far == doubtful == ["Qwen-VL.en"]
    assert sum(len(system.values) for system in table.systems) == 17


def test_a_table_stands_below_the_measured_one_of_its_task_in_its_language(runs: Path) -> None:
    judged(runs, "llava_qa90_zh", "zh")
    text = board(runs)
    assert text.index("| m | 61.0") < text.index("### Published, not comparable")
    block = text[text.index("### Published") :]
    assert "| system | zh conversation | zh detail | zh complex | zh average |" in block
    assert "| VisCPM-Chat-v1.1 (CPM-Bee-10B) | 91.3 | 90.7 | 95.4 | 92.5 |" in block
    assert "MiniGPT4" not in block  # English only
    assert "arXiv 2308.12038" in block and "<https://github.com/OpenBMB/VisCPM>" in block
    assert "rank" not in block.split("|---")[0].split("| system")[1]


def test_a_published_system_gets_no_rank_and_no_row_of_data(runs: Path) -> None:
    judged(runs, "llava_qa90_en", "en")
    board(runs)
    content = json.loads((runs.parent / "leaderboard.json").read_text())
    assert {row["model"] for row in content["rows"]} == {"m"}
    assert [table["name"] for table in content["published"]] == ["llava_qa90"]
    assert "Qwen" not in (runs.parent / "leaderboard.csv").read_text()


def test_a_value_in_doubt_is_marked_and_explained(runs: Path) -> None:
    judged(runs, "llava_qa90_en", "en")
    text = board(runs)
    assert "| Qwen-VL (Qwen-7B) | 82.4 | 72.6 (!) | 91.9 | 83.8 |" in text
    assert "- (!) Very likely a typo in the source" in text


def test_other_tasks_have_none_unless_they_are_asked_for(runs: Path) -> None:
    add(runs, "x")
    assert "Published" not in board(runs)
    text = board(runs, published=True)
    assert "## Published, not comparable: Zero-shot FID" in text
    assert "## Published, not comparable: LLaVA test set" in text
    assert "lower is better" in text and "| GLIDE | 12.2 | – |" in text
    assert "--published`" in text


def test_a_table_shown_beside_all_of_its_tasks_is_not_shown_again(runs: Path) -> None:
    judged(runs, "llava_qa90_en", "en")
    judged(runs, "llava_qa90_zh", "zh")
    text = board(runs, published=True)
    assert text.count("VisCPM-Chat-v1.1") == 2
    assert "## Published, not comparable: LLaVA" not in text


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("protocol =", "protocoll =", "unknown key 'protocoll'; did you mean 'protocol'?"),
        ('citation = "Somebody 2023"', 'citation = ""', "citation, url: say where the numbers are from"),
        ("https://", "javascript://", "citation, url: say where the numbers are from"),
        ("values.en", "values.xx", "systems[0].values: unknown language 'xx'"),
        ("{ all =", "{ al =", "systems[0].values.en: unknown column 'al'; did you mean 'all'?"),
        ("70.5", '"70.5"', "systems: expected a number"),
        ('name = "One"', 'name = "One"\ndoubtful = ["en.al"]', "systems[0].doubtful: unknown value 'en.al'"),
        ('title = "A table"', 'title = "A table"\nname = "x"', "key 'name' is the file's name; remove it"),
        ("[[systems]]", '[tasks]\nxx = "t"\n[[systems]]', "tasks: unknown language 'xx'"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_table_names_file_and_field(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in TABLE
    path = tmp_path / "table.toml"
    path.write_text(TABLE.replace(old, new), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_published(path)
    where, what = f"{path}: ", str(caught.value)
    assert what.startswith(where)
    head, _, tail = message.partition(": ")
    assert head in what and tail in what
