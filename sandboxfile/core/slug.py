"""Slugs: the engine-side names of snapshots, made from keys.

2 to 32 characters of `[a-z0-9-]`, so that a slug is also a valid name in Deno Sandbox.
"""

from __future__ import annotations

import re

from sandboxfile.core.digest import Digest, hexadecimal

NAME_LENGTH = 15
KEY_LENGTH = 16


def slug_name(name: str) -> str:
    """The name part of a slug: lower-cased, other characters made hyphens, runs collapsed, cut to 15,
    hyphens trimmed, `env` when nothing is left."""
    text = re.sub(r"[^a-z0-9]+", "-", name.lower())[: NAME_LENGTH + 1].strip("-")
    return text[:NAME_LENGTH].strip("-") or "env"


def slug_of(name: str, key: Digest) -> str:
    """`<name>-<16 hex of the key>`."""
    return f"{slug_name(name)}-{hexadecimal(key)[:KEY_LENGTH]}"


def is_slug(text: str) -> bool:
    """Whether a text could be a slug."""
    return 2 <= len(text) <= 32 and re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", text) is not None
