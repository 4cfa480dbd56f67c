"""Train a model to see in English, then measure what it can do in every other language."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpm_eval.results import load_results

__all__ = ["__version__", "load_results"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "load_results":
        from mpm_eval.results import load_results

        return load_results
    raise AttributeError(f"module 'mpm_eval' has no attribute '{name}'")
