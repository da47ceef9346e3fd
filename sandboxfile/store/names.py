"""Names that nobody else has."""

from __future__ import annotations

import os

_ALPHABET = "0123456789abcdefghjkmnpqrstuvwxyz"
"""Without i, l and o, which people mistake for digits."""
_LENGTH = 20


def new_id(kind: str) -> str:
    """A name by chance: `vol_loc_`, `sbx_loc_` or the like and 20 characters."""
    number = int.from_bytes(os.urandom(_LENGTH))
    text = ""
    for _ in range(_LENGTH):
        number, at = divmod(number, len(_ALPHABET))
        text += _ALPHABET[at]
    return f"{kind}_loc_{text}"
