"""Bridging a sandbox's terminal to the caller's descriptors, which may be terminals, pipes or files."""

from __future__ import annotations

import asyncio
import fcntl
import os
import select
import struct
import termios

from sandboxfile.engine.base import Stdio, Terminal
from sandboxfile.engines.linux.streams import readable, write_all

_CHUNK = 1 << 14
_END_OF_INPUT = b"\x04"


class Bridge:
    """Copies between the master side of a terminal and two descriptors of the caller."""

    def __init__(self, master: int, stdio: Stdio) -> None:
        self._master = master
        self._stdin = stdio.stdin
        self._stdout = stdio.stdout
        os.set_blocking(master, False)
        # The caller's descriptors are not ours to make non-blocking, so output is written in a thread.
        self._output = asyncio.ensure_future(asyncio.to_thread(self._copy_output))
        self._input = asyncio.ensure_future(self._copy_input())

    def resize(self, terminal: Terminal) -> None:
        """Give the terminal a new size; the kernel tells the program."""
        size = struct.pack("HHHH", terminal.rows, terminal.columns, 0, 0)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)

    async def finish(self) -> None:
        """After the program's end: pass the rest of its output on and let the terminal go."""
        self._input.cancel()
        await asyncio.wait([self._input, self._output])
        os.close(self._master)

    def _copy_output(self) -> None:
        poll = select.poll()
        poll.register(self._master, select.POLLIN)
        while True:
            poll.poll()
            try:
                data = os.read(self._master, _CHUNK)
            except BlockingIOError:
                continue
            except OSError:
                return  # EIO: the last user of the terminal is gone
            if not data:
                return
            view = memoryview(data)
            while view and self._stdout >= 0:
                try:
                    view = view[os.write(self._stdout, view) :]
                except BlockingIOError:
                    select.select([], [self._stdout], [])
                except OSError:
                    break  # nobody reads any more; the program goes on until it ends

    async def _copy_input(self) -> None:
        while self._stdin >= 0:
            try:
                await readable(self._stdin)
            except PermissionError:
                pass  # a regular file is always readable
            try:
                data = os.read(self._stdin, _CHUNK)
            except BlockingIOError:
                continue
            except OSError:
                return
            await write_all(self._master, data or _END_OF_INPUT)
            if not data:
                return
