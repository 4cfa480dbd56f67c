"""The commands: each module parses a few of them, calls one function each, and prints."""
