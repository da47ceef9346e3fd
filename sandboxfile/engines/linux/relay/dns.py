"""DNS messages (RFC 1035, RFC 6891), as far as a forwarder has to understand them: pure functions.

A sandbox can send anything. Only plain questions go on: one name, no answers, nothing behind it but the
options of EDNS. Updates, transfers and whatever else a name server of this machine's network might grant to
this machine do not.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

LARGEST_QUERY = 1232
_HEADER = 12
_RESPONSE = 0x8000
_OPCODE = 0x7800
_RECURSION = 0x0100
_OPT = 41
_TRANSFERS = (251, 252)
_INTERNET = 1
FORMERR, SERVFAIL, NOTIMP, REFUSED = 1, 2, 4, 5


class BadQuery(Exception):
    """A message that is not passed on. `answer` is what its sender is told, None for nothing."""

    def __init__(self, answer: bytes | None) -> None:
        super().__init__()
        self.answer = answer


class Query(NamedTuple):
    """A question that may be passed on. `question` is its name, type and class as they were sent."""

    message: bytes
    question: bytes

    @property
    def number(self) -> bytes:
        """What the asker knows it by."""
        return self.message[:2]

    def numbered(self, number: bytes) -> bytes:
        """The message under another number."""
        return number + self.message[2:]

    def failed(self, code: int = SERVFAIL) -> bytes:
        """An answer that says it could not be answered."""
        return _refusal(self.message, code, self.question)


def read_query(message: bytes) -> Query:
    """The query in a message. Raises BadQuery."""
    if len(message) < _HEADER:
        raise BadQuery(None)
    _, flags, questions, answers, authorities, additional = struct.unpack_from(">6H", message)
    if flags & _RESPONSE:
        raise BadQuery(None)
    if flags & _OPCODE:
        raise BadQuery(_refusal(message, NOTIMP))
    end = _question_end(message)
    if len(message) > LARGEST_QUERY or questions != 1 or answers or authorities or end is None:
        raise BadQuery(_refusal(message, FORMERR))
    kind, kind_class = struct.unpack_from(">HH", message, end - 4)
    question = message[_HEADER:end]
    if kind in _TRANSFERS or kind_class != _INTERNET:
        raise BadQuery(_refusal(message, REFUSED, question))
    if additional > 1 or not (_is_options(message[end:]) if additional else end == len(message)):
        raise BadQuery(_refusal(message, FORMERR, question))
    return Query(message, question)


def is_answer(message: bytes, query: Query, number: bytes) -> bool:
    """Whether a message answers a query that was sent under a number."""
    if len(message) < _HEADER or message[:2] != number or not message[2] & 0x80:
        return False
    (questions,) = struct.unpack_from(">H", message, 4)
    if not questions:
        # Some servers leave the question out when they refuse.
        return bool(message[3] & 0x0F)
    # Case may come back as the server likes it; types and classes are below the letters.
    asked = message[_HEADER : _HEADER + len(query.question)]
    return questions == 1 and asked.lower() == query.question.lower()


def _question_end(message: bytes) -> int | None:
    """Where the first question ends; None when it is not well-formed."""
    place = _HEADER
    while place < len(message):
        length = message[place]
        place += 1
        if length == 0:
            return place + 4 if place - _HEADER <= 255 and place + 4 <= len(message) else None
        if length > 63:
            # A pointer has nothing to point to in the first name.
            return None
        place += length
    return None


def _is_options(record: bytes) -> bool:
    """Whether bytes are exactly one EDNS record."""
    if len(record) < 11 or record[0] != 0:
        return False
    kind, size = struct.unpack_from(">H6xH", record, 1)
    return bool(kind == _OPT and len(record) == 11 + size)


def _refusal(message: bytes, code: int, question: bytes = b"") -> bytes:
    (flags,) = struct.unpack_from(">H", message, 2)
    answered = _RESPONSE | flags & (_OPCODE | _RECURSION) | code
    return message[:2] + struct.pack(">5H", answered, 1 if question else 0, 0, 0, 0) + question
