"""Making a layer's content equal everywhere, and the digest of it."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from sandboxfile.core.normalise import DROPPED_ATTRIBUTES, Rules, Treatment
from sandboxfile.engines.linux.syscalls import syncfs
from sandboxfile.engines.linux.worker.tasks import Context

MANIFEST_TAG = "sandboxfile.content/v1"
_OVERLAY_JUNK = ("user.overlay.origin", "user.overlay.impure", "user.overlay.uuid")
_OPAQUE = "user.overlay.opaque"
_CHUNK = 1 << 20
_HASHERS = 2


def seal(context: Context) -> dict[str, Any]:
    """Normalise the tree `root` (when `epoch` is given), describe it, and put it on disk: a layer whose name
    survives a loss of power has its content then.

    epoch:   seconds that new files and all directories get as their time
    started: seconds; files that are newer were made by the build
    """
    os.fchdir(context.dirs["root"])
    epoch = context.args["epoch"]
    unreproducible = [] if epoch is None else _normalise(epoch, context.args["started"])
    with _synced(context.dirs["root"]):
        entries, size = _describe()
    digest = hashlib.sha256(json.dumps(MANIFEST_TAG).encode() + b"\n")
    for entry in entries:
        digest.update(json.dumps(entry, separators=(",", ":"), ensure_ascii=True).encode() + b"\n")
    return {
        "diff_id": "sha256:" + digest.hexdigest(),
        "size": size,
        "entries": len(entries),
        "unreproducible": sorted(unreproducible),
    }


def sync(context: Context) -> None:
    """Put the file system of `root` on disk."""
    syncfs(context.dirs["root"])


def manifest(context: Context) -> dict[str, Any]:
    """Write the rows that describe the tree `root` to `descriptors[0]`, one JSON document a line."""
    os.fchdir(context.dirs["root"])
    entries, size = _describe()
    with open(context.descriptors[0], "wb", closefd=False) as out:
        out.writelines(json.dumps(entry, separators=(",", ":")).encode() + b"\n" for entry in entries)
    return {"size": size, "entries": len(entries)}


@contextmanager
def _synced(root: int) -> Iterator[None]:
    """Write to the disk while the block computes."""
    with ThreadPoolExecutor(1) as pool:
        written = pool.submit(syncfs, root)
        yield
        written.result()


def _walk(top: str = ".") -> Iterator[tuple[str, list[os.DirEntry[str]]]]:
    """Each directory (path without leading `./`) with its entries, parents first."""
    waiting = [""]
    while waiting:
        directory = waiting.pop()
        with os.scandir(directory or top) as listing:
            entries = sorted(listing, key=lambda entry: os.fsencode(entry.name))
        yield directory, entries
        waiting += [_join(directory, e.name) for e in entries if e.is_dir(follow_symlinks=False)]


def _join(directory: str, name: str) -> str:
    return f"{directory}/{name}" if directory else name


def _normalise(epoch: int, started: float) -> list[str]:
    rules = Rules()
    reported: list[str] = []
    directories: list[str] = []
    limit = int(started * 1e9)
    new = epoch * 10**9
    for directory, entries in _walk():
        directories.append(directory or ".")
        for entry in entries:
            path = _join(directory, entry.name)
            about = entry.stat(follow_symlinks=False)
            if _is_whiteout(about) or stat.S_ISDIR(about.st_mode):
                continue
            rule = rules.rule_for(path)
            treatment = rule.treatment if rule else None
            if treatment is Treatment.REMOVE or stat.S_ISSOCK(about.st_mode):
                os.unlink(path)
                continue
            if treatment is Treatment.EMPTY and stat.S_ISREG(about.st_mode):
                os.truncate(path, 0)
                _set_time(path, new)
                continue
            if treatment is Treatment.SORT and stat.S_ISREG(about.st_mode) and _sort_lines(path):
                _set_time(path, new)
                continue
            if treatment is Treatment.REPORT:
                reported.append("/" + path)
            when = new if about.st_mtime_ns >= limit else about.st_mtime_ns // 10**9 * 10**9
            if when != about.st_mtime_ns:
                _set_time(path, when)
    for directory in directories:
        _set_time(directory, new)
        for name in _OVERLAY_JUNK:
            try:
                os.removexattr(directory, name)
            except OSError:
                pass  # it is not there, or the file system has no such attributes
    return reported


def _sort_lines(path: str) -> bool:
    """Sort the lines of a file in place; whether they were not sorted before."""
    with open(path, "r+b") as file:
        content = file.read()
        lines = content.splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):
            return False
        ordered = b"".join(sorted(lines))
        if ordered == content:
            return False
        file.seek(0)
        file.write(ordered)
    return True


def _set_time(path: str, nanoseconds: int) -> None:
    os.utime(path, ns=(nanoseconds, nanoseconds), follow_symlinks=False)


def _is_whiteout(about: os.stat_result) -> bool:
    return stat.S_ISCHR(about.st_mode) and about.st_rdev == 0


def _describe() -> tuple[list[list[Any]], int]:
    """The manifest, sorted by path, and the bytes of all files.

    An entry is [path, type, mode, uid, gid, mtime, xattrs, …] with, by type: file `f` size and sha256, link
    `l` its target, hard link `h` the first path of its group; directory `d` whether it is opaque.
    """
    found: list[list[Any]] = [["", *_attributes(".", os.stat("."))]]
    contents: list[list[Any]] = []
    first: dict[tuple[int, int], str] = {}
    size = 0
    paths = [(_join(d, e.name), e.stat(follow_symlinks=False)) for d, es in _walk() for e in es]
    paths.sort(key=lambda item: os.fsencode(item[0]))
    for path, about in paths:
        entry = [path, *_attributes(path, about)]
        kind = entry[1]
        if kind != "d" and kind != "w" and about.st_nlink > 1:
            original = first.setdefault((about.st_dev, about.st_ino), path)
            if original != path:
                entry[1] = "h"
                found.append([*entry, original])
                continue
        if kind == "f":
            size += about.st_size
            entry += [about.st_size, ""]
            contents.append(entry)
        elif kind == "l":
            entry.append(os.readlink(path))
        found.append(entry)
    _hash_contents(contents)
    return found, size


def _attributes(path: str, about: os.stat_result) -> list[Any]:
    mode = about.st_mode
    if _is_whiteout(about):
        return ["w"]
    if stat.S_ISREG(mode):
        kind = "f"
    elif stat.S_ISDIR(mode):
        kind = "d"
    elif stat.S_ISLNK(mode):
        kind = "l"
    elif stat.S_ISFIFO(mode):
        kind = "p"
    else:
        kind = f"c{about.st_rdev}" if stat.S_ISCHR(mode) else f"b{about.st_rdev}"
    xattrs: dict[str, str] = {}
    opaque = False
    if kind != "l":
        for name in os.listxattr(path, follow_symlinks=False):
            if name == _OPAQUE:
                opaque = kind == "d" and os.getxattr(path, name) == b"y"
            elif name in _OVERLAY_JUNK and kind != "d":
                os.removexattr(path, name)
            elif not name.startswith(DROPPED_ATTRIBUTES):
                xattrs[name] = os.getxattr(path, name, follow_symlinks=False).hex()
    # Bits of a symbolic link's mode mean nothing, and file systems differ in them.
    permissions = 0 if kind == "l" else stat.S_IMODE(mode)
    seconds = about.st_mtime_ns // 10**9
    attributes: list[Any] = [kind, permissions, about.st_uid, about.st_gid, seconds, sorted(xattrs.items())]
    return [*attributes, opaque] if kind == "d" else attributes


def _hash_contents(entries: list[list[Any]]) -> None:
    """Fill in the sha256 of each file; hashing is done outside the interpreter's lock."""
    waiting = iter(sorted(entries, key=lambda entry: -int(entry[-2])))
    lock = threading.Lock()
    failures: list[BaseException] = []

    def work() -> None:
        try:
            while not failures:
                with lock:
                    entry = next(waiting, None)
                if entry is None:
                    return
                entry[-1] = _hash_file(entry[0])
        except BaseException as error:
            failures.append(error)

    helpers = [threading.Thread(target=work) for _ in range(_HASHERS - 1)]
    for helper in helpers:
        helper.start()
    work()
    for helper in helpers:
        helper.join()
    if failures:
        raise failures[0]


def _hash_file(path: str) -> str:
    digest = hashlib.sha256()
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        while piece := os.read(descriptor, _CHUNK):
            digest.update(piece)
    finally:
        os.close(descriptor)
    return digest.hexdigest()
