"""Keeps transformers quiet while it opens files that this package has checked itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def quiet() -> Iterator[None]:
    """Keep back the report on weights that are not read, and the progress bar of a few seconds."""
    from transformers import utils

    logging: Any = utils.logging  # has no annotations
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
