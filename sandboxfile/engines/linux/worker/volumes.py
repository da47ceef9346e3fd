"""Work on what sandboxes and volumes hold: copying it, counting it, and the images some volumes are in."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from typing import Any

from sandboxfile.declared import dataclass
from sandboxfile.engines.linux import disk, mounts
from sandboxfile.engines.linux.syscalls import open_in_root
from sandboxfile.engines.linux.worker.tasks import Context, TaskFailed

_FICLONE = 0x40049409
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEEPEST = 2000
# Overlay's notes on the layers below; a layer is used on others.
_NOTES = ("user.overlay.origin", "user.overlay.impure", "user.overlay.uuid", "user.overlay.nlink")


def copy(context: Context) -> dict[str, int]:
    """Copy the tree `source` into the empty directory `target`: content (shared where the file system can),
    holes, owners, modes, times, attributes, hard links and whiteouts; sockets are left out. `drop` names
    mountpoints that are not part of it. Says on `descriptors[0]` that it is ready, and begins when
    `descriptors[1]` says so. Answers with the number of entries and the bytes of all files.
    """
    ready, go = context.descriptors
    os.write(ready, b"r")
    if not os.read(go, 1):
        raise TaskFailed("the sandbox could not be frozen")
    copying = _Copy(context.dirs["target"])
    copying.tree(context.dirs["source"])
    for path in reversed(context.args["drop"]):
        copying.drop(path)
    return {"entries": copying.entries, "size": copying.size}


@dataclass
class _Frame:
    """A directory that is being copied."""

    source: int
    target: int
    path: str
    names: Iterator[str]


class _Copy:
    def __init__(self, root: int) -> None:
        self.entries = 0
        self.size = 0
        self._root = root
        self._links: dict[tuple[int, int], str] = {}
        self._shares = True

    def tree(self, source: int) -> None:
        """Copy everything. Directories are opened one below the other, so that no link leads elsewhere."""
        stack = [_Frame(os.dup(source), os.dup(self._root), "", iter(os.listdir(source)))]
        try:
            while stack:
                frame = stack[-1]
                name = next(frame.names, None)
                if name is None:
                    _attributes(frame.source, frame.target, os.fstat(frame.source))
                    self._close(stack.pop())
                    continue
                self.entries += 1
                below = self._entry(frame, name)
                if below:
                    stack.append(below)
                if len(stack) > _DEEPEST:
                    raise TaskFailed(f"{below and below.path}: too many directories below one another")
        finally:
            for frame in stack:
                self._close(frame)

    @staticmethod
    def _close(frame: _Frame) -> None:
        os.close(frame.source)
        os.close(frame.target)

    def _entry(self, frame: _Frame, name: str) -> _Frame | None:
        about = os.stat(name, dir_fd=frame.source, follow_symlinks=False)
        path = f"{frame.path}/{name}" if frame.path else name
        mode = about.st_mode
        if stat.S_ISDIR(mode):
            os.mkdir(name, 0o700, dir_fd=frame.target)
            source = os.open(name, _DIRECTORY, dir_fd=frame.source)
            target = os.open(name, _DIRECTORY, dir_fd=frame.target)
            return _Frame(source, target, path, iter(os.listdir(source)))
        if about.st_nlink > 1:
            known = self._links.setdefault((about.st_dev, about.st_ino), path)
            if known != path:
                os.link(known, name, src_dir_fd=self._root, dst_dir_fd=frame.target, follow_symlinks=False)
                return None
        if stat.S_ISREG(mode):
            self._file(frame, name)
        elif stat.S_ISLNK(mode):
            os.symlink(os.readlink(name, dir_fd=frame.source), name, dir_fd=frame.target)
            _own(frame.target, name, about)
        elif stat.S_ISFIFO(mode):
            os.mkfifo(name, 0o600, dir_fd=frame.target)
            _own(frame.target, name, about)
            os.chmod(name, stat.S_IMODE(mode), dir_fd=frame.target)
        elif stat.S_ISCHR(mode) and about.st_rdev == 0:
            os.mknod(name, stat.S_IFCHR, 0, dir_fd=frame.target)
        return None

    def _file(self, frame: _Frame, name: str) -> None:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        source = os.open(name, flags, dir_fd=frame.source)
        try:
            made = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            target = os.open(name, made, 0o600, dir_fd=frame.target)
            try:
                about = os.fstat(source)
                if not stat.S_ISREG(about.st_mode):
                    raise TaskFailed("a file changed while it was being copied")
                self._content(source, target, about.st_size)
                self.size += about.st_size
                _attributes(source, target, about)
            finally:
                os.close(target)
        finally:
            os.close(source)

    def _content(self, source: int, target: int, size: int) -> None:
        if self._shares and size:
            try:
                fcntl.ioctl(target, _FICLONE, source)
            except OSError:
                # Another file system, or one that cannot: no other file will do better.
                self._shares = False
            else:
                return
        os.truncate(target, size)
        offset = 0
        while offset < size:
            try:
                offset = os.lseek(source, offset, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                return  # only a hole is left
            end = min(size, os.lseek(source, offset, os.SEEK_HOLE))
            os.lseek(target, offset, os.SEEK_SET)
            while offset < end:
                count = os.sendfile(target, source, offset, end - offset)
                if not count:
                    return
                offset += count

    def drop(self, path: str) -> None:
        """Remove a mountpoint, unless something is in it."""
        try:
            parent = open_in_root(self._root, os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            return
        try:
            name = os.path.basename(path)
            about = os.stat(name, dir_fd=parent, follow_symlinks=False)
            times = os.fstat(parent)
            if stat.S_ISDIR(about.st_mode):
                os.rmdir(name, dir_fd=parent)
            elif stat.S_ISREG(about.st_mode) and about.st_size == 0:
                os.unlink(name, dir_fd=parent)
            else:
                return
            self.entries -= 1
            os.utime(parent, ns=(times.st_atime_ns, times.st_mtime_ns))
        except OSError:
            pass  # it is in use, or not there
        finally:
            os.close(parent)


def _own(directory: int, name: str, about: os.stat_result) -> None:
    os.chown(name, about.st_uid, about.st_gid, dir_fd=directory, follow_symlinks=False)
    times = (about.st_atime_ns, about.st_mtime_ns)
    os.utime(name, ns=times, dir_fd=directory, follow_symlinks=False)


def _attributes(source: int, target: int, about: os.stat_result) -> None:
    # In this order: a change of owner takes set-user-id bits and file capabilities away.
    os.fchown(target, about.st_uid, about.st_gid)
    os.fchmod(target, stat.S_IMODE(about.st_mode))
    for name in os.listxattr(source):
        if name not in _NOTES:
            os.setxattr(target, name, os.getxattr(source, name))
    os.utime(target, ns=(about.st_atime_ns, about.st_mtime_ns))


def measure(context: Context) -> dict[str, int]:
    """The bytes of disk that a tree takes, and its entries. What changes meanwhile is counted roughly."""
    taken = entries = 0
    for _, directories, files, here in os.fwalk(".", dir_fd=context.dirs["root"], onerror=lambda _: None):
        for name in (*directories, *files):
            try:
                taken += os.stat(name, dir_fd=here, follow_symlinks=False).st_blocks * 512
            except OSError:
                continue
            entries += 1
    return {"size": taken, "entries": entries}


def attach_image(context: Context) -> None:
    """Mount an image at `target`; with `guest` (ids), have the directories of a volume in it."""
    args: dict[str, Any] = context.args
    target = args["target"]
    os.makedirs(target, exist_ok=True)
    disk.mount_image(args["image"], target, readonly=args["guest"] is None)
    if args["guest"] is None:
        return
    for name, mode in (("fs", 0o755), ("work", 0o700)):
        try:
            os.mkdir(f"{target}/{name}", mode)
        except FileExistsError:
            continue
        if name == "fs":
            os.chown(f"{target}/{name}", *args["guest"])


def take_away(context: Context) -> None:
    """Unmount everything at or below `target`. What was written is on its disk afterwards: that takes time,
    which the helper must not spend."""
    mounts.unmount_below(context.args["target"])


def detach_image(context: Context) -> None:
    """Unmount an image; its file is up to date afterwards."""
    disk.unmount_image(context.args["target"])
