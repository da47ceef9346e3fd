"""Where text goes: data to stdout, everything else to stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TextIO


class Console:
    """Both output streams of the process and what may be written to them.

    `quiet` leaves only data and errors. Colour is used on terminals unless NO_COLOR is set to anything or
    TERM is `dumb`; it never carries meaning alone.
    """

    def __init__(
        self,
        out: TextIO,
        err: TextIO,
        *,
        quiet: bool = False,
        json: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        environment = os.environ if environment is None else environment
        plain = bool(environment.get("NO_COLOR")) or environment.get("TERM") == "dumb"
        self.out = out
        self.err = err
        self.quiet = quiet
        self.json = json
        self.colour_out = not plain and out.isatty()
        self.colour_err = not plain and err.isatty()

    def data(self, text: str) -> None:
        """Print data, with an end of line when it has none."""
        self.out.write(text if text.endswith("\n") or not text else text + "\n")
        self.out.flush()

    def document(self, value: object) -> None:
        """Print data as JSON."""
        self.data(json.dumps(value, indent=2, ensure_ascii=False))

    def say(self, text: str) -> None:
        """Tell the user something that is no data."""
        if not self.quiet:
            self.err.write(text + "\n")
            self.err.flush()

    def complain(self, text: str) -> None:
        """Tell the user what went wrong, quiet or not."""
        self.err.write(text + "\n")
        self.err.flush()


def standard_console(*, quiet: bool = False, json: bool = False) -> Console:
    """The console on this process's own streams; a character they cannot encode is escaped.

    A stream that was closed when we started becomes /dev/null, so that no file we open takes its place and
    is handed to a command as its stdin or stdout.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    return Console(_or_nowhere(sys.stdout, 1), _or_nowhere(sys.stderr, 2), quiet=quiet, json=json)


def settle(console: Console) -> None:
    """Write out what is left. Where that fails, later flushes (the interpreter's own) will not."""
    for stream in (console.out, console.err):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _or_nowhere(stream: TextIO | None, descriptor: int) -> TextIO:
    return stream if stream is not None else open(descriptor, "w", closefd=False)


def columns(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows as text in aligned columns, two spaces apart, no trailing space."""
    if not rows:
        return ""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
