"""TCP: each connection that a sandbox opened, joined to one from this machine to where it was meant to go.

Nothing is kept here of what is passed on: bytes are looked at (MSG_PEEK) and stay in the kernel until the
other side has taken them. Who does not read makes the other side wait, as it would without a relay.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from sandboxfile.engines.linux.relay.destination import Address
from sandboxfile.engines.linux.relay.loop import IN, OUT, Loop

CONNECTIONS = 512
"""How many there are at once. More wait in the sandbox until one of these ends."""
CONNECT_SECONDS = 30.0
IDLE_SECONDS = 7440.0
"""RFC 5382 gives connections that nobody closes so long."""
HALF_CLOSED_SECONDS = 240.0
"""And those on the way to their end."""

_CHUNK = 1 << 18
_TURNS = 4
_ACCEPTS = 16
_PAUSE = 1.0
_RESET = struct.pack("ii", 1, 0)
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 600), (socket.TCP_KEEPINTVL, 60), (socket.TCP_KEEPCNT, 5))
_FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class _Patience(NamedTuple):
    connect: float
    idle: float
    half_closed: float


class Streams:
    """The connections of one sandbox.

    listeners: where they are accepted
    decide:    says where an accepted connection goes (address, port); None, or OSError, when it may not
    most:      how many there may be at once
    connect_seconds, idle_seconds, half_closed_seconds: after how long without anything it is given up
    """

    def __init__(
        self,
        loop: Loop,
        listeners: tuple[socket.socket, ...],
        decide: Callable[[socket.socket], tuple[Address, int] | None],
        most: int = CONNECTIONS,
        *,
        connect_seconds: float = CONNECT_SECONDS,
        idle_seconds: float = IDLE_SECONDS,
        half_closed_seconds: float = HALF_CLOSED_SECONDS,
    ) -> None:
        self._loop = loop
        self._listeners = listeners
        self._decide = decide
        self._most = most
        self._patience = _Patience(connect_seconds, idle_seconds, half_closed_seconds)
        self._open: set[_Stream] = set()
        self._buffer = memoryview(bytearray(_CHUNK))
        self._accepting = self._pausing = False
        self._accept_more()

    def _accept_more(self) -> None:
        wanted = len(self._open) < self._most and not self._pausing
        if wanted != self._accepting:
            self._accepting = wanted
            for listener in self._listeners:
                if wanted:
                    self._loop.watch(listener.fileno(), IN, partial(self._accept, listener))
                else:
                    self._loop.forget(listener.fileno())

    def _accept(self, listener: socket.socket, _ready: int) -> None:
        for _ in range(min(_ACCEPTS, self._most - len(self._open))):
            try:
                inside, _ = listener.accept()
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno in _FULL:
                    self._pause(listener)
                break
            self._join(inside)
        self._accept_more()

    def _pause(self, listener: socket.socket) -> None:
        """This machine has no more to give: wait, so that it is not asked in a loop."""
        self._pausing = True
        self._loop.expire(listener.fileno(), _PAUSE, self._resume)

    def _resume(self) -> None:
        self._pausing = False
        self._accept_more()

    def _join(self, inside: socket.socket) -> None:
        outside = None
        try:
            inside.setblocking(False)
            inside.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if (target := self._decide(inside)) is not None:
                outside = _connecting(*target)
        except OSError:
            outside = None
        if outside is None:
            reset(inside)
            return
        self._open.add(_Stream(self._loop, inside, outside, self._buffer, self._patience, self._ended))

    def close(self) -> None:
        """Cut every connection."""
        for each in tuple(self._open):
            each.cut()

    def _ended(self, stream: _Stream) -> None:
        self._open.discard(stream)
        self._accept_more()


def _connecting(address: Address, port: int) -> socket.socket:
    """A socket that is being connected. Raises OSError when that failed at once."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE:
            made.setsockopt(socket.IPPROTO_TCP, option, value)
        made.connect((str(address), port))
    except BlockingIOError:
        return made
    except BaseException:
        made.close()
        raise
    return made


def reset(connection: socket.socket) -> None:
    """Close a connection so that the other side sees that it failed."""
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    finally:
        connection.close()


