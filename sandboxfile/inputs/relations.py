"""Relations between Debian packages: parsed fields, and versions compared as deb-version(7) says."""

from __future__ import annotations

import re
from typing import NamedTuple

_RELATION = re.compile(
    r"(?P<name>[a-zA-Z0-9][a-zA-Z0-9+.\-]*)(?::(?P<arch>[a-z0-9-]+))?"
    r"(?:\s*\(\s*(?P<op><<|<=|=|>=|>>|<|>)\s*(?P<version>[0-9A-Za-z.+~:-]+)\s*\))?"
)
_OPERATORS = {"<": "<=", ">": ">="}
_PART = re.compile(r"(\D*)(\d*)")


class Relation(NamedTuple):
    """One package named by a relation; `operator` is empty when any version will do."""

    name: str
    operator: str = ""
    version: str = ""

    def accepts(self, version: str) -> bool:
        """Whether a version of the package is meant. Without one (a virtual package), only any version is."""
        if not self.operator:
            return True
        if not version:
            return False
        order = compare(version, self.version)
        return {
            "<<": order < 0,
            "<=": order <= 0,
            "=": order == 0,
            ">=": order >= 0,
            ">>": order > 0,
        }[self.operator]


def relations(field: str) -> tuple[tuple[Relation, ...], ...]:
    """The alternatives of each relation of a field such as Depends. ValueError when it is malformed."""
    parts = (part for part in field.split(",") if part.strip())
    return tuple(tuple(_relation(each.strip()) for each in part.split("|")) for part in parts)


def _relation(text: str) -> Relation:
    match = _RELATION.fullmatch(" ".join(text.split()))
    if match is None:
        raise ValueError(f"`{text}` is no relation")
    operator = match["op"] or ""
    return Relation(match["name"], _OPERATORS.get(operator, operator), match["version"] or "")


def compare(left: str, right: str) -> int:
    """Negative, zero or positive, as `left` is the older, equal or newer version."""
    for one, other in zip(_split(left), _split(right), strict=True):
        if order := _compare_part(one, other):
            return order
    return 0


def _split(version: str) -> tuple[str, str, str]:
    epoch, colon, rest = version.partition(":")
    if not colon:
        epoch, rest = "0", version
    upstream, _, revision = rest.rpartition("-") if "-" in rest else (rest, "", "")
    return epoch, upstream, revision


def _compare_part(left: str, right: str) -> int:
    while left or right:
        (text, number), (other_text, other_number) = _first(left), _first(right)
        left, right = left[len(text) + len(number) :], right[len(other_text) + len(other_number) :]
        one, other = [_weight(char) for char in text], [_weight(char) for char in other_text]
        length = max(len(one), len(other))
        # The end of a text sorts after `~` and before everything else.
        one += [0] * (length - len(one))
        other += [0] * (length - len(other))
        if one != other:
            return -1 if one < other else 1
        difference = int(number or "0") - int(other_number or "0")
        if difference:
            return difference
    return 0


def _first(text: str) -> tuple[str, str]:
    match = _PART.match(text)
    assert match is not None
    return match[1], match[2]


def _weight(char: str) -> int:
    if char == "~":
        return -1
    return ord(char) if char.isalpha() else ord(char) + 256
