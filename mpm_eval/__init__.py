"""Train a model to see in English, then measure what it can do in every other language."""

__version__ = "0.1.0"
