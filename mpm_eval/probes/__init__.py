"""Alignment probes: pure functions of hidden states. Row i of x and row i of y mean the same.

Values are shares or ratios; the stages turn them into percent. Shapes: N texts, D dimension,
K neighbours or ranks, M subsets (the first holds every text), P random pairings.
"""
