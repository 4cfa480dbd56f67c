"""Where and with what a run was made: package versions and sessions."""

import platform
import resource
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mpm_eval.strict import read_json, write_json


def package_version(package: str) -> str:
    """Return the installed version of a package, "" when it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def add_session(path: Path, started: float, num_new: int, device: str) -> None:
    """Add to environment.json when, where and how fast this process answered, and its memory."""
    finished = time.time()
    old = read_json(path) if path.exists() else {}
    sessions = old.get("sessions", []) if isinstance(old, dict) else []
    session = {
        "started": _iso(started),
        "finished": _iso(finished),
        "duration_s": round(finished - started, 3),
        "num_new": num_new,  # predictions, or files of hidden states
        "per_s": round(num_new / max(finished - started, 1e-9), 2),
        "host": platform.node(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "device": device,
        "peak_memory_mib": _peak_memory_mib(device),
    }
    if "torch" in sys.modules:
        session["torch"] = package_version("torch")
    write_json(path, {"schema_version": 1, "sessions": [*sessions, session]})


def _peak_memory_mib(device: str) -> float:
    """Return the most memory this process ever held: of the GPU where it answered on one."""
    torch = sys.modules.get("torch")
    if torch is not None and device.startswith("cuda") and torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)  # bytes there, else KiB


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
