"""What `mpm-eval list` shows: tasks, models, metrics, languages."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpm_eval.metrics import PaintMetric, ProbeMetric

LISTS = ("tasks", "models", "metrics", "languages")


def rows(what: str) -> list[dict[str, Any]]:
    """Return one row per known thing of one kind in LISTS."""
    listed: list[dict[str, Any]] = {
        "tasks": _tasks,
        "models": _models,
        "metrics": _metrics,
        "languages": _languages,
    }[what]()
    return listed


def _tasks() -> list[dict[str, Any]]:
    from mpm_eval.data._local import missing
    from mpm_eval.tasks import list_tasks

    return [
        {
            "task": task.name,
            "groups": list(task.groups),
            "kind": task.kind,
            "languages": list(task.languages),
            "main metric": task.main_metric,
            "ready offline": f"needs {lacks}" if (lacks := missing(task)) else "yes",
            "what it measures": " ".join(task.description.split()),
        }
        for task in list_tasks()
    ]


def _models() -> list[dict[str, Any]]:
    from mpm_eval.backends import BACKENDS
    from mpm_eval.cards import list_cards

    cards = [
        {"model": card.name, "kind": "model card", "languages": list(card.languages),
         "what it is": card.description}
        for card in list_cards()
    ]  # fmt: skip
    specs = {
        "echo": "repeats the reference; echo:wrong, echo:half, echo:pivot, echo:slow; "
        "echo:noise and echo:real paint",
        "checkpoint": "checkpoint:DIR, or just DIR: a folder written by mpm-eval train",
        "paint": "paint:DIR?steps=50&guidance=2&rerank=4: a painter, told how to paint",
        "hf": "hf:DIR or hf:OWNER/NAME@REVISION: any vision-language or causal model",
        "openai": "openai:BASE_URL#MODEL: any OpenAI-compatible chat endpoint; generates only",
    }
    backends = [
        {"model": name, "kind": "backend", "languages": [], "what it is": specs.get(name, "")}
        for name in BACKENDS
    ]
    return cards + backends


def _metrics() -> list[dict[str, Any]]:
    from mpm_eval.metrics import METRICS, PAINT_METRICS, PROBE_METRICS, load_metric

    listed = []
    for name in METRICS:
        metric = load_metric(name)
        low, high = metric.range
        listed.append(
            {
                "metric": name,
                "kinds": sorted(metric.kinds),
                "range": f"{low:g} to {high:g}",
                "better": "higher" if metric.higher_is_better else "lower",
                "what it counts": (type(metric).__doc__ or "").strip().split("\n")[0],
            }
        )
    computed: dict[str, Mapping[str, ProbeMetric | PaintMetric]] = {
        "probe": PROBE_METRICS,
        "paint": PAINT_METRICS,
    }
    for kind, metrics in computed.items():
        for name, known in metrics.items():
            low, high = known.range
            better = "higher" if known.higher_is_better else "lower"
            listed.append(
                {
                    "metric": name,
                    "kinds": [kind],
                    "range": f"{low:g} to {high:g}",
                    "better": "-" if name.endswith("_floor") else better,
                    "what it counts": known.what,
                }
            )
    return listed


def _languages() -> list[dict[str, Any]]:
    from mpm_eval.languages import GROUPS, LANGUAGES

    return [
        {
            "language": tag,
            "name": english,
            "own name": own,
            "groups": [group for group, members in GROUPS.items() if tag in members],
        }
        for tag, (english, own) in LANGUAGES.items()
    ]
