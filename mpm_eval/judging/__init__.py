"""Judges: what they are asked, how their replies are read, and how far to trust them."""

from mpm_eval.judging.parse import parse_scores

__all__ = ["parse_scores"]
