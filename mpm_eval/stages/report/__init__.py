"""Report: one HTML file of runs: scores, plots, samples side by side, provenance; opens offline."""

from mpm_eval.stages.report.render import write_report

__all__ = ["write_report"]
