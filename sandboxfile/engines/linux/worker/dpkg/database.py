"""dpkg's database below a root: what it knows, and the records of packages unpacked in its place.

The format is that of dpkg 1.17 and later (`info/format` 1). Records are added to `status` with the fields in
the order of their control files; the next dpkg puts the fields, and the records, into its own order.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence

from sandboxfile.engines.linux.syscalls import open_in_root
from sandboxfile.engines.linux.worker.dpkg.candidate import Candidate, Package, package_of
from sandboxfile.engines.linux.worker.dpkg.staging import Staged
from sandboxfile.inputs.control import fields, stanzas

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
_WHERE = "/var/lib/dpkg"
_CONFIGURATION = ("/etc/dpkg/dpkg.cfg", "/root/.dpkg.cfg")
_HARMLESS = re.compile(r"\s*(#.*|no-debsig|log[\s=].*|force-(unsafe-io|confdef|confold|confmiss))?\s*")


class UnknownDatabase(Exception):
    """The database, or dpkg's configuration, is not one that only dpkg's own unpacking depends on."""


class Database:
    """The database of the packages below `root`. UnknownDatabase when it is not understood in full."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._check()
        self.packages: dict[str, list[Package]] = {}
        self.native = ""
        self._records: list[str] = []
        self._installed: dict[str, int] = {}
        try:
            for stanza in stanzas(self._text("status")):
                self._add(stanza)
        except (KeyError, ValueError) as error:
            raise UnknownDatabase(f"a record of it is not understood: {error}") from None
        if not self.native:
            raise UnknownDatabase("dpkg itself is not installed")

    def _add(self, stanza: str) -> None:
        found = fields(stanza)
        self._records.append(stanza)
        state = found["Status"].split()
        if state[1:] not in (["ok", "installed"], ["ok", "config-files"], ["ok", "not-installed"]):
            raise UnknownDatabase(f"{found['Package']} is {' '.join(state)}")
        if state[2] == "not-installed":
            return
        package = package_of(found)
        if package.name == "dpkg":
            self.native = package.arch
        if state[2] == "installed":
            self._installed[package.qualified] = len(self._records) - 1
        self.packages.setdefault(package.name, []).append(package)

    def _check(self) -> None:
        if self._text("info/format").strip() != "1":
            raise UnknownDatabase("its format is another one")
        if self._names("updates"):
            raise UnknownDatabase("dpkg was interrupted")
        directory = "/etc/dpkg/dpkg.cfg.d"
        files = [f"{directory}/{name}" for name in _names(self._root, directory)]
        for path in (*_CONFIGURATION, *files):
            for line in _text(self._root, path).splitlines():
                if not _HARMLESS.fullmatch(line):
                    raise UnknownDatabase(f"{path} says `{line.strip()}`")

    def touched(self) -> set[str]:
        """Paths that are diverted or diverted to, and those whose attributes are overridden."""
        diverted = self._text("diversions").splitlines()
        overridden = [line.split(None, 3)[-1] for line in self._text("statoverride").splitlines() if line]
        return {line for line in (*diverted, *overridden) if line.startswith("/")}

    def record(self, packages: Sequence[tuple[Candidate, Sequence[Staged]]]) -> None:
        """Record packages as unpacked, and the triggers that they set off as pending."""
        pending, awaited = self._set_off(packages)
        for name, triggers in pending.items():
            number = self._installed[name]
            # dpkg reads them in, and so turns them round, once more.
            names = " ".join(reversed(triggers))
            self._records[number] = (
                re.sub("(?m)^(Status: .*) installed$", r"\1 triggers-pending", self._records[number], count=1)
                + f"\nTriggers-Pending: {names}"
            )
        self._records += [
            _record(candidate, awaited.get(candidate.package.name, ())) for candidate, _ in packages
        ]
        info = open_in_root(self._root, f"{_WHERE}/info", _DIRECTORY)
        try:
            for candidate, entries in packages:
                _write_info(info, candidate, entries)
        finally:
            os.close(info)
        self._add_interests([candidate for candidate, _ in packages])
        self._write("status", os.O_TRUNC, "".join(f"{record}\n\n" for record in self._records))

    def _set_off(
        self, packages: Sequence[tuple[Candidate, Sequence[Staged]]]
    ) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        """The triggers that the packages set off, by names and by paths: for each interested package that is
        there their names, and for each of the new ones the packages it waits for."""
        pending: dict[str, list[str]] = {}
        awaited: dict[str, list[str]] = {}
        by_path: dict[str, list[str]] = {}
        for line in self._text("triggers/File").splitlines():
            path, _, interested = line.partition(" ")
            by_path.setdefault(path, []).append(interested)

        def activate(trigger: str, interested: Sequence[str], waits_for: str | None) -> None:
            for each in interested:
                name, _, option = each.partition("/")
                if name not in self._installed:
                    continue
                names = pending.setdefault(name, [])
                if trigger not in names:
                    names.append(trigger)
                if waits_for and option != "noawait" and name not in awaited.setdefault(waits_for, []):
                    awaited[waits_for].append(name)

        for candidate, entries in packages:
            name = candidate.package.name
            for trigger in candidate.triggers:
                if trigger.action == "activate":
                    by_name = self._interested(trigger.name, by_path)
                    activate(trigger.name, by_name, None if trigger.option else name)
            for entry in entries:
                if entry.path in by_path:
                    activate(entry.path, by_path[entry.path], name)
        return pending, awaited

    def _interested(self, trigger: str, by_path: Mapping[str, list[str]]) -> list[str]:
        """Who has an interest in a trigger that is set off by name."""
        if trigger.startswith("/"):
            return by_path.get(trigger, [])
        return self._text(f"triggers/{trigger}").splitlines()

    def _add_interests(self, candidates: Sequence[Candidate]) -> None:
        lines: dict[str, list[str]] = {}
        for candidate in candidates:
            for trigger in candidate.triggers:
                if trigger.action == "interest":
                    name = f"{candidate.package.qualified}{trigger.option}"
                    path = trigger.name.startswith("/")
                    of_file = lines.setdefault("File" if path else trigger.name, [])
                    line = f"{trigger.name} {name}\n" if path else f"{name}\n"
                    if line not in of_file:
                        of_file.append(line)
        for file, added in lines.items():
            self._write(f"triggers/{file}", os.O_APPEND, "".join(added))

    def _text(self, name: str) -> str:
        return _text(self._root, f"{_WHERE}/{name}")

    def _names(self, name: str) -> list[str]:
        return _names(self._root, f"{_WHERE}/{name}")

    def _write(self, name: str, flag: int, text: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | flag
        descriptor = open_in_root(self._root, f"{_WHERE}/{name}", flags, 0o644)
        with open(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)


def _record(candidate: Candidate, awaited: Sequence[str]) -> str:
    first, *rest = candidate.stanza.splitlines()
    lines = [first, "Status: install ok unpacked", *rest]
    if candidate.conffiles:
        lines += ["Conffiles:", *(f" {os.fsdecode(path)} newconffile" for path in candidate.conffiles)]
    if awaited:
        lines.append(f"Triggers-Awaited: {' '.join(awaited)}")
    return "\n".join(lines)


def _write_info(info: int, candidate: Candidate, entries: Sequence[Staged]) -> None:
    name = candidate.package.qualified
    paths = "".join(f"{'/.' if entry.path == '/' else entry.path}\n" for entry in entries)
    _write(info, f"{name}.list", 0o644, os.fsencode(paths))
    for kind, file in candidate.info_files:
        _write(info, f"{name}.{kind}", file.mode, file.content, file.time)


def _write(directory: int, name: str, mode: int, content: bytes, time: int | None = None) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(name, flags, 0o600, dir_fd=directory), "wb") as file:
        file.write(content)
        file.flush()
        os.fchmod(file.fileno(), mode)
        if time is not None:
            os.utime(file.fileno(), (time, time))


def _text(root: int, path: str) -> str:
    try:
        descriptor = open_in_root(root, path, os.O_RDONLY)
    except FileNotFoundError:
        return ""
    with open(descriptor, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def _names(root: int, path: str) -> list[str]:
    try:
        descriptor = open_in_root(root, path, _DIRECTORY)
    except FileNotFoundError:
        return []
    try:
        return sorted(os.listdir(descriptor))
    finally:
        os.close(descriptor)


def accounts_in(root: int, path: str) -> Iterator[tuple[str, int]]:
    """Names and ids of a passwd or group file; of two lines with one name the first counts."""
    known: set[str] = set()
    for line in _text(root, path).splitlines():
        parts = line.split(":")
        if len(parts) > 2 and parts[2].isdecimal() and parts[0] not in known:
            known.add(parts[0])
            yield parts[0], int(parts[2])
