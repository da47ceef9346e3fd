"""The worker behind `Sandbox.fs`: it stays while the sandbox lives and does what it is asked, one by one.

It has the sandboxes' ids, and of the sandbox only a descriptor of its root directory. Every path is resolved
by the kernel below that; a file is opened only after its inode was seen to be a regular one, and then by that
inode, so nothing the sandbox does in between matters. No request can make it wait for the sandbox.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sandboxfile.engines.linux import syscalls as sys_
from sandboxfile.engines.linux.wire import receive, send
from sandboxfile.engines.linux.worker.removal import Removal, check_no_mount, listed
from sandboxfile.engines.linux.worker.tasks import Context, TaskFailed, close_others

MOST_ENTRIES = 200_000
"""How many entries of one directory are listed."""
_OPEN = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
# File systems of the kernel. What is seen there depends on who looks, and it is not the sandbox that looks.
_KERNEL = frozenset(
    {
        0x9FA0,  # proc
        0x62656572,  # sysfs
        0x27E0EB,  # cgroup
        0x63677270,  # cgroup2
        0x1CD1,  # devpts
        0x19800202,  # mqueue
        0x73636673,  # securityfs
        0x64626720,  # debugfs
        0x74726163,  # tracefs
        0xCAFE4A11,  # bpf
        0x62656570,  # configfs
        0x65735543,  # fusectl
        0x6E736673,  # nsfs
        0x6165676C,  # pstore
        0xDE5E81E4,  # efivarfs
        0x42494E4D,  # binfmt_misc
        0xF97CFF8C,  # selinux
    }
)

Request = dict[str, Any]


class _Refused(Exception):
    """An entry that is not for outsiders; says what it is."""


def files(context: Context) -> None:
    """Serve requests on `descriptors[0]` until the other side is closed. `root` is the sandbox's root
    directory, `view` the same directory as the helper mounted it."""
    channel = socket.socket(fileno=context.descriptors[0])
    root = context.dirs["root"]
    if not _same(root, context.dirs["view"]):
        raise TaskFailed(
            "the sandbox's files cannot be reached: it has ended, or its runtime keeps them to itself"
        )
    os.close(context.dirs["view"])
    close_others({0, 1, 2, channel.fileno(), root})
    worker = _Files(root)
    send(channel, {"id": 0}, [])
    while True:
        request, given = receive(channel)
        for descriptor in given:
            os.close(descriptor)
        if request is None:
            return
        answer, outgoing = worker.answer(request)
        try:
            send(channel, answer, outgoing)
        except (BrokenPipeError, ConnectionResetError):
            return
        finally:
            for descriptor in outgoing:
                os.close(descriptor)


def _same(one: int, other: int) -> bool:
    first, second = os.fstat(one), os.fstat(other)
    return (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)


class _Files:
    """The operations, each named as it is asked for."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._operations: dict[str, Callable[[Request], Any]] = {
            each.__name__: each
            for each in (
                self.open,
                self.mkdir,
                self.read_dir,
                self.stat,
                self.remove,
                self.rename,
                self.link,
                self.symlink,
                self.read_link,
                self.real_path,
                self.chmod,
                self.chown,
                self.utime,
                self.truncate,
                self.temporary,
            )
        }
        self._opened: list[int] = []

    def answer(self, request: Request) -> tuple[dict[str, Any], list[int]]:
        """Do what a request says; the answer and the descriptors that go with it."""
        answer: dict[str, Any] = {"id": request["id"]}
        self._opened = []
        try:
            if not request["path"]:
                raise OSError(errno.ENOENT, "")
            uid, gid, groups = request["ids"]
            os.setgroups(groups)
            sys_.set_file_ids(uid, gid)
            try:
                answer["result"] = self._operations[request["op"]](request)
            finally:
                sys_.set_file_ids(0, 0)
                os.setgroups([])
        except _Refused as refused:
            answer["refused"] = str(refused)
        except OSError as error:
            answer["errno"] = error.errno or errno.EIO
        except Exception as error:
            answer["unexpected"] = f"{type(error).__name__}: {error}"
        return answer, self._opened

    # Finding.

    @contextmanager
    def _at(self, path: str, flags: int = 0) -> Iterator[int]:
        """An O_PATH descriptor of an entry, links followed unless the flags say otherwise."""
        found = sys_.open_in_root(self._root, _name(path), os.O_PATH | flags)
        try:
            yield found
        finally:
            os.close(found)

    @contextmanager
    def _parent(self, path: str) -> Iterator[tuple[int, bytes]]:
        """The directory an entry is in, and the entry's name there."""
        above, name = os.path.split(_name(path).rstrip(b"/"))
        if not name:
            # The root directory can neither be taken away nor replaced.
            raise OSError(errno.EBUSY if path else errno.ENOENT, "")
        if name in (b".", b".."):
            raise OSError(errno.EINVAL, "")
        found = sys_.open_in_root(self._root, above or b"/", os.O_PATH | os.O_DIRECTORY)
        try:
            _check_file_system(found)
            yield found, name
        finally:
            os.close(found)

    def _regular(self, path: str, flags: int, mode: int, *, create: bool, exclusive: bool) -> int:
        """Open a regular file; it may be made on the way."""
        if not exclusive:
            try:
                with self._at(path) as found:
                    _check_regular(found)
                    return os.open(_by_descriptor(found), flags | _OPEN)
            except FileNotFoundError:
                if not create:
                    raise
        if path.endswith("/"):
            raise OSError(errno.EISDIR, "")
        flags |= os.O_CREAT | (os.O_EXCL if exclusive else 0)
        made = sys_.open_in_root(self._root, _name(path), flags | _OPEN, mode)
        try:
            _check_regular(made)
        except BaseException:
            os.close(made)
            raise
        return made

    # Operations.

    def open(self, request: Request) -> None:
        """A descriptor of a regular file; the client reads or writes it."""
        if not request["write"]:
            self._opened.append(self._regular(request["path"], os.O_RDONLY, 0, create=False, exclusive=False))
            return
        flags = os.O_WRONLY | (os.O_APPEND if request["append"] else 0)
        found = self._regular(
            request["path"], flags, 0o644, create=request["create"], exclusive=request["create_new"]
        )
        self._opened.append(found)
        if not request["append"]:
            os.ftruncate(found, 0)
        if request["mode"] is not None:
            os.fchmod(found, request["mode"])

    def mkdir(self, request: Request) -> None:
        """Make a directory, with its parents when asked to."""
        path, mode = request["path"], request["mode"]
        if request["recursive"]:
            parts = [part for part in path.split("/") if part]
            for depth in range(1, len(parts)):
                self._make_directory("/".join(parts[:depth]), None, exist=True)
        if not request["recursive"] or path.strip("/"):
            self._make_directory(path, mode, exist=request["recursive"])

    def _make_directory(self, path: str, mode: int | None, *, exist: bool) -> None:
        if path and not path.strip("/"):
            raise FileExistsError(errno.EEXIST, "")
        if exist and os.path.basename(path.rstrip("/")) in (".", ".."):
            return
        try:
            with self._parent(path) as (parent, name):
                os.mkdir(name, 0o755, dir_fd=parent)
                if mode is not None:
                    made = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
                    try:
                        os.chmod(_by_descriptor(made), mode)
                    finally:
                        os.close(made)
        except FileExistsError:
            if not exist:
                raise
            with self._at(path, os.O_DIRECTORY):
                return

    def read_dir(self, request: Request) -> list[tuple[str, int]]:
        """Names and kinds (as in `st_mode`) of what is in a directory."""
        with self._at(request["path"], os.O_DIRECTORY) as found:
            _check_file_system(found)
            directory = os.open(_by_descriptor(found), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            entries = []
            for name, mode in listed(directory):
                entries.append((_text(name), mode))
                if len(entries) > MOST_ENTRIES:
                    raise OSError(errno.EOVERFLOW, "")
        finally:
            os.close(directory)
        return entries

    def stat(self, request: Request) -> list[float]:
        """What is known of an entry."""
        with self._at(request["path"], 0 if request["follow"] else os.O_NOFOLLOW) as found:
            about = os.fstat(found)
        return [
            about.st_mode,
            about.st_size,
            about.st_uid,
            about.st_gid,
            about.st_nlink,
            about.st_ino,
            about.st_atime,
            about.st_mtime,
            about.st_ctime,
        ]

    def remove(self, request: Request) -> None:
        """Remove an entry, with all below it when asked to."""
        with self._parent(request["path"]) as (parent, name):
            about = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISDIR(about.st_mode):
                check_no_mount(parent, name)
                os.unlink(name, dir_fd=parent)
            elif request["recursive"]:
                Removal().directory(parent, name, 0)
            else:
                check_no_mount(parent, name)
                os.rmdir(name, dir_fd=parent)

    def rename(self, request: Request) -> None:
        """Give an entry another name."""
        with (
            self._parent(request["path"]) as (parent, name),
            self._parent(request["target"]) as (other, new),
        ):
            check_no_mount(parent, name)
            try:
                check_no_mount(other, new)
            except FileNotFoundError:
                pass
            os.rename(name, new, src_dir_fd=parent, dst_dir_fd=other)

    def link(self, request: Request) -> None:
        """Give a regular file a second name."""
        with (
            self._parent(request["path"]) as (parent, name),
            self._parent(request["target"]) as (other, new),
        ):
            os.link(name, new, src_dir_fd=parent, dst_dir_fd=other, follow_symlinks=False)

    def symlink(self, request: Request) -> None:
        """Make a symbolic link."""
        with self._parent(request["path"]) as (parent, name):
            os.symlink(_name(request["target"]), name, dir_fd=parent)

    def read_link(self, request: Request) -> str:
        """What a symbolic link says."""
        with self._parent(request["path"]) as (parent, name):
            return _text(os.readlink(name, dir_fd=parent))

    def real_path(self, request: Request) -> str:
        """Where a path leads."""
        with self._at(request["path"]) as found:
            return _text(os.readlink(os.fsencode(_by_descriptor(found))))

    def chmod(self, request: Request) -> None:
        """Set permission bits."""
        with self._at(request["path"]) as found:
            _check_plain(found)
            os.chmod(_by_descriptor(found), request["mode"])

    def chown(self, request: Request) -> None:
        """Set the owner."""
        with self._at(request["path"]) as found:
            _check_plain(found)
            os.chown(_by_descriptor(found), request["uid"], request["gid"])

    def utime(self, request: Request) -> None:
        """Set times."""
        with self._at(request["path"]) as found:
            _check_plain(found)
            os.utime(_by_descriptor(found), (request["accessed"], request["modified"]))

    def truncate(self, request: Request) -> None:
        """Set a file's length."""
        opened = self._regular(request["path"], os.O_WRONLY, 0, create=False, exclusive=False)
        try:
            os.ftruncate(opened, request["length"])
        finally:
            os.close(opened)

    def temporary(self, request: Request) -> str:
        """Make a directory or file of a new name; the name."""
        for _ in range(100):
            name = f"{request['prefix']}{os.urandom(6).hex()}{request['suffix']}"
            with self._at(request["path"], os.O_DIRECTORY) as parent:
                _check_file_system(parent)
                try:
                    if request["directory"]:
                        os.mkdir(_name(name), 0o700, dir_fd=parent)
                    else:
                        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | _OPEN
                        os.close(os.open(_name(name), flags, 0o600, dir_fd=parent))
                except FileExistsError:
                    continue
            return name
        raise OSError(errno.EEXIST, "")


def _name(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _by_descriptor(descriptor: int) -> str:
    """A path to just the inode that a descriptor of this process stands for."""
    return f"/proc/self/fd/{descriptor}"


def _check_file_system(descriptor: int) -> None:
    if sys_.file_system_kind(descriptor) in _KERNEL:
        raise _Refused("one of the kernel's files")


def _check_plain(descriptor: int) -> int:
    """Raise unless a descriptor stands for a regular file or a directory of an ordinary file system."""
    mode = os.fstat(descriptor).st_mode
    for test, what in (
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    ):
        if test(mode):
            raise _Refused(what)
    _check_file_system(descriptor)
    return mode


def _check_regular(descriptor: int) -> None:
    mode = _check_plain(descriptor)
    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, "")
    if not stat.S_ISREG(mode):
        raise OSError(errno.ELOOP, "")
