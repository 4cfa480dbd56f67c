"""The folder of a training run: finished, begun, or another recipe's; and who trained in it."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mpm_eval import __version__
from mpm_eval.errors import UserError
from mpm_eval.strict import read_json

_PACKAGES = ("torch", "tokenizers", "numpy", "transformers", "accelerate", "peft", "diffusers")


def is_finished(out: Path, recipe_sha256: str) -> bool:
    """Return whether the recipe's checkpoint is there; UserError when another recipe's is."""
    if not (out / "model.safetensors").is_file():
        return False
    if read_json(out / "config.json").get("recipe_sha256") != recipe_sha256:
        raise UserError(f"{out}: holds a checkpoint of another recipe; give another --out")
    return True


def open_work(out: Path) -> Path:
    """Return the folder of what a run needs until it is finished; UserError when it cannot be."""
    work = out / "work"
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{out}: cannot be created ({error.strerror}); give another --out"
        ) from None
    return work


def versions() -> dict[str, str]:
    """Return the versions of what decides weights, of the packages that are installed."""
    found = {"mpm-eval": __version__}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
