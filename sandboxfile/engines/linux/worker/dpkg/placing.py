"""Deciding where the entries of unpacked packages go, and putting them there.

Everything is decided before anything is put anywhere: a package with a path that exists (directories
excepted), that two packages have, that is diverted or overridden, or whose directories are not its own, is
left to dpkg, and so is every other package concerned.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from sandboxfile.engines.linux.syscalls import open_in_root
from sandboxfile.engines.linux.worker.dpkg.staging import Staged, Unpacked

_PATH = os.O_PATH | os.O_DIRECTORY
_LIST = os.O_RDONLY | os.O_DIRECTORY
_NEW = ".dpkg-new"
_LEFTOVERS = (_NEW, ".dpkg-tmp")


@dataclass
class Directory:
    """A directory of the root, under its real path (no links in it).

    there: whether it exists already
    names: what is in it, by name: `dir`, `link` or `other`
    """

    path: str
    there: bool
    names: dict[str, str] = field(default_factory=dict)


class Tree:
    """The root as it is: real paths of directories, and their content, looked up once."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._top = os.readlink(f"/proc/self/fd/{root}")
        self._real: dict[str, Directory] = {}
        self._known: dict[str, Directory | None] = {"/": self._listed("/")}

    def directory(self, path: str) -> Directory | None:
        """The directory that a path leads to, or would; None when something else is, or would be, in the
        way."""
        if path in self._known:
            return self._known[path]
        above, name = os.path.split(path)
        parent = self.directory(above)
        found: Directory | None
        if parent is None:
            found = None
        else:
            real = os.path.join(parent.path, name)
            kind = parent.names.get(name)
            if kind is None:
                found = self._real.setdefault(real, Directory(real, False))
            elif kind == "dir":
                found = self._listed(real)
            else:
                found = self._followed(real) if kind == "link" else None
        self._known[path] = found
        return found

    def _followed(self, link: str) -> Directory | None:
        try:
            descriptor = open_in_root(self._root, link, _PATH)
        except OSError:
            return None
        try:
            real = os.readlink(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
        if not f"{real}/".startswith(f"{self._top}/"):
            return None
        return self._listed(real.removeprefix(self._top) or "/")

    def _listed(self, real: str) -> Directory:
        if real not in self._real:
            descriptor = open_in_root(self._root, real, _LIST)
            try:
                with os.scandir(descriptor) as listing:
                    names = {entry.name: _kind(entry) for entry in listing}
            finally:
                os.close(descriptor)
            self._real[real] = Directory(real, True, names)
        return self._real[real]


def _kind(entry: os.DirEntry[str]) -> str:
    if entry.is_symlink():
        return "link"
    return "dir" if entry.is_dir(follow_symlinks=False) else "other"


class Placing:
    """Where the entries of packages go.

    packages:  what was unpacked, in the order of unpacking; those without entries are not placed
    conffiles: for each package, the paths that dpkg puts in place when it configures it
    touched:   paths that are diverted, diverted to, or overridden
    """

    def __init__(
        self,
        tree: Tree,
        packages: Sequence[Unpacked],
        conffiles: Sequence[Collection[str]],
        touched: Collection[str],
    ) -> None:
        self._tree = tree
        self._packages = packages
        self._conffiles = conffiles
        self._touched = touched
        self._objections: dict[int, str] = {}

    def objections(self) -> dict[int, str]:
        """Why packages have to be left to dpkg, by position."""
        owners: dict[str, tuple[int, bool]] = {}
        for number, entries in enumerate(self._packages):
            if isinstance(entries, str):
                self._objections[number] = entries
                continue
            reason = self._own_objection(number, entries)
            if reason:
                self._objections[number] = reason
            # What dpkg will unpack after us must not be in the way of the others either.
            for path, directory in self._real_paths(entries):
                other = owners.setdefault(path, (number, directory))
                if other != (number, directory) and not (directory and other[1]):
                    self._objections.setdefault(number, f"another package has {path} too")
                    self._objections.setdefault(other[0], f"another package has {path} too")
        return self._objections

    def _own_objection(self, number: int, entries: Sequence[Staged]) -> str | None:
        own = {entry.path for entry in entries if entry.kind == "dir"}
        kinds = {entry.path: entry.kind for entry in entries}
        if len(kinds) != len(entries):
            return "it holds a path twice"
        for path in self._conffiles[number]:
            if kinds.get(path) != "file":
                return f"{path} is a configuration file and no file"
        for entry in entries:
            if entry.path == "/":
                continue
            if entry.path in self._touched:
                return f"{entry.path} is diverted, or its attributes are overridden"
            above, name = os.path.split(entry.path)
            parent = self._tree.directory(above)
            if parent is None or (not parent.there and above not in own):
                return f"{above} is no directory, or not its own"
            if entry.kind == "dir":
                if self._tree.directory(entry.path) is None:
                    return f"{entry.path} exists"
            elif any(f"{name}{end}" in parent.names for end in ("", *_LEFTOVERS)):
                return f"{entry.path} exists"
            elif entry.kind == "link" and {entry.path, entry.target} & set(self._conffiles[number]):
                return f"{entry.path} is a link to a configuration file"
        return None

    def _real_paths(self, entries: Sequence[Staged]) -> list[tuple[str, bool]]:
        found = []
        for entry in entries:
            if entry.kind == "dir":
                directory = self._tree.directory(entry.path)
                if directory is not None:
                    found.append((directory.path, True))
                    continue
            above, name = os.path.split(entry.path)
            parent = self._tree.directory(above)
            real = os.path.join(parent.path, name) if parent else entry.path
            found.append((real, entry.kind == "dir"))
        return found

    def place(self, root: int, stage: int, chosen: Sequence[int]) -> None:
        """Put the entries of the chosen packages where they go."""
        directories: dict[str, Staged] = {}
        others: dict[str, list[tuple[str, int, Staged]]] = {}
        for number in chosen:
            entries = self._packages[number]
            assert not isinstance(entries, str)
            for entry in entries:
                above, name = os.path.split(entry.path)
                if entry.kind == "dir":
                    directory = self._tree.directory(entry.path)
                    if directory is not None and not directory.there:
                        # The package that is unpacked first gives a directory its attributes.
                        directories.setdefault(directory.path, entry)
                    continue
                parent = self._tree.directory(above)
                assert parent is not None
                if entry.path in self._conffiles[number]:
                    name += _NEW
                others.setdefault(parent.path, []).append((name, number, entry))
        for path in sorted(directories):
            _make_directory(root, path, directories[path])
        for path, found in others.items():
            target = open_in_root(root, path, _PATH)
            try:
                for name, number, entry in found:
                    _put(stage, target, name, number, entry)
            finally:
                os.close(target)


def _make_directory(root: int, path: str, entry: Staged) -> None:
    above, name = os.path.split(path)
    parent = open_in_root(root, above, _PATH)
    try:
        # As dpkg does it: only a directory that is renamed into a merged one is made opaque by the kernel.
        new = name + _NEW
        os.mkdir(new, 0o700, dir_fd=parent)
        os.chown(new, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        os.chmod(new, entry.mode, dir_fd=parent)
        os.rename(new, name, src_dir_fd=parent, dst_dir_fd=parent)
    finally:
        os.close(parent)


def _put(stage: int, target: int, name: str, number: int, entry: Staged) -> None:
    if entry.kind == "symlink":
        os.symlink(entry.target, name, dir_fd=target)
        os.chown(name, entry.uid, entry.gid, dir_fd=target, follow_symlinks=False)
        os.utime(name, (entry.time, entry.time), dir_fd=target, follow_symlinks=False)
    else:
        os.rename(f"{number}/{entry.number}", name, src_dir_fd=stage, dst_dir_fd=target)
