"""Running one command of a build: its log, its events, its last words, and why it failed."""

from __future__ import annotations

import re
from collections import deque
from pathlib import Path
from typing import Protocol

from sandboxfile.build.redact import Redactor
from sandboxfile.core.event import Reporter, TaskOutput
from sandboxfile.engine.base import Command, Completed, Output

TAIL_LINES = 20
LOG_LIMIT = 64 * 1024 * 1024
"""Bytes of output kept for a layer; what comes after is counted, not kept."""

_WANT_OF_NETWORK = re.compile(
    r"Temporary failure (in name resolution|resolving)|Could not resolve (host|')|Network is unreachable"
    r"|Name or service not known|No address associated with hostname|getaddrinfo|EAI_AGAIN|ENETUNREACH"
    r"|nodename nor servname|Failed to establish a new connection|dns error|bad address '"
    r"|unable to resolve host address|ENOTFOUND|no such host",
    re.IGNORECASE,
)


class Executes(Protocol):
    """A workspace or a sandbox."""

    async def execute(self, command: Command, output: Output, *, stdin: bytes = b"") -> Completed:
        """Run a command and wait for it."""
        ...


class Log:
    """The full output of a layer's commands, kept in a file, and its last lines.

    Written beside its place and moved there by `close`, so that a log is never half a log. Secrets never
    reach it: everything passes a Redactor first.
    """

    def __init__(self, path: Path, task: str, reporter: Reporter, secrets: tuple[bytes, ...] = ()) -> None:
        self._path = path
        self._part = path.with_name(path.name + ".part")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._part.open("wb")
        self._task = task
        self._reporter = reporter
        self._redactors = {stream: Redactor(secrets) for stream in ("stdout", "stderr")}
        self._lines: deque[str] = deque(maxlen=TAIL_LINES)
        self._open_line = ""
        self._written = 0
        self.wants_network = False
        self.wants_space = False

    def output(self, stream: str, data: bytes) -> None:
        """Take a piece of output (an engine's `Output` callback)."""
        self._take(self._redactors[stream].feed(data))

    def note(self, text: str) -> None:
        """Write a line of our own (`$ dpkg --configure -a`) to the log only."""
        self._file.write(text.encode() + b"\n")

    def tail(self) -> tuple[str, ...]:
        """The last lines, without their ends."""
        lines = [*self._lines, self._open_line] if self._open_line.strip() else list(self._lines)
        return tuple(lines[-TAIL_LINES:])

    def close(self, *, keep: bool = True) -> None:
        """Move the log to its place, or drop it."""
        for redactor in self._redactors.values():
            self._take(redactor.flush())
        self._file.close()
        if keep:
            self._part.replace(self._path)
        else:
            self._part.unlink(missing_ok=True)

    def _take(self, data: bytes) -> None:
        if not data:
            return
        if self._written < LOG_LIMIT:
            self._file.write(data)
        elif self._written - len(data) < LOG_LIMIT:
            self._file.write(b"\n[the rest of the output was not kept]\n")
        self._written += len(data)
        text = data.decode("utf-8", "replace")
        *lines, self._open_line = (self._open_line + text).split("\n")
        self._open_line = self._open_line[-4096:]
        self._lines.extend(line.rstrip("\r").rpartition("\r")[2] for line in lines)
        if not self.wants_network and _WANT_OF_NETWORK.search(text):
            self.wants_network = True
        if not self.wants_space and "No space left on device" in text:
            self.wants_space = True
        self._reporter.emit(TaskOutput(self._task, text))


def how_it_ended(completed: Completed, timeout: float | None) -> str:
    """A few words on a failure (`exited with 3`, `was still running after 30 s`)."""
    if completed.timed_out:
        return f"was still running after {timeout:g} s" if timeout else "ran out of time"
    if completed.out_of_memory:
        return "was killed for want of memory (OOM)"
    if completed.exit_code > 128:
        return f"was ended by signal {completed.exit_code - 128}"
    if completed.exit_code == 127:
        return "was not found (exit code 127)"
    return f"exited with {completed.exit_code}"
