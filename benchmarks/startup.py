"""Time `mpm-eval --help` against a Typer program that does nothing, and print the ratio.

    python benchmarks/startup.py [RUNS]

Cost: RUNS (20) times two processes of about 0.1 to 0.3 s. Expected: a ratio below 1.5; both
print plain help, without rich.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
BARE = """\
import typer

app = typer.Typer(rich_markup_mode=None)


@app.command()
def run() -> None: ...


app()
"""
MPM_EVAL = "from mpm_eval.cli import main\nmain()\n"


def seconds(program: Path) -> float:
    """Return how long `program --help` takes, as a process of its own."""
    began = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    subprocess.run(
        [sys.executable, str(program), "--help"],
        check=True,
        stdout=subprocess.DEVNULL,
        env=environment,
    )
    return time.perf_counter() - began


def main() -> None:
    """Alternate the two programs, so that a busy machine slows both, and print the medians."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    with tempfile.TemporaryDirectory() as name:
        bare, ours = Path(name) / "bare.py", Path(name) / "mpm_eval_help.py"
        bare.write_text(BARE, encoding="utf-8")
        ours.write_text(MPM_EVAL, encoding="utf-8")
        for program in (bare, ours):
            seconds(program)  # the first start reads from the disk
        pairs = [(seconds(bare), seconds(ours)) for _ in range(runs)]
    base, own = (statistics.median(times) for times in zip(*pairs, strict=True))
    print(f"bare Typer program --help   {base:.3f} s  (median of {runs})")
    print(f"mpm-eval --help             {own:.3f} s  (median of {runs})")
    print(f"ratio                       {own / base:.2f}")


if __name__ == "__main__":
    main()
