"""Placing a detached layer on layers it knows nothing of.

A detached layer holds files and, on the way to them, implied directories it has no opinion about. Where the
layers below have such a directory, its mode, owner and time stay; where they have a link instead (`/bin`),
the files go where the link leads, never outside of the root.
"""

from __future__ import annotations

import os
import stat
from typing import Any

from sandboxfile.engines.linux.syscalls import open_in_root
from sandboxfile.engines.linux.worker.tasks import Context, TaskFailed

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY


def agree(context: Context) -> bool:
    """Whether layer `source` can be stacked on `below` as it is."""
    below, source = context.dirs["below"], context.dirs["source"]
    implied = set(context.args["implied"])
    for path, about in _entries(source):
        if not stat.S_ISDIR(about.st_mode):
            continue
        try:
            found = os.stat(path.lstrip("/"), dir_fd=below, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            continue
        if not stat.S_ISDIR(found.st_mode):
            return False
        if path in implied and _identity(found) != _identity(about):
            return False
    return True


def _identity(about: os.stat_result) -> tuple[int, int, int, int]:
    return about.st_mode, about.st_uid, about.st_gid, about.st_mtime_ns


def _entries(source: int) -> list[tuple[str, os.stat_result]]:
    """Each entry below a directory with its absolute path, parents first."""
    found: list[tuple[str, os.stat_result]] = []
    waiting = [""]
    while waiting:
        directory = waiting.pop()
        descriptor = os.open(directory.lstrip("/") or ".", _DIRECTORY | os.O_NOFOLLOW, dir_fd=source)
        try:
            names = sorted(os.listdir(descriptor))
            for name in names:
                about = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                found.append((f"{directory}/{name}", about))
        finally:
            os.close(descriptor)
        waiting += [p for p, a in found[len(found) - len(names) :] if stat.S_ISDIR(a.st_mode)]
    return found


def materialise(context: Context) -> dict[str, Any]:
    """Make, in `target`, the layer that puts the content of `source` on `below`."""
    placing = _Placing(context.dirs["below"], context.dirs["source"], context.dirs["target"])
    implied = set(context.args["implied"])
    for path, about in _entries(placing.source):
        if path not in implied:
            placing.put(path, about)
    placing.finish()
    return {}


class _Placing:
    def __init__(self, below: int, source: int, target: int) -> None:
        self.below, self.source, self.target = below, source, target
        self._times: dict[str, int] = {}
        self._copy_attributes(os.fstat(below), target)
        self._times["/"] = os.fstat(below).st_mtime_ns

    def put(self, path: str, about: os.stat_result) -> None:
        """Put one entry of the source where its path leads."""
        directory, name = os.path.split(path)
        if stat.S_ISDIR(about.st_mode):
            resolved = self._directory(path)
            with _Opened(self.target, resolved) as made:
                self._copy_attributes(about, made)
            self._times[resolved] = about.st_mtime_ns
            return
        parent = self._directory(directory)
        with _Opened(self.source, directory) as origin, _Opened(self.target, parent) as made:
            try:
                os.link(name, name, src_dir_fd=origin, dst_dir_fd=made, follow_symlinks=False)
            except FileExistsError:
                # Two paths of the layer lead to the same place below; the later one wins.
                os.unlink(name, dir_fd=made)
                os.link(name, name, src_dir_fd=origin, dst_dir_fd=made, follow_symlinks=False)

    def finish(self) -> None:
        """Set the directories' times, the deepest first."""
        for path in sorted(self._times, key=len, reverse=True):
            with _Opened(self.target, path) as directory:
                os.utime(directory, ns=(self._times[path], self._times[path]))

    def _directory(self, path: str) -> str:
        """Make a directory in the target; its path after all links of the layers below."""
        resolved = self._resolve(path)
        so_far = ""
        for part in [part for part in resolved.split("/") if part]:
            above, so_far = so_far or "/", f"{so_far}/{part}"
            with _Opened(self.target, above) as parent:
                try:
                    os.mkdir(part, 0o755, dir_fd=parent)
                except FileExistsError:
                    continue
                with _Opened(parent, part) as made:
                    about = self._attributes_for(so_far, path)
                    self._copy_attributes(about, made)
                    self._times[so_far] = about.st_mtime_ns
        return resolved

    def _resolve(self, path: str) -> str:
        """Where a path leads in the layers below; what does not exist there is kept as it is."""
        parts = [part for part in path.split("/") if part]
        for depth in range(len(parts), -1, -1):
            prefix = "/" + "/".join(parts[:depth])
            try:
                descriptor = open_in_root(self.below, prefix, os.O_PATH)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise TaskFailed(f"{path}: {error.strerror} in the layers below", kind="BuildError") from None
            try:
                if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
                    raise TaskFailed(
                        f"{prefix} is a file in the layers below, not a directory", kind="BuildError"
                    )
                inside = _path_of(descriptor, self.below)
            finally:
                os.close(descriptor)
            return "/".join([inside.rstrip("/"), *parts[depth:]]) or "/"
        return path

    def _attributes_for(self, resolved: str, path: str) -> os.stat_result:
        """Of the directory below, else of the same directory of the layer itself."""
        for root, name in ((self.below, resolved), (self.source, resolved), (self.source, path)):
            try:
                found = os.stat(name.lstrip("/") or ".", dir_fd=root, follow_symlinks=False)
            except (FileNotFoundError, NotADirectoryError):
                continue
            if stat.S_ISDIR(found.st_mode):
                return found
        return os.fstat(self.source)

    @staticmethod
    def _copy_attributes(about: os.stat_result, directory: int) -> None:
        os.fchown(directory, about.st_uid, about.st_gid)
        os.fchmod(directory, stat.S_IMODE(about.st_mode))


class _Opened:
    def __init__(self, root: int, path: str) -> None:
        self._root, self._path = root, path

    def __enter__(self) -> int:
        self._descriptor = open_in_root(self._root, self._path, _DIRECTORY)
        return self._descriptor

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def _path_of(descriptor: int, root: int) -> str:
    """The path of a directory below a root, found by climbing: names as seen from the outside would
    depend on where the root is mounted."""
    top = os.fstat(root)
    parts: list[str] = []
    current = os.open(".", _DIRECTORY, dir_fd=descriptor)
    try:
        while True:
            about = os.fstat(current)
            if (about.st_dev, about.st_ino) == (top.st_dev, top.st_ino):
                return "/" + "/".join(reversed(parts))
            above = os.open("..", _DIRECTORY, dir_fd=current)
            parts.append(_name_in(above, about))
            os.close(current)
            current = above
    finally:
        os.close(current)


def _name_in(directory: int, wanted: os.stat_result) -> str:
    with os.scandir(directory) as listing:
        for entry in listing:
            if entry.is_dir(follow_symlinks=False):
                about = os.stat(entry.name, dir_fd=directory, follow_symlinks=False)
                if (about.st_dev, about.st_ino) == (wanted.st_dev, wanted.st_ino):
                    return entry.name
    raise FileNotFoundError(2, "a directory moved while it was looked at")
