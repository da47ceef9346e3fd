"""The three pipes of a command that is run to its end."""

from __future__ import annotations

import os

from sandboxfile.engines.linux.streams import write_all


class Pipes:
    """Ours are `stdout` and `stderr`; `theirs` go to the command, by `indexes`. Standard input is /dev/null
    when there is nothing to say."""

    def __init__(self, stdin: bytes) -> None:
        self._open: set[int] = set()
        self.stdout, out = self._pipe()
        self.stderr, err = self._pipe()
        self.theirs = [out, err]
        self.indexes = [-1, 0, 1]
        self._stdin = -1
        if stdin:
            their_stdin, self._stdin = self._pipe()
            self.theirs.append(their_stdin)
            self.indexes[0] = 2

    def _pipe(self) -> tuple[int, int]:
        ends = os.pipe2(os.O_CLOEXEC)
        self._open.update(ends)
        return ends

    def close_theirs(self) -> None:
        """Close the ends that the command has as well."""
        for descriptor in self.theirs:
            self._close(descriptor)

    async def feed(self, stdin: bytes) -> None:
        """Write standard input, and its end."""
        if self._stdin >= 0:
            try:
                await write_all(self._stdin, stdin)
            finally:
                self._close(self._stdin)

    def _close(self, descriptor: int) -> None:
        if descriptor in self._open:
            self._open.discard(descriptor)
            os.close(descriptor)

    def close(self) -> None:
        """Close every end that is open. May be called twice."""
        for descriptor in tuple(self._open):
            self._close(descriptor)
