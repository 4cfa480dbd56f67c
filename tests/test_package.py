"""The wheel: everything shipped is found from an installed package, far from the checkout."""

import json
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_the_installed_wheel_finds_its_tasks_cards_data_and_checkpoint(tmp_path: Path) -> None:
    wheel_folder, environment, elsewhere = tmp_path / "wheel", tmp_path / "venv", tmp_path / "else"
    elsewhere.mkdir()
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", wheel_folder, "."],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
    )
    (wheel,) = wheel_folder.glob("*.whl")
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    # Dependencies come from this environment by path: the test is about the wheel, not about pip.
    site = Path(
        subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
    )
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel], check=True
    )
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def mpm_eval(*arguments: str) -> str:
        done = subprocess.run(
            [environment / "bin" / "mpm-eval", *arguments],
            cwd=elsewhere,
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = subprocess.run(
        [python, "-c", "import mpm_eval; print(mpm_eval.__file__)"],
        cwd=elsewhere,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert str(environment) in where, "the wheel's package must come before the checkout's"
    assert "mpm-tiny" in mpm_eval("list", "models")
    assert "emoji_choice" in mpm_eval("list", "tasks")
    (result,) = json.loads(
        mpm_eval("run", "--task", "transfer_de", "--limit", "4", "--out", "run", "--json")
    )
    assert result["limit"] == 4 and (elsewhere / "run" / "transfer_de" / "result.json").is_file()
