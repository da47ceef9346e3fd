"""Debian's control format: stanzas of fields, as in Release, Packages and dpkg's status.

Stanzas are kept as the text they are; a field is cut out when somebody asks for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator


def stanzas(text: str) -> Iterator[str]:
    """The stanzas of a text, without the empty lines between them."""
    for stanza in re.split(r"\n[ \t]*(?:\n[ \t]*)+", text.strip("\n")):
        if stanza.strip():
            yield stanza


def fields(stanza: str) -> dict[str, str]:
    """The fields of a stanza; continuation lines keep their line ends, each without its first space."""
    found: dict[str, str] = {}
    name = ""
    for line in stanza.splitlines():
        if line[:1] in {" ", "\t"}:
            if name:
                found[name] += "\n" + line[1:]
        elif ":" in line:
            name, _, value = line.partition(":")
            found[name] = value.strip()
    return found


def names_in(relation: str) -> tuple[str, ...]:
    """The package names of a relation field such as Provides, without versions and architectures."""
    names = (re.split(r"[\s(:\[]", part.strip(), maxsplit=1)[0] for part in re.split(r"[,|]", relation))
    return tuple(name for name in names if name)
