"""Training data for real scale: pictures and texts streamed from the hub, tables, lines or tars."""

from training.streams.config import StreamConfig, StreamSample
from training.streams.stream import Stream

__all__ = ["Stream", "StreamConfig", "StreamSample"]
