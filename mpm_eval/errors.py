"""The one exception class meant for users: one line on stderr and exit code 2."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can mend; the message says where, what was wrong and what to do."""


class CorruptImage(Exception):
    """A picture that cannot be decoded: its sample is counted as failed, the run goes on."""


def unknown(what: str, got: str, known: Iterable[str], where: str = "") -> UserError:
    """Return the error for a name that is not in a closed set, with the nearest known name."""
    names = sorted(known)
    near = difflib.get_close_matches(got, names, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    shown = ", ".join(names)
    if len(names) > 40:  # sample ids: the whole list would bury the message
        shown = f"{', '.join(names[:5])}, … ({len(names)} in all)"
    prefix = f"{where}: " if where else ""
    return UserError(f"{prefix}unknown {what} '{got}'; {hint}known: {shown or 'none'}")


class Interrupted(Exception):
    """Ctrl-C between two batches: everything answered so far is on the disk."""
