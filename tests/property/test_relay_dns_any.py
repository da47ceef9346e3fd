"""The DNS reader is given what a hostile sandbox sends."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from sandboxfile.engines.linux.relay.dns import LARGEST_QUERY, BadQuery, is_answer, read_query

HEADER = st.sampled_from([b"\0\1\1\0\0\1\0\0\0\0\0\0", b"\0\1\1\0\0\1\0\0\0\0\0\1"])
LABELS = st.lists(st.binary(min_size=1, max_size=63), max_size=6).map(
    lambda labels: b"".join(bytes([len(label)]) + label for label in labels) + b"\0\0\1\0\1"
)
MESSAGES = st.one_of(
    st.binary(max_size=2000),
    st.builds(bytes.__add__, HEADER, st.binary(max_size=1400)),
    st.builds(lambda head, name, rest: head + name + rest, HEADER, LABELS, st.binary(max_size=20)),
)


@settings(deadline=None)
@given(MESSAGES)
def test_any_message_is_a_question_or_refused_with_its_own_number(message: bytes) -> None:
    try:
        query = read_query(message)
    except BadQuery as refused:
        answer = refused.answer
    else:
        answer = query.failed()
        assert len(message) <= LARGEST_QUERY
        assert query.message == message
        assert query.question == message[12 : 12 + len(query.question)]
    assert answer is None or (answer[:2] == message[:2] and answer[2] & 0x80)


@settings(deadline=None)
@given(MESSAGES, MESSAGES)
def test_any_message_is_an_answer_or_not(message: bytes, answer: bytes) -> None:
    try:
        query = read_query(message)
    except BadQuery:
        return
    assert not is_answer(answer, query, b"\xff\xff") or answer[:2] == b"\xff\xff"
