"""What a layer holds, entry by entry, and how two layers or two whole trees differ.

A manifest is what a `diff_id` is the digest of, as values: owners are the sandbox's, times whole seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any

from sandboxfile.declared import dataclass, replace


@dataclass(frozen=True)
class Entry:
    """One entry of a layer.

    path:   without leading slash; empty for the root directory. Bytes that are no text are surrogates
    kind:   `file`, `dir`, `symlink`, `hardlink`, `fifo`, `device`, or `whiteout`: what is below is gone
    mtime:  seconds
    xattrs: name and value (hexadecimal) of extended attributes, sorted
    opaque: whether a directory hides what is below it
    size, sha256: of a file
    target: of a symlink; for a hard link, the path it shares its content with
    """

    path: str
    kind: str
    mode: int = 0
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    xattrs: tuple[tuple[str, str], ...] = ()
    opaque: bool = False
    size: int = 0
    sha256: str = ""
    target: str = ""


_KINDS = {"f": "file", "d": "dir", "l": "symlink", "h": "hardlink", "p": "fifo", "w": "whiteout"}


def entry_of(row: list[Any]) -> Entry:
    """An entry from the row that is hashed for it: [path, type, mode, uid, gid, mtime, xattrs, …]."""
    path, letter = row[0], row[1]
    kind = _KINDS.get(letter, "device")
    if kind == "whiteout":
        return Entry(path, kind)
    mode, uid, gid, mtime = row[2:6]
    xattrs = tuple((name, value) for name, value in row[6])
    rest = row[7:]
    if kind == "dir":
        return Entry(path, kind, mode, uid, gid, mtime, xattrs, opaque=rest[0])
    if kind == "file":
        return Entry(path, kind, mode, uid, gid, mtime, xattrs, size=rest[0], sha256=rest[1])
    target = rest[0] if rest else letter if kind == "device" else ""
    return Entry(path, kind, mode, uid, gid, mtime, xattrs, target=target)


class Change(StrEnum):
    """How an entry of one tree differs from that of the same path in another."""

    ADDED = "added"
    REMOVED = "removed"
    KIND = "kind"
    CONTENT = "content"
    TARGET = "target"
    MODE = "mode"
    OWNER = "owner"
    ATTRIBUTES = "attributes"
    TIME = "time"


@dataclass(frozen=True)
class Difference:
    """One path at which two trees differ; `first` and `second` are its entries, None where there is none.
    `changes` holds everything that differs, what matters most first."""

    path: str
    changes: tuple[Change, ...]
    first: Entry | None
    second: Entry | None

    @property
    def detail(self) -> str:
        """What differs, for people: `mode 644 -> 755`."""
        a, b = self.first, self.second
        if a is None or b is None:
            return ""
        words = {
            Change.KIND: (a.kind, b.kind),
            Change.CONTENT: (f"{a.size} bytes", f"{b.size} bytes"),
            Change.TARGET: (a.target, b.target),
            Change.MODE: (f"{a.mode:o}", f"{b.mode:o}"),
            Change.OWNER: (f"{a.uid}:{a.gid}", f"{b.uid}:{b.gid}"),
            Change.ATTRIBUTES: (_names(a), _names(b)),
            Change.TIME: (str(a.mtime), str(b.mtime)),
        }
        parts = []
        for change in self.changes:
            before, after = words[change]
            told = f"{before} -> {after}" if before != after else f"other bytes, {after}"
            parts.append(f"{change.value} {told}")
        return ", ".join(parts)


def _names(entry: Entry) -> str:
    return " ".join(name for name, _ in entry.xattrs) or "none"


def differences(
    first: Iterable[Entry], second: Iterable[Entry], *, times: bool = True
) -> tuple[Difference, ...]:
    """Where two manifests differ, by path. Without `times`, a time alone is no difference."""
    before = {entry.path: entry for entry in first}
    after = {entry.path: entry for entry in second}
    found = []
    for path in sorted(before.keys() | after.keys()):
        a, b = before.get(path), after.get(path)
        if a == b:
            continue
        changes = tuple(_changes(a, b, times))
        if changes:
            found.append(Difference(path, changes, a, b))
    return tuple(found)


def _changes(a: Entry | None, b: Entry | None, times: bool) -> Iterator[Change]:
    if a is None or b is None:
        yield Change.ADDED if a is None else Change.REMOVED
        return
    if a.kind != b.kind:
        yield Change.KIND
        return
    if (a.size, a.sha256) != (b.size, b.sha256):
        yield Change.CONTENT
    if a.target != b.target:
        yield Change.TARGET
    if a.mode != b.mode:
        yield Change.MODE
    if (a.uid, a.gid) != (b.uid, b.gid):
        yield Change.OWNER
    if a.xattrs != b.xattrs or a.opaque != b.opaque:
        yield Change.ATTRIBUTES
    if times and a.mtime != b.mtime:
        yield Change.TIME


def stacked(manifests: Iterable[Iterable[Entry]]) -> Mapping[str, Entry]:
    """The tree that layers make, lowest first, by path: deletions done, hard links as files of their own."""
    tree: dict[str, Entry] = {}
    for manifest in manifests:
        here = {entry.path: entry for entry in manifest}
        hidden = {
            path for path, entry in here.items() if entry.opaque or (path in tree and entry.kind != "dir")
        }
        if hidden:
            tree = {path: entry for path, entry in tree.items() if hidden.isdisjoint(_line(path))}
        for path, entry in here.items():
            if entry.kind != "whiteout":
                tree[path] = _resolved(entry, here)
    return tree


def _resolved(entry: Entry, layer: Mapping[str, Entry]) -> Entry:
    return replace(layer[entry.target], path=entry.path) if entry.kind == "hardlink" else entry


def _line(path: str) -> Iterator[str]:
    """A path and everything above it."""
    while path:
        yield path
        path = path.rpartition("/")[0]
