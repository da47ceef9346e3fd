"""How much a command may write."""

from __future__ import annotations

from sandboxfile.engine.base import Output

KILLED = 137
"""The exit code of a command that was ended."""


class TooMuchOutput(Exception):
    """A command has written more than it may."""


def capped(output: Output, most: int | None) -> Output:
    """Pass on at most that many bytes; what is beyond them raises TooMuchOutput."""
    if most is None:
        return output
    left = most

    def take(stream: str, data: bytes) -> None:
        nonlocal left
        if left > 0 and data:
            output(stream, data[:left])
        left -= len(data)
        if left < 0:
            raise TooMuchOutput

    return take
