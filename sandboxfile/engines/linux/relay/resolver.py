"""The name server of a relayed sandbox: passes questions on to this machine's own, and nothing else."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Sequence

from sandboxfile.engines.linux.relay.dns import BadQuery, Query, is_answer, read_query
from sandboxfile.engines.linux.relay.loop import IN, OUT, Loop

Servers = Callable[[], Sequence[tuple[str, int]]]
"""Asked for this machine's name servers (address, port) when there is a question."""

QUESTIONS = 128
"""How many are open at once; further ones are answered as failed."""
CONNECTIONS = 16
ANSWER_SECONDS = 4.0
TRIES = 3
IDLE_SECONDS = 10.0
_LARGEST = 65535
_PACKETS = 32


class Resolver:
    """Answers over UDP and TCP."""

    def __init__(
        self, loop: Loop, datagrams: socket.socket, streams: socket.socket, servers: Servers
    ) -> None:
        self._loop = loop
        self._datagrams = datagrams
        self._listener = streams
        self._servers = servers
        self._questions: set[_Question] = set()
        self._conversations: set[_Conversation] = set()
        loop.watch(datagrams.fileno(), IN, lambda _: self._receive())
        loop.watch(streams.fileno(), IN, lambda _: self._accept())

    def _receive(self) -> None:
        for _ in range(_PACKETS):
            try:
                message, sender = self._datagrams.recvfrom(_LARGEST)
            except OSError:
                # Nothing more, or a packet of an asker who is gone has come back.
                return
            try:
                query = read_query(message)
            except BadQuery as bad:
                if bad.answer is not None:
                    self._say(bad.answer, sender)
                continue
            if len(self._questions) >= QUESTIONS:
                self._say(query.failed(), sender)
                continue
            question = _Question(self._loop, query, sender, self._servers(), self._answered)
            self._questions.add(question)
            question.put()

    def _answered(self, question: _Question, message: bytes) -> None:
        self._questions.discard(question)
        self._say(message, question.sender)

    def _say(self, message: bytes, sender: tuple[str, int]) -> None:
        try:
            self._datagrams.sendto(message, sender)
        except OSError:
            # An asker that does not listen, or asks from a port that nothing can be sent to.
            return

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        connection.setblocking(False)
        self._conversations.add(_Conversation(self._loop, connection, self._servers, self._left))
        if len(self._conversations) >= CONNECTIONS:
            self._loop.forget(self._listener.fileno())

    def _left(self, conversation: _Conversation) -> None:
        self._conversations.discard(conversation)
        self._loop.watch(self._listener.fileno(), IN, lambda _: self._accept())

    def close(self) -> None:
        """Drop every question; nobody is told."""
        for question in self._questions:
            question.drop()
        for conversation in self._conversations:
            conversation.drop()
        self._questions.clear()
        self._conversations.clear()


class _Question:
    """A question over UDP, put to one server after the other. `answered` is told what came of it, once."""

    def __init__(
        self,
        loop: Loop,
        query: Query,
        sender: tuple[str, int],
        servers: Sequence[tuple[str, int]],
        answered: Callable[[_Question, bytes], None],
    ) -> None:
        self.sender = sender
        self._loop = loop
        self._query = query
        self._answered = answered
        # The same servers again, in a different round, may be up.
        self._left = (list(servers) * TRIES)[: max(TRIES, len(servers))]
        self._socket: socket.socket | None = None
        self._number = b""

    def put(self) -> None:
        """Put it to the next server."""
        self.drop()
        while self._left:
            address, port = self._left.pop(0)
            # A number and a port that nobody can guess: what is not from the server is not listened to.
            self._number = os.urandom(2)
            try:
                self._socket = _connected(address, port, socket.SOCK_DGRAM)
                self._socket.send(self._query.numbered(self._number))
            except OSError:
                self.drop()
                continue
            descriptor = self._socket.fileno()
            self._loop.watch(descriptor, IN, lambda _: self._hear())
            self._loop.expire(descriptor, ANSWER_SECONDS, self.put)
            return
        self._answered(self, self._query.failed())

    def _hear(self) -> None:
        assert self._socket is not None
        try:
            message = self._socket.recv(_LARGEST)
        except BlockingIOError:
            return
        except OSError:
            self.put()
            return
        if is_answer(message, self._query, self._number):
            self.drop()
            self._answered(self, self._query.number + message[2:])

    def drop(self) -> None:
        """Stop waiting for an answer."""
        if self._socket is not None:
            self._loop.keep(self._socket.fileno())
            self._loop.forget(self._socket.fileno())
            self._socket.close()
            self._socket = None


