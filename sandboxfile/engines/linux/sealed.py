"""Programs that are started from a sealed copy in memory: what a sandbox could reach of one through
/proc cannot be written, by anybody, and the program need not make such a copy itself at each start."""

from __future__ import annotations

import fcntl
import os

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class SealedPrograms:
    """Sealed copies of programs, each made when it is first started and kept for as long as the helper
    lives. crun looks for exactly these four seals on itself, and copies itself when it misses one."""

    def __init__(self) -> None:
        self._copies: dict[str, int] = {}

    def path(self, program: str) -> str:
        """What to execute in place of `program`; good for children that inherit the helper's descriptors
        up to the moment of execution. Raises OSError when the program cannot be read."""
        if program not in self._copies:
            self._copies[program] = _sealed_copy(program)
        return f"/proc/self/fd/{self._copies[program]}"


def _sealed_copy(program: str) -> int:
    source = os.open(program, os.O_RDONLY | os.O_CLOEXEC)
    try:
        copy = os.memfd_create(os.path.basename(program), os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            offset, size = 0, os.fstat(source).st_size
            while offset < size and (count := os.sendfile(copy, source, offset, size - offset)):
                offset += count
            os.fchmod(copy, 0o555)
            fcntl.fcntl(copy, fcntl.F_ADD_SEALS, _SEALS)
        except BaseException:
            os.close(copy)
            raise
        return copy
    finally:
        os.close(source)
