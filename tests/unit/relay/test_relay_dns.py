"""Which messages the name server of a relayed sandbox passes on."""

from __future__ import annotations

import struct

import pytest

from sandboxfile.engines.linux.relay.dns import (
    FORMERR,
    LARGEST_QUERY,
    NOTIMP,
    REFUSED,
    SERVFAIL,
    BadQuery,
    is_answer,
    read_query,
)

QUESTION = b"\3www\7example\0" + struct.pack(">HH", 1, 1)
OPTIONS = b"\0" + struct.pack(">HHIH", 41, 1232, 0, 0)


def message(
    question: bytes = QUESTION, flags: int = 0x0100, counts: tuple[int, ...] = (1, 0, 0, 0), rest: bytes = b""
) -> bytes:
    return b"\x12\x34" + struct.pack(">5H", flags, *counts) + question + rest


def code_of(refused: bytes) -> int:
    assert refused[2] & 0x80
    return refused[3] & 0x0F


def refusal(sent: bytes) -> bytes | None:
    with pytest.raises(BadQuery) as raised:
        read_query(sent)
    return raised.value.answer


def test_a_question_is_passed_on_byte_for_byte_under_another_number() -> None:
    for sent in (message(), message(counts=(1, 0, 0, 1), rest=OPTIONS), message(b"\0\0\2\0\1")):
        assert read_query(sent).numbered(b"\xab\xcd") == b"\xab\xcd" + sent[2:]


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (message(flags=0x2800), NOTIMP),  # an update
        (message(flags=0x2000), NOTIMP),  # a notification
        (message(counts=(2, 0, 0, 0), rest=QUESTION), FORMERR),
        (message(counts=(0, 0, 0, 0)), FORMERR),
        (message(counts=(1, 1, 0, 0)), FORMERR),
        (message(counts=(1, 0, 1, 0)), FORMERR),
        (message(counts=(1, 0, 0, 2), rest=OPTIONS * 2), FORMERR),
        (message(counts=(1, 0, 0, 1)), FORMERR),
        (message(rest=b"more"), FORMERR),
        (message(counts=(1, 0, 0, 1), rest=OPTIONS + b"more"), FORMERR),
        (message(counts=(1, 0, 0, 1), rest=b"\0" + struct.pack(">HHIH", 250, 255, 0, 0)), FORMERR),  # signed
        (message(b"\xc0\x0c\0\1\0\1"), FORMERR),
        (message(b"\x40abc\0\0\1\0\1"), FORMERR),
        (message(b"\3www"), FORMERR),
        (message(b"\3www\0\0"), FORMERR),
        (message((b"\x3f" + b"a" * 63) * 4 + b"\0\0\1\0\1"), FORMERR),
        (message(rest=bytes(LARGEST_QUERY)), FORMERR),
        (message(b"\3www\0" + struct.pack(">HH", 252, 1)), REFUSED),  # a transfer of the whole zone
        (message(b"\3www\0" + struct.pack(">HH", 251, 1)), REFUSED),
        (message(b"\3www\0" + struct.pack(">HH", 16, 3)), REFUSED),  # the server's own version
        (message(b"\3www\0" + struct.pack(">HH", 1, 255)), REFUSED),
    ],
)
def test_whatever_is_no_plain_question_is_refused(sent: bytes, code: int) -> None:
    answer = refusal(sent)
    assert answer is not None
    assert answer[:2] == sent[:2]
    assert code_of(answer) == code


@pytest.mark.parametrize("sent", [b"", b"\x12\x34", bytes(11), message(flags=0x8180)])
def test_what_is_no_query_at_all_is_not_answered(sent: bytes) -> None:
    assert refusal(sent) is None


def test_only_the_answer_to_the_question_is_taken() -> None:
    query = read_query(message())
    right = b"\xab\xcd" + struct.pack(">5H", 0x8180, 1, 0, 0, 0) + QUESTION.upper()
    assert is_answer(right, query, b"\xab\xcd")
    other = QUESTION.replace(b"www", b"ftp")
    for wrong in (
        right[:5],
        b"\xab\xce" + right[2:],
        right[:2] + b"\1" + right[3:],
        right[:12] + other,
        b"\xab\xcd" + struct.pack(">5H", 0x8180, 0, 0, 0, 0),
    ):
        assert not is_answer(wrong, query, b"\xab\xcd")
    assert is_answer(b"\xab\xcd" + struct.pack(">5H", 0x8185, 0, 0, 0, 0), query, b"\xab\xcd")


def test_a_failure_repeats_number_and_question() -> None:
    failed = read_query(message(counts=(1, 0, 0, 1), rest=OPTIONS)).failed()
    assert failed[:2] == b"\x12\x34"
    assert failed[12:] == QUESTION
    assert code_of(failed) == SERVFAIL
