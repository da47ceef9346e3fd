"""Unpacking a root filesystem tar: every name is resolved inside the new root, whatever the tar says."""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
from typing import Any

from sandboxfile.engines.linux.syscalls import open_in_root
from sandboxfile.engines.linux.users import LARGEST
from sandboxfile.engines.linux.worker.tasks import Context, TaskFailed
from sandboxfile.engines.linux.worker.tree import open_parent

_XATTR = "SCHILY.xattr."
_KEPT_XATTRS = ("user.", "security.capability", "system.posix_acl_")


def unpack(context: Context) -> dict[str, Any]:
    """Unpack the tar behind `descriptors[0]` (plain, gzip, bzip2 or xz) into `root`."""
    root = context.dirs["root"]
    times: list[tuple[str, int]] = []
    count = 0
    with open(context.descriptors[0], "rb", closefd=False) as file:
        try:
            with tarfile.open(fileobj=file, mode="r|*") as archive:
                for member in archive:
                    _unpack_one(root, archive, member, times)
                    count += 1
        except (tarfile.TarError, EOFError) as error:
            raise TaskFailed(f"the root filesystem is no readable tar: {error}", kind="BuildError") from None
    for name, seconds in reversed(times):
        directory = open_in_root(root, name, os.O_RDONLY | os.O_DIRECTORY)
        os.utime(directory, (seconds, seconds))
        os.close(directory)
    return {"members": count}


def _unpack_one(
    root: int, archive: tarfile.TarFile, member: tarfile.TarInfo, times: list[tuple[str, int]]
) -> None:
    path = "/" + "/".join(part for part in member.name.split("/") if part not in ("", "."))
    if ".." in path.split("/"):
        raise TaskFailed(f"the root filesystem holds a path with `..`: {member.name}", kind="BuildError")
    if member.uid > LARGEST or member.gid > LARGEST:
        raise TaskFailed(f"the owner of {path} in the root filesystem is above {LARGEST}", kind="BuildError")
    directory, name = os.path.split(path)
    if not name:
        os.chmod(root, member.mode)
        return
    parent = open_parent(root, directory, [])
    try:
        if member.isdir():
            _directory(root, parent, name, path, member)
            times.append((path, int(member.mtime)))
            return
        try:
            os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            pass
        if member.islnk():
            _hard_link(root, parent, name, member)
            return
        if not _make(archive, parent, name, member):
            return
        os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)
        if not member.issym():
            os.chmod(name, stat.S_IMODE(member.mode), dir_fd=parent)
            _set_xattrs(parent, name, member)
        seconds = int(member.mtime)
        os.utime(name, (seconds, seconds), dir_fd=parent, follow_symlinks=False)
    finally:
        os.close(parent)


def _directory(root: int, parent: int, name: str, path: str, member: tarfile.TarInfo) -> None:
    try:
        os.mkdir(name, 0o755, dir_fd=parent)
    except FileExistsError:
        pass
    made = open_in_root(root, path, os.O_RDONLY | os.O_DIRECTORY)
    os.fchown(made, member.uid, member.gid)
    os.fchmod(made, stat.S_IMODE(member.mode))
    os.close(made)


def _make(archive: tarfile.TarFile, parent: int, name: str, member: tarfile.TarInfo) -> bool:
    """Make the entry itself; False for devices, which a sandbox gets from elsewhere."""
    if member.issym():
        os.symlink(member.linkname, name, dir_fd=parent)
    elif member.isfifo():
        os.mkfifo(name, 0o600, dir_fd=parent)
    elif member.isreg():
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        source = archive.extractfile(member)
        with open(os.open(name, flags, 0o600, dir_fd=parent), "wb") as file:
            if source:
                shutil.copyfileobj(source, file, 1 << 20)
    else:
        return False
    return True


def _hard_link(root: int, parent: int, name: str, member: tarfile.TarInfo) -> None:
    directory, target = os.path.split("/" + member.linkname.strip("/"))
    try:
        above = open_in_root(root, directory, os.O_PATH | os.O_DIRECTORY)
    except OSError:
        raise TaskFailed(
            f"{member.name} links to {member.linkname}, which is not there", kind="BuildError"
        ) from None
    try:
        os.link(target, name, src_dir_fd=above, dst_dir_fd=parent, follow_symlinks=False)
    finally:
        os.close(above)


def _set_xattrs(parent: int, name: str, member: tarfile.TarInfo) -> None:
    values = {
        key[len(_XATTR) :]: value for key, value in member.pax_headers.items() if key.startswith(_XATTR)
    }
    if not values or not member.isreg():
        return
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        for key, value in values.items():
            if key.startswith(_KEPT_XATTRS) and not key.startswith("user.overlay."):
                os.setxattr(descriptor, key, value.encode("utf-8", "surrogateescape"))
    finally:
        os.close(descriptor)
