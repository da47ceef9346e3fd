"""What the helper does with directories and mounts. Each method is one operation."""

from __future__ import annotations

import binascii
import errno
import os
import stat
from typing import Any

from sandboxfile.engines.linux import mounts
from sandboxfile.engines.linux import syscalls as sys_

Operation = dict[str, Any]


class Files:
    """Operations on the file system, done with the helper's own identity."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._base: str = settings["base"]
        self._guest: tuple[int, int] = (settings["guest_uid"], settings["guest_gid"])
        self._user_xattrs: bool = settings["user_xattrs"]
        self._limits: bool = settings["limits"]

    def features(self) -> dict[str, bool]:
        """What this kernel gives the helper."""
        return {"memory_uppers": self._user_xattrs, "limits": self._limits}

    def overlay(self, operation: Operation) -> None:
        """Mount an overlay; its mountpoint is made."""
        target = operation["target"]
        links = f"{self._base}/links-{os.path.basename(target)}"
        os.mkdir(links)
        try:
            os.makedirs(target, exist_ok=True)
            mounts.overlay(target, operation["lowers"], operation["upper"], operation["work"], links)
        finally:
            self._rmtree(links)

    def tmpfs(self, operation: Operation) -> None:
        """Mount memory; its mountpoint is made."""
        os.makedirs(operation["target"], exist_ok=True)
        mounts.tmpfs(operation["target"], size=operation["size"])

    def bind(self, operation: Operation) -> None:
        """Show a file or directory below the helper's memory; its mountpoint is made."""
        source, target = operation["source"], operation["target"]
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if os.path.isdir(source):
            os.makedirs(target, exist_ok=True)
        else:
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o444))
        mounts.bind(source, target, readonly=operation["readonly"])

    def unmount(self, operation: Operation) -> None:
        """Take away every mount at or below a path, and what is left of the path."""
        mounts.unmount_below(operation["target"])
        self._rmtree(operation["target"])

    def mkdir(self, operation: Operation) -> None:
        """Make a directory, for the helper (`guest` false) or for user 0 of the sandboxes."""
        path = operation["path"]
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.mkdir(path, operation["mode"])
        os.chmod(path, operation["mode"])
        if operation["guest"]:
            os.chown(path, *self._guest)

    def write(self, operation: Operation) -> None:
        """Write a small file of the helper's."""
        os.makedirs(os.path.dirname(operation["path"]), exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        with open(os.open(operation["path"], flags, operation["mode"]), "w") as file:
            file.write(operation["content"])

    def secret(self, operation: Operation) -> None:
        """Write a secret that only one user of the sandbox can read."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        with open(os.open(operation["path"], flags, 0o400), "wb") as file:
            uid, gid = operation["owner"]
            os.fchown(file.fileno(), self._guest[0] + uid, self._guest[1] + gid)
            file.write(binascii.a2b_base64(operation["content"]))

    def rmtree(self, operation: Operation) -> None:
        """Remove a directory of the helper's."""
        self._rmtree(operation["path"])

    def rename(self, operation: Operation) -> None:
        """Rename; never onto something that is not an empty directory."""
        os.rename(operation["source"], operation["target"])

    def read_text(self, operation: Operation) -> str | None:
        """A small regular file below a root; None when there is none."""
        # A sandbox could make its passwd file a link to one of the kernel's; those are other mounts.
        resolve = 0 if operation["root"] == "/" else sys_.RESOLVE_NO_XDEV
        with _Root(operation["root"]) as root:
            try:
                flags = os.O_RDONLY | os.O_NONBLOCK
                descriptor = sys_.open_in_root(root, operation["path"], flags, resolve=resolve)
            except OSError:
                return None
            with open(descriptor, "rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    return None
                return (file.read(operation["limit"]) or b"").decode("utf-8", "replace")

    def modes(self, operation: Operation) -> list[int | None]:
        """The mode of each path below a root, links followed; None where there is nothing."""
        found: list[int | None] = []
        with _Root(operation["root"]) as root:
            for path in operation["paths"]:
                try:
                    descriptor = sys_.open_in_root(root, path, os.O_PATH)
                except OSError:
                    found.append(None)
                    continue
                found.append(os.fstat(descriptor).st_mode)
                os.close(descriptor)
        return found

    def make_points(self, operation: Operation) -> list[str]:
        """Make missing mountpoints below a root; the paths that were made, parents first."""
        made: list[str] = []
        with _Root(operation["root"]) as root:
            for path, directory in operation["points"]:
                self._make_point(root, path, directory, made)
        return made

    def _make_point(self, root: int, path: str, directory: bool, made: list[str], links: int = 0) -> None:
        parts = [part for part in path.split("/") if part]
        for depth in range(1, len(parts) + 1):
            name = "/" + "/".join(parts[:depth])
            try:
                os.close(sys_.open_in_root(root, name, os.O_PATH))
                continue
            except FileNotFoundError:
                pass
            above, leaf = os.path.split(name)
            parent = sys_.open_in_root(root, above, os.O_PATH | os.O_DIRECTORY)
            try:
                link = _link_target(leaf, parent)
                if link is not None:
                    if links > 8:
                        raise OSError(errno.ELOOP, "too many links", path)
                    rest = "/".join(parts[depth:])
                    led = os.path.normpath(os.path.join(above, link, rest))
                    self._make_point(root, led, directory, made, links + 1)
                    return
                if depth < len(parts) or directory:
                    os.mkdir(leaf, 0o755, dir_fd=parent)
                else:
                    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
                    os.close(os.open(leaf, flags, 0o444, dir_fd=parent))
                os.chown(leaf, *self._guest, dir_fd=parent, follow_symlinks=False)
            finally:
                os.close(parent)
            made.append(name)

    def drop_points(self, operation: Operation) -> None:
        """Remove mountpoints that were made, unless something was put into them meanwhile."""
        with _Root(operation["root"]) as root:
            for path in reversed(operation["paths"]):
                try:
                    parent = sys_.open_in_root(root, os.path.dirname(path), os.O_PATH | os.O_DIRECTORY)
                except OSError:
                    continue
                try:
                    _drop_empty(os.path.basename(path), parent)
                finally:
                    os.close(parent)

    def _rmtree(self, path: str) -> None:
        """Remove what the helper made: few files, nobody else's, no mounts."""
        try:
            names = os.listdir(path)
        except NotADirectoryError:
            os.unlink(path)
            return
        except FileNotFoundError:
            return
        for name in names:
            child = f"{path}/{name}"
            if os.path.isdir(child) and not os.path.islink(child):
                self._rmtree(child)
            else:
                os.unlink(child)
        os.rmdir(path)


class _Root:
    """A directory that paths are resolved in, open while the block runs."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> int:
        self._descriptor = os.open(self._path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return self._descriptor

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def _link_target(name: str, parent: int) -> str | None:
    try:
        return os.readlink(name, dir_fd=parent)
    except OSError:
        return None


def _drop_empty(name: str, parent: int) -> None:
    try:
        about = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISDIR(about.st_mode):
            os.rmdir(name, dir_fd=parent)
        elif stat.S_ISREG(about.st_mode) and about.st_size == 0:
            os.unlink(name, dir_fd=parent)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):
            raise
