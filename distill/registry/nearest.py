"""What somebody may have meant who misspelt a name."""

from collections.abc import Iterable
from difflib import get_close_matches

MANY = 50
"""More names than this are not listed in a message."""


def did_you_mean(name: str, valid: Iterable[str], others: Iterable[str] = ()) -> str:
    """The second half of every "unknown name" message: the nearest valid name, then all of them if they are not many.

    Args:
        name: what was asked for.
        valid: the names to list.
        others: valid too, but not listed.
    """
    valid = list(valid)
    close = get_close_matches(name, dict.fromkeys([*valid, *others]), n=5, cutoff=0.6)
    if len(valid) <= MANY:
        hint = f" Did you mean '{close[0]}'?" if close else ""
        return f"'{name}'.{hint} There are: {', '.join(valid)}"
    nearest = close or get_close_matches(name, valid, n=5, cutoff=0)
    quoted = ", ".join(f"'{one}'" for one in nearest)
    return f"'{name}'. Did you mean {quoted}?" if close else f"'{name}'. The nearest of {len(valid)} are {quoted}"
