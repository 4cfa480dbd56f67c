"""`python -m mpm_eval` is the command `mpm-eval`."""

from mpm_eval.cli import main

main()
