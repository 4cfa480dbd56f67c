"""Scores of pictures: Fréchet and kernel distances, CLIP-score, and what looks at the pictures.

Import the module you need: each loads numpy, and torch only when a network is opened.
"""
