"""Leaderboard: the results of a runs folder side by side, ranked; reads results only."""

from mpm_eval.stages.leaderboard.collect import Entry, Selection, collect
from mpm_eval.stages.leaderboard.markdown import escape
from mpm_eval.stages.leaderboard.write import DEFAULT_FORMATS, FORMATS, write_leaderboard

__all__ = [
    "DEFAULT_FORMATS",
    "FORMATS",
    "Entry",
    "Selection",
    "collect",
    "escape",
    "write_leaderboard",
]
