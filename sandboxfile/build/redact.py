"""Keep secrets out of logs and events."""

from __future__ import annotations

import base64
from collections.abc import Iterable

MASK = b"***"


class Redactor:
    """Replaces secret values in a stream of bytes, also where a value is split between two pieces.

    A value's base64 form is masked too, since tools print authorisation headers that way. Values of fewer
    than four bytes are left alone: masking them would garble everything and hide nothing.
    """

    def __init__(self, values: Iterable[bytes]) -> None:
        secrets = {value.strip() for value in values}
        secrets |= {base64.b64encode(value).rstrip(b"=") for value in secrets}
        # The longest first, so that a secret that contains another is masked as a whole.
        self._secrets = sorted((s for s in secrets if len(s) >= 4), key=len, reverse=True)
        self._hold = max((len(s) for s in self._secrets), default=1) - 1
        self._tail = b""

    def feed(self, data: bytes) -> bytes:
        """The part of what was fed so far that is safe to pass on."""
        if not self._secrets:
            return data
        text = self._mask(self._tail + data)
        # Only an end that could be the beginning of a secret has to wait.
        held = next((n for n in range(min(self._hold, len(text)), 0, -1) if self._could_begin(text[-n:])), 0)
        self._tail = text[len(text) - held :]
        return text[: len(text) - held]

    def flush(self) -> bytes:
        """What was held back."""
        tail, self._tail = self._tail, b""
        return tail

    def _mask(self, text: bytes) -> bytes:
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return text

    def _could_begin(self, end: bytes) -> bool:
        return any(secret.startswith(end) for secret in self._secrets)
