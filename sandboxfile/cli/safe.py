"""Text that a program wrote, made safe to show on a terminal.

A build step could move the cursor, change the title, or write into the user's clipboard by escape
sequences. None of them reaches the terminal: sequences are taken out, other control characters are shown
as U+FFFD.
"""

from __future__ import annotations

import re

_SEQUENCE = (
    r"(?s:"
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|\x1b[\]PX^_].*?(?:\x07|\x1b\\|\x9c|$)"  # OSC, DCS, SOS, PM, APC up to their end
    r"|\x9b[0-?]*[ -/]*[@-~]"
    r"|\x1b[ -/]*[0-~])"
)
_CONTROL = (
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f"
    r"\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]"  # also what reorders or breaks lines
)
LONGEST_LINE = 4096


def safe(text: str) -> str:
    """One line of text, or several, without anything that a terminal would obey."""
    return re.sub(_CONTROL, "\ufffd", re.sub(_SEQUENCE, "", text))


def safe_line(text: str) -> str:
    """One line as a terminal would show it in the end: what follows the last carriage return."""
    text = text.rstrip("\r")
    return safe(text.rpartition("\r")[2]).expandtabs()


class LineAssembler:
    """Makes whole safe lines of pieces of output, which may end anywhere."""

    def __init__(self) -> None:
        self._rest = ""

    def feed(self, text: str) -> list[str]:
        """Take a piece; the lines it completes."""
        *whole, self._rest = (self._rest + text).split("\n")
        if len(self._rest) > LONGEST_LINE:
            # A program that never ends its line must not fill the memory.
            whole.append(self._rest)
            self._rest = ""
        return [safe_line(line) for line in whole]

    def finish(self) -> list[str]:
        """The last line, when it had no end."""
        rest, self._rest = self._rest, ""
        return [safe_line(rest)] if rest else []

    @property
    def partial(self) -> str:
        """What there is of the line that has not ended."""
        return safe_line(self._rest)
