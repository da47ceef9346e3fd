"""The user's terminal: its size, raw mode, and giving it back on every way out."""

from __future__ import annotations

import atexit
import os
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from sandboxfile.engine.base import Terminal

_saved: dict[int, list[Any]] = {}
_registered = False


def size_of(descriptor: int) -> Terminal:
    """The size of the terminal behind a descriptor; 24 by 80 where it does not say."""
    try:
        columns, rows = os.get_terminal_size(descriptor)
    except OSError:
        return Terminal()
    return Terminal(rows or 24, columns or 80)


def is_terminal(descriptor: int) -> bool:
    """Whether a descriptor is open and a terminal."""
    try:
        return os.isatty(descriptor)
    except OSError:
        return False


@contextmanager
def raw(descriptor: int) -> Iterator[None]:
    """Raw mode: every key goes through, Ctrl-C included. The old mode comes back on every way out."""
    global _registered
    _saved[descriptor] = termios.tcgetattr(descriptor)
    if not _registered:
        atexit.register(restore)
        _registered = True
    try:
        set_raw(descriptor)
        yield
    finally:
        restore()


def set_raw(descriptor: int) -> None:
    """Go (back) to raw mode, for instance after the shell has continued us."""
    with suppress(termios.error):
        tty.setraw(descriptor, termios.TCSADRAIN)


def restore() -> None:
    """Give every terminal its mode back. Nothing happens the second time."""
    while _saved:
        descriptor, mode = _saved.popitem()
        with suppress(termios.error, OSError):
            termios.tcsetattr(descriptor, termios.TCSADRAIN, mode)


@contextmanager
def blocking_kept(descriptors: tuple[int, ...]) -> Iterator[None]:
    """Put O_NONBLOCK back as it was: the flag is shared with the shell that started us."""
    before: dict[int, bool] = {}
    for descriptor in descriptors:
        with suppress(OSError):
            before[descriptor] = os.get_blocking(descriptor)
    try:
        yield
    finally:
        for descriptor, blocking in before.items():
            with suppress(OSError):
                os.set_blocking(descriptor, blocking)
