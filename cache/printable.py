"""Text of strangers, made safe to show."""

from __future__ import annotations


def printable(text: object) -> str:
    r"""The text with everything escaped that is no plain character: a terminal obeys some of them.

    >>> printable("a\x1b[2Jb\n")
    'a\\x1b[2Jb\\n'
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode("ascii")
        for c in str(text)
    )
