"""What dpkg and apt believe is installed: their own files, made from a base's and a lock's rows."""

from __future__ import annotations

import re
from collections.abc import Iterable

from sandboxfile.inputs.control import fields, stanzas

_INDEX_ONLY = frozenset(
    {"Filename", "Size", "MD5sum", "SHA1", "SHA256", "SHA512", "Description-md5", "Tag", "Task", "Status"}
)


class DpkgState:
    """The installed packages, as the text of dpkg's `status` and apt's `extended_states`."""

    def __init__(self, status: str = "", extended: str = "") -> None:
        self._stanzas: dict[tuple[str, str], str] = {}
        self._auto: set[tuple[str, str]] = set()
        for text in stanzas(status):
            found = fields(text)
            if found.get("Status", "").endswith(" installed"):
                self._stanzas[found["Package"], found.get("Architecture", "")] = text
        for text in stanzas(extended):
            found = fields(text)
            if found.get("Auto-Installed") == "1":
                self._auto.add((found.get("Package", ""), found.get("Architecture", "")))

    def versions(self) -> dict[str, str]:
        """The installed version of each package, by name."""
        return {name: fields(text).get("Version", "") for (name, _), text in self._stanzas.items()}

    def architecture(self, name: str) -> str:
        """The architecture of an installed package, `all` for most data; empty when it is not there."""
        return next((arch for each, arch in self._stanzas if each == name), "")

    def fields_of(self, name: str) -> dict[str, str]:
        """The control fields of an installed package; empty when it is not there."""
        return next((fields(text) for (each, _), text in self._stanzas.items() if each == name), {})

    def automatic(self) -> frozenset[str]:
        """Names of the packages that nobody asked for."""
        return frozenset(name for name, _ in self._auto)

    def install(self, stanza: str, *, auto: bool) -> None:
        """Add a package by its control stanza (a deb's or an index's), in place of any other version."""
        found = fields(stanza)
        self.remove(found["Package"])
        kept = _without(stanza, _INDEX_ONLY)
        key = (found["Package"], found["Architecture"])
        self._stanzas[key] = kept.replace("\n", "\nStatus: install ok installed\n", 1)
        if auto:
            self._auto.add(key)

    def remove(self, name: str) -> None:
        """Take a package away."""
        for key in [key for key in self._stanzas if key[0] == name]:
            del self._stanzas[key]
        self._auto = {key for key in self._auto if key[0] != name}

    def manual(self, names: Iterable[str]) -> None:
        """Mark packages as asked for by name."""
        wanted = frozenset(names)
        self._auto = {key for key in self._auto if key[0] not in wanted}

    def status(self) -> str:
        """The text of `/var/lib/dpkg/status`."""
        return "".join(f"{self._stanzas[key]}\n\n" for key in sorted(self._stanzas))

    def extended_states(self, native: str) -> str:
        """The text of `/var/lib/apt/extended_states`; apt records an `all` package under `native`."""
        return "".join(
            f"Package: {name}\nArchitecture: {native if arch == 'all' else arch}\nAuto-Installed: 1\n\n"
            for name, arch in sorted(self._auto)
        )


def _without(stanza: str, names: frozenset[str]) -> str:
    """A stanza without some of its fields; `Package` comes first, as dpkg writes it."""
    kept: list[str] = []
    keep = True
    for line in stanza.splitlines():
        if line[:1] not in {" ", "\t"}:
            keep = line.partition(":")[0] not in names
        if keep:
            kept.append(line)
    first = next((i for i, line in enumerate(kept) if re.match(r"Package:", line)), 0)
    kept.insert(0, kept.pop(first))
    return "\n".join(kept)
