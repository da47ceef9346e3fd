from __future__ import annotations

import base64

from hypothesis import given
from hypothesis import strategies as st

from sandboxfile.build.redact import MASK, Redactor


@given(st.binary(min_size=4, max_size=20), st.binary(), st.binary(), st.lists(st.integers(0, 60)))
def test_a_secret_never_passes_wherever_the_stream_is_cut(
    secret: bytes, before: bytes, after: bytes, cuts: list[int]
) -> None:
    secret = secret.strip()
    if len(secret) < 4 or secret in MASK * 10:
        return
    stream = before + secret + after
    redactor = Redactor([secret])
    out = b""
    at = 0
    for cut in [*sorted({min(c, len(stream)) for c in cuts}), len(stream)]:
        out += redactor.feed(stream[at:cut])
        at = cut
    out += redactor.flush()
    if secret not in before.replace(secret, b"") + MASK + after.replace(secret, b""):
        assert secret not in out


def test_the_base64_form_of_a_secret_is_masked() -> None:
    redactor = Redactor([b"correct horse"])
    text = b"Authorization: Basic " + base64.b64encode(b"correct horse") + b"\n"
    # The padding stays; it tells nothing.
    assert redactor.feed(text) + redactor.flush() == b"Authorization: Basic ***==\n"


def test_without_secrets_everything_passes_at_once() -> None:
    assert Redactor([]).feed(b"abc") == b"abc"


def test_short_values_are_left_alone() -> None:
    assert Redactor([b"no"]).feed(b"no news") == b"no news"
