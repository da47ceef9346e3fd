"""Packages files: finding a few stanzas among sixty thousand without parsing the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from sandboxfile.inputs.control import fields, names_in
from sandboxfile.inputs.stanzatable import StanzaTable


class PackagesIndex:
    """The stanzas of one archive's Packages files, by package name."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._tables = [StanzaTable(path) for path in paths]
        self._virtual: dict[str, list[str]] | None = None

    def __contains__(self, name: str) -> bool:
        return any(name.encode() in table for table in self._tables)

    def names(self) -> Iterator[str]:
        """Every package name, as often as there are files that hold it."""
        return (name.decode("utf-8", "replace") for table in self._tables for name in table.names())

    def texts(self, name: str) -> tuple[str, ...]:
        """The stanzas of a package, one for each version the archive holds."""
        return tuple(_text(stanza) for table in self._tables for stanza in table.stanzas(name.encode()))

    def find_text(self, name: str, version: str, arch: str) -> str | None:
        """The stanza of one version of a package, as text."""
        for text in self.texts(name):
            stanza = fields(text)
            if stanza.get("Version") == version and stanza.get("Architecture") == arch:
                return text
        return None

    def find(self, name: str, version: str, arch: str) -> dict[str, str] | None:
        """The fields (Filename, Size, SHA256, …) of one version of a package."""
        text = self.find_text(name, version, arch)
        return None if text is None else fields(text)

    def versions(self, name: str) -> tuple[str, ...]:
        """The versions of a package, in the archive's order."""
        return tuple(fields(text).get("Version", "") for text in self.texts(name))

    def providers(self, name: str) -> tuple[str, ...]:
        """The packages that provide a virtual one."""
        if self._virtual is None:
            self._virtual = {}
            for package, stanza in self._each():
                start = stanza.find(b"\nProvides: ")
                if start >= 0:
                    value = _text(stanza[start + 11 : stanza.find(b"\n", start + 1)])
                    for provided in names_in(value):
                        self._virtual.setdefault(provided, []).append(package.decode("utf-8", "replace"))
        return tuple(dict.fromkeys(self._virtual.get(name, ())))

    def marked(self) -> tuple[str, ...]:
        """Names of the packages that are essential or of priority required: what a minimal system holds."""
        wanted = {
            package.decode("utf-8", "replace")
            for package, stanza in self._each()
            if b"\nPriority: required\n" in stanza or b"\nEssential: yes\n" in stanza
        }
        return tuple(sorted(wanted))

    def siblings(self, name: str, version: str) -> tuple[tuple[str, str], ...]:
        """(name, version) of every binary package of the source that one version of a package was built
        from, itself included; empty when the archive does not hold that version."""
        for text in self.texts(name):
            stanza = fields(text)
            if stanza.get("Version") == version:
                source, source_version = _source(stanza)
                break
        else:
            return ()
        found = set()
        needle = f"\nSource: {source}".encode()
        for package, stanza_bytes in self._each():
            if package == source.encode() or needle in stanza_bytes:
                stanza = fields(_text(stanza_bytes))
                if _source(stanza) == (source, source_version):
                    found.add((stanza["Package"], stanza["Version"]))
        return tuple(sorted(found))

    def _each(self) -> Iterator[tuple[bytes, bytes]]:
        return (each for table in self._tables for each in table.every())


def suggest(indexes: Iterable[PackagesIndex], name: str, *, count: int = 3) -> tuple[str, ...]:
    """Names that somebody who wrote `name` may have meant, best first."""
    import difflib

    # Comparing with every name of an archive takes seconds; a typing mistake keeps most of the length and,
    # nearly always, the first letter.
    near = {
        each
        for index in indexes
        for each in index.names()
        if abs(len(each) - len(name)) <= 3 and each[:1] == name[:1]
    }
    return tuple(difflib.get_close_matches(name, sorted(near), n=count, cutoff=0.75))


def _source(stanza: dict[str, str]) -> tuple[str, str]:
    """Source package and its version (`Source: jq (1.7.1-6)`, both only named when they differ)."""
    name, _, rest = stanza.get("Source", stanza.get("Package", "")).partition(" ")
    return name, rest.strip("() ") or stanza.get("Version", "")


def _text(stanza: bytes) -> str:
    return stanza.decode("utf-8", "replace")
