"""Interchange: sample logs of other programs become run folders, run folders become their files."""
