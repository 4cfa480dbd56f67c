"""Published benchmarks, read from their official files as they are."""