class _Conversation:
    """A TCP connection of the sandbox to its name server: question, answer, question…"""

    def __init__(
        self,
        loop: Loop,
        connection: socket.socket,
        servers: Servers,
        left: Callable[[_Conversation], None],
    ) -> None:
        self._loop = loop
        self._servers = servers
        self._left = left
        self._asker = _Framed(loop, connection, IDLE_SECONDS, self._asked, self._end)
        self._server: _Framed | None = None
        self._waiting: list[tuple[str, int]] = []
        self._query: Query | None = None
        self._number = b""
        self._asker.listen()

    def _asked(self, message: bytes) -> None:
        try:
            self._query = read_query(message)
        except BadQuery as bad:
            if bad.answer is None:
                self._end()
            else:
                self._asker.say(bad.answer)
            return
        self._waiting = list(self._servers())
        self._next()

    def _next(self) -> None:
        assert self._query is not None
        self._leave()
        while self._waiting:
            address, port = self._waiting.pop(0)
            self._number = os.urandom(2)
            try:
                connection = _connected(address, port, socket.SOCK_STREAM)
            except OSError:
                continue
            self._server = _Framed(self._loop, connection, ANSWER_SECONDS, self._told, self._next)
            self._server.say(self._query.numbered(self._number))
            return
        self._asker.say(self._query.failed())

    def _told(self, message: bytes) -> None:
        assert self._query is not None
        if not is_answer(message, self._query, self._number):
            self._next()
            return
        self._leave()
        self._asker.say(self._query.number + message[2:])

    def _leave(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def _end(self) -> None:
        self.drop()
        self._left(self)

    def drop(self) -> None:
        """Hang up on both sides."""
        self._leave()
        self._asker.close()


class _Framed:
    """A connection with messages of a length that comes before them, one said, one heard, in turns.

    heard: told each message
    ended: told when the other side is gone, or takes longer than `seconds`; to call `close`
    """

    def __init__(
        self,
        loop: Loop,
        connection: socket.socket,
        seconds: float,
        heard: Callable[[bytes], None],
        ended: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._connection = connection
        self._seconds = seconds
        self._heard = heard
        self._ended = ended
        self._incoming = bytearray()
        self._outgoing = b""

    def listen(self) -> None:
        """Wait for a message."""
        self._wait(IN)

    def say(self, message: bytes) -> None:
        """Send a message, then wait for one."""
        self._outgoing = struct.pack(">H", len(message)) + message
        self._wait(OUT)

    def _wait(self, wanted: int) -> None:
        descriptor = self._connection.fileno()
        self._loop.watch(descriptor, wanted, lambda _: self._ready())
        self._loop.expire(descriptor, self._seconds, self._ended)

    def _ready(self) -> None:
        try:
            if self._outgoing:
                self._outgoing = self._outgoing[self._connection.send(self._outgoing) :]
                if not self._outgoing:
                    self._wait(IN)
                return
            # No further than this message: another one waits its turn in the kernel.
            whole = 2 + self._size if len(self._incoming) >= 2 else 2
            piece = self._connection.recv(whole - len(self._incoming))
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        if not piece:
            self._ended()
            return
        self._incoming += piece
        if len(self._incoming) >= 2 and len(self._incoming) == 2 + self._size:
            message, self._incoming = bytes(self._incoming[2:]), bytearray()
            # Nothing is heard before this one is answered.
            self._loop.forget(self._connection.fileno())
            self._heard(message)

    @property
    def _size(self) -> int:
        return int.from_bytes(self._incoming[:2], "big")

    def close(self) -> None:
        """Hang up."""
        self._loop.keep(self._connection.fileno())
        self._loop.forget(self._connection.fileno())
        self._connection.close()


def _connected(address: str, port: int, kind: socket.SocketKind) -> socket.socket:
    """A socket that is connected, or being connected. Raises OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    (*_, where) = socket.getaddrinfo(address, port, family, kind, 0, socket.AI_NUMERICHOST)[0]
    made = socket.socket(family, kind | socket.SOCK_NONBLOCK)
    try:
        made.connect(where)
    except BlockingIOError:
        return made
    except BaseException:
        made.close()
        raise
    return made