class _Flow:
    """One direction of a stream. `full`: the sink takes no more now; `over`: everything was passed on."""

    __slots__ = ("full", "over", "sink", "source")

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source = source
        self.sink = sink
        self.full = False
        self.over = False

    def pump(self, buffer: memoryview) -> bool:
        """Pass on what is there, up to some turns; whether anything was. Raises OSError when a side fails."""
        for turn in range(_TURNS):
            try:
                found = self.source.recv_into(buffer, 0, socket.MSG_PEEK)
            except BlockingIOError:
                return turn > 0
            if not found:
                self.over = True
                self.sink.shutdown(socket.SHUT_WR)
                return True
            try:
                passed = self.sink.send(buffer[:found])
            except BlockingIOError:
                self.full = True
                return turn > 0
            left = passed
            while left:
                # Dropped by the kernel without being copied.
                dropped = self.source.recv_into(buffer, left, socket.MSG_TRUNC)
                if not dropped:
                    raise ConnectionResetError
                left -= dropped
            if passed < found:
                self.full = True
                return True
        return True


class _Stream:
    """A connection of the sandbox and its continuation outside."""

    def __init__(
        self,
        loop: Loop,
        inside: socket.socket,
        outside: socket.socket,
        buffer: memoryview,
        patience: _Patience,
        ended: Callable[[_Stream], None],
    ) -> None:
        self._loop = loop
        self._inside = inside
        self._outside = outside
        self._buffer = buffer
        self._patience = patience
        self._ended = ended
        self._up = _Flow(inside, outside)
        self._down = _Flow(outside, inside)
        # Nothing is wanted of the sandbox's side yet, but it may give up.
        loop.watch(inside.fileno(), 0, self._gave_up)
        loop.watch(outside.fileno(), OUT, self._connected)
        loop.expire(inside.fileno(), patience.connect, self.cut)

    def _gave_up(self, _ready: int) -> None:
        self.cut()

    def _connected(self, _ready: int) -> None:
        if self._outside.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.cut()
            return
        self._loop.expire(self._inside.fileno(), self._patience.idle, self.cut)
        self._advance(self._up, self._down)

    def _inside_ready(self, ready: int) -> None:
        self._ready(ready, self._up, self._down)

    def _outside_ready(self, ready: int) -> None:
        self._ready(ready, self._down, self._up)

    def _ready(self, ready: int, from_it: _Flow, to_it: _Flow) -> None:
        """One of the two is ready."""
        flows = []
        if ready & OUT and to_it.full:
            to_it.full = False
            flows.append(to_it)
        if not from_it.over and not from_it.full and ready & ~OUT:
            flows.append(from_it)
        if flows:
            self._advance(*flows)
        elif ready & (select.EPOLLERR | select.EPOLLHUP):
            self.cut()

    def _advance(self, *flows: _Flow) -> None:
        try:
            moved = [flow.pump(self._buffer) for flow in flows]
        except OSError:
            self.cut()
            return
        if self._up.over and self._down.over:
            self._close()
            return
        if any(moved):
            half = self._up.over or self._down.over
            seconds = self._patience.half_closed if half else self._patience.idle
            self._loop.expire(self._inside.fileno(), seconds, self.cut)
        self._want(self._inside, self._up, self._down, self._inside_ready)
        self._want(self._outside, self._down, self._up, self._outside_ready)

    def _want(self, side: socket.socket, from_it: _Flow, to_it: _Flow, ready: Callable[[int], None]) -> None:
        wanted = (OUT if to_it.full else 0) | (0 if from_it.over or from_it.full else IN)
        if wanted:
            self._loop.watch(side.fileno(), wanted, ready)
        else:
            # A side that is closed would be reported for ever though there is nothing to do.
            self._loop.forget(side.fileno())

    def cut(self) -> None:
        """End both sides as one ends that is gone without having said goodbye."""
        self._release()
        reset(self._inside)
        reset(self._outside)
        self._ended(self)

    def _close(self) -> None:
        self._release()
        self._inside.close()
        self._outside.close()
        self._ended(self)

    def _release(self) -> None:
        self._loop.keep(self._inside.fileno())
        for side in (self._inside, self._outside):
            self._loop.forget(side.fileno())
