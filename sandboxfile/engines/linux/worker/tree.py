"""Reading, writing and deleting files below a root directory, with the sandboxes' ids."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

from sandboxfile.engines.linux.syscalls import open_in_root
from sandboxfile.engines.linux.users import NoSuchUser, resolve_owner
from sandboxfile.engines.linux.worker.tasks import Context, TaskFailed

_PATH = os.O_PATH | os.O_DIRECTORY
_DEEP = 100


def place(context: Context) -> dict[str, Any]:
    """Write entries that come over `descriptors[0]`; the directories that had to be made on the way."""
    root = context.dirs["root"]
    passwd, group = _text(root, "/etc/passwd"), _text(root, "/etc/group")
    implied: list[str] = []
    with open(context.descriptors[0], "rb", closefd=False) as stream:
        while line := stream.readline():
            entry = json.loads(line)
            try:
                owner = resolve_owner(entry["owner"], passwd, group)
            except NoSuchUser as error:
                raise TaskFailed(f"{entry['path']}: {error}", kind="BuildError") from None
            _place_one(root, entry, owner, stream, implied)
    return {"implied": implied}


def _place_one(
    root: int, entry: dict[str, Any], owner: tuple[int, int], stream: BinaryIO, implied: list[str]
) -> None:
    directory, name = os.path.split(entry["path"].rstrip("/"))
    if not name:
        os.chmod(root, entry["mode"])
        os.chown(root, *owner)
        return
    try:
        parent = open_parent(root, directory, implied)
    except NotADirectoryError:
        raise TaskFailed(
            f"{directory} is not a directory, {name} cannot be put there", kind="BuildError"
        ) from None
    try:
        if entry["type"] == "dir":
            _make_directory(root, parent, name, entry, owner)
            return
        _make_way(parent, name, entry["path"])
        if entry["type"] == "symlink":
            os.symlink(entry["target"], name, dir_fd=parent)
            os.chown(name, *owner, dir_fd=parent, follow_symlinks=False)
        else:
            _write_file(parent, name, entry, owner, stream)
    finally:
        os.close(parent)


def _make_directory(root: int, parent: int, name: str, entry: dict[str, Any], owner: tuple[int, int]) -> None:
    try:
        os.mkdir(name, 0o755, dir_fd=parent)
    except FileExistsError:
        pass
    try:
        made = open_in_root(root, entry["path"], os.O_RDONLY | os.O_DIRECTORY)
    except NotADirectoryError:
        raise TaskFailed(
            f"{entry['path']} is a file, and a directory is to be put there", kind="BuildError"
        ) from None
    try:
        os.fchown(made, *owner)
        os.fchmod(made, entry["mode"])
    finally:
        os.close(made)


def _make_way(parent: int, name: str, path: str) -> None:
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        pass
    except (IsADirectoryError, PermissionError):
        raise TaskFailed(f"{path} is a directory, and a file is to be put there", kind="BuildError") from None


def _write_file(
    parent: int, name: str, entry: dict[str, Any], owner: tuple[int, int], stream: BinaryIO
) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    digest = hashlib.sha256()
    with open(os.open(name, flags, 0o600, dir_fd=parent), "wb") as file:
        for piece in _pieces(stream):
            digest.update(piece)
            file.write(piece)
        file.flush()
        os.fchown(file.fileno(), *owner)
        os.fchmod(file.fileno(), entry["mode"])
    if entry["sha256"] and digest.hexdigest() != entry["sha256"]:
        os.unlink(name, dir_fd=parent)
        raise TaskFailed(f"{entry['path']} changed while it was being read", kind="IntegrityError")


def _pieces(stream: BinaryIO) -> Iterator[bytes]:
    while True:
        (length,) = struct.unpack("=I", stream.read(4))
        if not length:
            return
        yield stream.read(length)


def open_parent(root: int, directory: str, made: list[str]) -> int:
    """A descriptor of a directory below the root; missing components are made (0755, user 0), and noted."""
    try:
        return open_in_root(root, directory, _PATH)
    except FileNotFoundError:
        pass
    so_far = ""
    for part in directory.strip("/").split("/"):
        above, so_far = so_far, f"{so_far}/{part}"
        try:
            os.close(open_in_root(root, so_far, _PATH))
        except FileNotFoundError:
            parent = open_in_root(root, above or "/", _PATH)
            try:
                os.mkdir(part, 0o755, dir_fd=parent)
            except FileExistsError:
                reason = f"{so_far} is a link that points nowhere"
                raise TaskFailed(reason, kind="BuildError") from None
            finally:
                os.close(parent)
            made.append(so_far)
    return open_in_root(root, directory, _PATH)


def read(context: Context) -> None:
    """Write the bytes of a regular file to `descriptors[0]`."""
    path = context.args["path"]
    try:
        found = open_in_root(context.dirs["root"], path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO):
            raise FileNotFoundError(errno.ENOENT, "there is no such file", path) from None
        raise
    with open(found, "rb") as file, open(context.descriptors[0], "wb", closefd=False) as out:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise FileNotFoundError(errno.ENOENT, "it is not a regular file", path)
        while piece := file.read(1 << 16):
            out.write(piece)


def remove(context: Context) -> None:
    """Remove a file or a tree below the root; nothing happens when it does not exist."""
    directory, name = os.path.split(context.args["path"].rstrip("/"))
    if name in ("", ".", ".."):
        raise TaskFailed("the root directory itself cannot be removed")
    try:
        parent = open_in_root(context.dirs["root"], directory, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        remove_tree(parent, name)
    finally:
        os.close(parent)


def delete(context: Context) -> None:
    """Delete trees by name from a directory of the store."""
    for name in context.args["names"]:
        remove_tree(context.dirs["parent"], name)


def remove_tree(parent: int, name: str) -> None:
    """Remove an entry and all below it. Directories are taken apart one by one, so that neither a deep
    tree nor a link that is put in the way meanwhile leads anywhere; what somebody else removes at the same
    time is gone as well."""
    try:
        os.unlink(name, dir_fd=parent)
        return
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        pass
    _remove_directory(parent, name, 0)


def _remove_directory(parent: int, name: str, depth: int) -> None:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        directory = os.open(name, flags, dir_fd=parent)
    except FileNotFoundError:
        return
    try:
        if depth > _DEEP and _move_up(parent, directory):
            pass
        else:
            _remove_content(directory, depth)
    finally:
        os.close(directory)
    try:
        os.rmdir(name, dir_fd=parent)
    except FileNotFoundError:
        pass


def _remove_content(directory: int, depth: int) -> None:
    """Empty a directory. It is listed again until nothing is left: entries from below may be moved up."""
    while True:
        with os.scandir(directory) as listing:
            entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in listing]
        if not entries:
            return
        for name, is_directory in entries:
            if is_directory:
                _remove_directory(directory, name, depth + 1)
                continue
            try:
                os.unlink(name, dir_fd=directory)
            except FileNotFoundError:
                pass


def _move_up(parent: int, directory: int) -> bool:
    """Move what a too deep directory holds one level up; False where directories cannot be moved."""
    with os.scandir(directory) as listing:
        names = [entry.name for entry in listing]
    number = os.fstat(directory).st_ino
    for count, name in enumerate(names):
        try:
            os.rename(name, f".sandboxfile-{count}-{number}", src_dir_fd=directory, dst_dir_fd=parent)
        except OSError as error:
            if error.errno == errno.EXDEV:
                return False
            raise
    return True


def _text(root: int, path: str) -> str:
    try:
        with open(open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            return file.read(1 << 20).decode("utf-8", "replace")
    except OSError:
        return ""
