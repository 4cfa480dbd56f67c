"""The command line as a stranger meets it: exit codes, messages, last lines."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Command, write_task

pytestmark = pytest.mark.slow  # every test is a process or more

HEAVY = (
    "torch",
    "transformers",
    "pandas",
    "numpy",
    "sacrebleu",
    "scipy",
    "pyarrow",
    "datasets",
    "PIL",
)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom mpm_eval import cli\nsys.argv = ['mpm-eval', '--help']\n"
        "try:\n    cli.main()\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "leaderboard" in done.stdout


RUNS = Path(__file__).resolve().parents[1] / "results" / "runs"


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ("compare", RUNS / "tiny-seed1", RUNS / "tiny-seed2", "--json"),
        ("gate", "--baseline", RUNS / "tiny-seed1", "--candidate", RUNS / "tiny-seed2", "--json"),
    ],
    ids=["compare", "gate"],
)
def test_reading_results_imports_nothing_heavy(arguments: tuple[str | Path, ...]) -> None:
    heavy = ("torch", "transformers", "pandas", "matplotlib", "jinja2", "sacrebleu")
    code = (
        f"import sys\nfrom mpm_eval import cli\nsys.argv = {['mpm-eval', *map(str, arguments)]!r}\n"
        "try:\n    cli.main()\nexcept SystemExit as end:\n    assert end.code in (0, 1, 3), end.code\n"
        f"print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip().endswith("[]")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "--task", "trasfer", "--model", "echo"), "unknown task 'trasfer'; did you mean 'transfer'?"),
        (("run", "--model", "echo"), "--task: give at least one task"),
        (("run", "--task", "transfer_de", "--model", "mpm-tinny"), "unknown model 'mpm-tinny'; did you mean 'mpm-tiny'?"),
        (("run", "--task", "transfer_de", "--model", "echo:rong"), "unknown rule 'rong'"),
        (("run", "--task", "transfer_de", "--model", "echo", "--languages", "xx"), "unknown language 'xx'"),
        (("run", "--task", "transfer_de", "--model", "echo", "--languages", "zh"), "task 'transfer_de': unknown language 'zh'"),
        (("run", "--task", "transfer_de", "--model", "echo", "--languages", "zh,core"), "task 'transfer_de': unknown language 'zh'"),
        (("run", "--task", "transfer_de", "--model", "echo", "--limit", "0"), "--limit: must be at least 1"),
        (("run", "--task", "none.toml", "--model", "echo"), "none.toml: no such file"),
        (("score",), "give either a run folder or --predictions"),
        (("score", "nowhere"), "nowhere: not a run folder"),
        (("score", "run", "--task", "x"), "--task: goes with --predictions; leave it out for a run folder"),
        (("score", "--predictions", "x.jsonl"), "--predictions: say which task they answer with --task"),
        (("list",), "Missing argument"),
        (("list", "taks"), "unknown list 'taks'; did you mean 'tasks'?"),
        (("train", "tinny"), "unknown recipe 'tinny'; did you mean 'tiny'?"),
        (("schema", "resolt"), "unknown schema 'resolt'"),
        (("run", "--tusk", "x"), "No such option: --tusk"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_exit_2(
    mpm_eval: Command, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = mpm_eval(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == "" and not list(tmp_path.iterdir())


def test_no_command_shows_the_commands(mpm_eval: Command) -> None:
    done = mpm_eval()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: ") and "  leaderboard " in done.stderr


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("version", "verzion", "small.toml: unknown key 'verzion'; did you mean 'version'?"),
        ('de = "Was ist das?"', "", "small.toml: prompts.de: is missing"),
        ('"generate"', '"generat"', "small.toml: kind: unknown kind 'generat'"),
        ('["exact_match"]', '["exactmatch"]', "unknown metric 'exactmatch'; did you mean 'exact_match'?"),
        ('source = "jsonl"', 'source = "json"', "data.source: unknown"),
        ('"en", "de"', '"en", "dee"', "unknown language 'dee'"),
        ("What is this?", "What is {thing}?", "unknown placeholder {thing}; only {question}"),
        ('main_metric = "exact_match"', 'main_metric = "chrf"', "main_metric: unknown"),
        ("version = 1", "version = 0", "version: must be at least 1, got 0"),
        ('path = "pictures"', 'path = "photos"', "photos"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_task_file_names_file_and_field(
    mpm_eval: Command, tmp_path: Path, old: str, new: str, message: str
) -> None:
    task = write_task(tmp_path, number=2)
    text = task.read_text()
    assert old in text
    task.write_text(text.replace(old, new))
    done = mpm_eval("run", "--task", task, "--model", "echo", "--out", "run")
    assert done.returncode == 2
    assert message in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_folder_without_weights_is_not_a_checkpoint(mpm_eval: Command, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = mpm_eval("run", "--task", "transfer_de", "--model", "empty")
    assert done.returncode == 2
    assert "empty is not a checkpoint: config.json is missing" in done.stderr


def test_a_card_without_a_checkpoint_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mpm_eval import cards
    from mpm_eval.errors import UserError

    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "README.md").write_text("---\nlicense: mit\nlanguage: [en]\n---\ntext\n")
    monkeypatch.setattr(cards, "shipped", lambda kind: tmp_path)
    with pytest.raises(
        UserError, match=r"mpm_eval\.checkpoint: \S+ is not a checkpoint: config\.json"
    ):
        cards.load_card("bare")
    (tmp_path / "bare" / "README.md").write_text("---\nmpm_eval: {backend: [}\n---\n")
    with pytest.raises(UserError, match="front matter is not valid YAML"):
        cards.load_card("bare")
    (tmp_path / "bare" / "README.md").write_text(
        "---\nlicense: mit\nlanguage: [en]\nmpm_eval: {chekpoint: x}\n---\n"
    )
    with pytest.raises(UserError, match="unknown key 'chekpoint'; did you mean 'checkpoint'"):
        cards.load_card("bare")


@pytest.mark.slow
def test_the_last_line_is_the_run_folder_and_json_is_nothing_but_json(
    mpm_eval: Command, tmp_path: Path
) -> None:
    task = write_task(tmp_path, kind="choose")
    done = mpm_eval("run", "--task", task, "--model", "echo:half")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "results/runs/echo-half"
    again = mpm_eval("run", "--task", task, "--model", "echo:half", "--json")
    (result,) = json.loads(again.stdout)
    assert result["task"]["name"] == "small" and result["num_samples"] == 24


@pytest.mark.slow
def test_a_group_of_languages_means_those_that_the_task_has(mpm_eval: Command) -> None:
    done = mpm_eval("run", "--task", "transfer_de", "--model", "echo", "--limit", "2",
                    "--languages", "core", "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)
    assert {score["language"] for score in result["scores"]} == {"en", "de"}


@pytest.mark.slow
def test_scoring_again_writes_the_same_bytes(mpm_eval: Command, tmp_path: Path) -> None:
    task = write_task(tmp_path, kind="choose")
    mpm_eval("run", "--task", task, "--model", "echo:half", "--out", "run")
    path = tmp_path / "run" / "small" / "result.json"
    before = path.read_bytes()
    path.unlink()
    assert mpm_eval("score", "run").returncode == 0
    assert path.read_bytes() == before


@pytest.mark.slow
def test_from_run_to_leaderboard_and_a_limited_run_stays_out(
    mpm_eval: Command, tmp_path: Path
) -> None:
    task = write_task(tmp_path)
    mpm_eval("run", "--task", task, "--model", "echo:pivot")
    mpm_eval("run", "--task", task, "--model", "echo", "--limit", "3")
    done = mpm_eval("leaderboard")
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "results" / "leaderboard.md").read_text(encoding="utf-8")
    assert "| echo-pivot | 100.0" in table
    assert "| echo |" not in table
    names = {path.name for path in (tmp_path / "results").iterdir()}
    assert {"leaderboard.md", "leaderboard.csv", "leaderboard.json"} <= names
    shutil.rmtree(tmp_path / "results" / "runs")
    assert mpm_eval("leaderboard").returncode == 2


@pytest.mark.parametrize("what", ["tasks", "models", "metrics", "languages"])
def test_every_list_is_also_json(mpm_eval: Command, what: str) -> None:
    done = mpm_eval("list", what, "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)) >= 2


STUB = """
import sys, types
from pathlib import Path
stub = types.ModuleType("training.interface")
def train(recipe, out, overrides, report):
    report("align", 1, 2, float("nan"), float("nan"))
    report("align", 2, 2, 0.5, 10.0)
    {end}
stub.train = train
sys.modules["training"] = types.ModuleType("training")
sys.modules["training.interface"] = stub
from mpm_eval import cli
sys.argv = ["mpm-eval", "train", "tiny", "--out", "here", "--set", "seed=1", "--set", "a=b"]
cli.main()
"""


@pytest.mark.parametrize(
    ("end", "code", "stdout", "stderr"),
    [
        ("return out", 0, "here\n", ""),
        ("raise KeyboardInterrupt", 130, "", "stopped; the same command continues\n"),
        ("print(*overrides); return out", 0, "seed=1 a=b\nhere\n", ""),
    ],
)
def test_training_ends_with_the_folder_or_with_one_line(
    end: str, code: int, stdout: str, stderr: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STUB.format(end=end)], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, stdout, stderr)
