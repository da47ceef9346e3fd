"""Where each package's stanzas are in a Packages file, kept beside it.

Splitting fifty megabytes into sixty thousand stanzas takes longer than the rest of a small solve. The table
is made when a file is first read; a table that does not fit its file is made again.
"""

from __future__ import annotations

import mmap
import os
import re
from array import array
from collections.abc import Iterator
from pathlib import Path

_MAGIC = b"sandboxfile stanzas 1\n"
_WORD = "Q"


class StanzaTable:
    """The stanzas of one Packages file by package name, read when they are asked for."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as stream:
            # An empty file cannot be mapped.
            empty = os.fstat(stream.fileno()).st_size == 0
            self._content = b"" if empty else mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        beside = path.with_name(f"{path.name}.stanzas")
        if not self._load(beside):
            self._scan()
            self._keep(beside)
        # Of several stanzas of a name, which stand together, this is the last.
        self._last = dict(zip(self._names, range(len(self._names)), strict=True))

    def __contains__(self, name: bytes) -> bool:
        return name in self._last

    def names(self) -> Iterator[bytes]:
        """Every package name, once."""
        return iter(self._last)

    def stanzas(self, name: bytes) -> list[bytes]:
        """The stanzas of a package, in the order of the file."""
        last = self._last.get(name)
        if last is None:
            return []
        first = last
        while first and self._names[first - 1] == name:
            first -= 1
        return [self._stanza(number) for number in range(first, last + 1)]

    def every(self) -> Iterator[tuple[bytes, bytes]]:
        """Name and stanza of each package and version."""
        for number, name in enumerate(self._names):
            yield name, self._stanza(number)

    def _stanza(self, number: int) -> bytes:
        return bytes(self._content[self._starts[number] : self._ends[number]])

    def _load(self, beside: Path) -> bool:
        try:
            table = beside.read_bytes()
        except OSError:
            return False
        size = array(_WORD).itemsize
        head = len(_MAGIC) + 2 * size
        if not table.startswith(_MAGIC) or len(table) < head:
            return False
        length, count = array(_WORD, table[len(_MAGIC) : head])
        middle, end = head + count * size, head + 2 * count * size
        if length != len(self._content) or len(table) < end:
            return False
        self._starts = array(_WORD, table[head:middle])
        self._ends = array(_WORD, table[middle:end])
        self._names = table[end:].split(b"\n") if count else []
        return len(self._names) == count

    def _scan(self) -> None:
        found: list[tuple[bytes, int, int]] = []
        start = 0
        for stanza in bytes(self._content).split(b"\n\n"):
            if stanza.startswith(b"Package: "):
                found.append((stanza[9 : stanza.find(b"\n")], start, start + len(stanza)))
            elif other := re.search(rb"^Package:[ \t]*(\S+)", stanza, re.MULTILINE):
                found.append((other.group(1), start, start + len(stanza)))
            start += len(stanza) + 2
        # The sort is stable: versions of a package stay in the archive's order.
        found.sort(key=lambda each: each[0])
        self._names = [name for name, _, _ in found]
        self._starts = array(_WORD, (begin for _, begin, _ in found))
        self._ends = array(_WORD, (end for _, _, end in found))

    def _keep(self, beside: Path) -> None:
        head = array(_WORD, (len(self._content), len(self._names)))
        places = head.tobytes() + self._starts.tobytes() + self._ends.tobytes()
        part = beside.with_name(f".{beside.name}.{os.getpid()}")
        try:
            part.write_bytes(_MAGIC + places + b"\n".join(self._names))
            part.replace(beside)
        except OSError:
            # Whoever may not write here reads the file once more the next time.
            part.unlink(missing_ok=True)
