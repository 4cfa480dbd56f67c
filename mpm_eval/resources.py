"""Where shipped files lie: beside the package in a checkout, inside it in a wheel."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def shipped(kind: str) -> Path:
    """Return the folder of shipped files of one kind: "tasks", "model_cards" or "recipes"."""
    installed = _PACKAGE / "_shipped" / kind
    if installed.is_dir():
        return installed
    checkout = _PACKAGE.parent
    return checkout / "training" / "recipes" if kind == "recipes" else checkout / kind
