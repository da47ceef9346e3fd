"""The filesystem trees that the memory engine starts from."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable
from pathlib import Path

from sandboxfile.core.layer import PackagePin
from sandboxfile.engines.memory.filesystem import Filesystem, Node
from sandboxfile.engines.memory.machine import MARK
from sandboxfile.errors import BuildError

_PASSWD = """\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
"""
_GROUP = """\
root:x:0:
daemon:x:1:
nogroup:x:65534:
"""


def base_tree(programs: Iterable[str]) -> dict[str, Node]:
    """A small Debian-like tree: merged /usr, passwd and group, /tmp for everybody, and the programs."""
    files = Filesystem({})
    for path, mode in (
        ("/usr", 0o755),
        ("/usr/bin", 0o755),
        ("/usr/lib", 0o755),
        ("/usr/local", 0o755),
        ("/usr/local/bin", 0o755),
        ("/usr/sbin", 0o755),
        ("/etc", 0o755),
        ("/home", 0o755),
        ("/mnt", 0o755),
        ("/opt", 0o755),
        ("/root", 0o700),
        ("/run", 0o755),
        ("/srv", 0o755),
        ("/tmp", 0o1777),
        ("/var", 0o755),
        ("/var/lib", 0o755),
        ("/var/tmp", 0o1777),
    ):
        files.place(path, Node("dir", mode))
    for name in ("bin", "lib", "sbin"):
        files.place(f"/{name}", Node("symlink", 0o777, target=f"usr/{name}"))
    for name in programs:
        add_program(files, name)
    files.place("/etc/passwd", Node("file", 0o644, content=_PASSWD.encode()))
    files.place("/etc/group", Node("file", 0o644, content=_GROUP.encode()))
    files.place("/etc/hostname", Node("file", 0o644, content=b"sandbox\n"))
    return files.nodes


def add_program(files: Filesystem, name: str) -> None:
    """Put an executable file into /usr/bin that stands for a program of the engine."""
    files.place(f"/usr/bin/{name}", Node("file", 0o755, content=MARK + name.encode() + b"\n"))


def write_status(files: Filesystem, packages: Iterable[PackagePin]) -> None:
    """dpkg's status file, saying that these packages are installed."""
    stanzas = [
        f"Package: {pin.name}\nStatus: install ok installed\nArchitecture: {pin.arch}\n"
        f"Version: {pin.version}\n"
        for pin in sorted(packages)
    ]
    files.place("/var/lib/dpkg/status", Node("file", 0o644, content="\n".join(stanzas).encode()))


def unpack_tar(archive: Path) -> dict[str, Node]:
    """The tree of a root filesystem tar. BuildError when it is no tar or leads out of itself."""
    files = Filesystem({})
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                _unpack(files, tar, member)
    except (tarfile.TarError, EOFError) as error:
        raise BuildError(f"the root filesystem {archive.name} cannot be read: {error}") from error
    return files.nodes


def _unpack(files: Filesystem, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    parts = [part for part in member.name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise BuildError(f"the root filesystem holds a path that leads out of it: {member.name}")
    path = "/" + "/".join(parts)
    mode = member.mode & 0o7777
    if member.isdir():
        files.place(path, Node("dir", mode, member.uid, member.gid))
    elif member.issym():
        files.place(path, Node("symlink", 0o777, member.uid, member.gid, target=member.linkname))
    elif member.islnk():
        linked = "/" + member.linkname.removeprefix("./").lstrip("/")
        files.place(path, files.stat(linked, follow=False))
    elif member.isfile():
        source = tar.extractfile(member)
        content = source.read() if source is not None else b""
        files.place(path, Node("file", mode, member.uid, member.gid, content))
