"""Debian packages made by hand, also such as no tool would make."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sandboxfile.build.apt_install import deb_name
from sandboxfile.core.layer import PackagePin

TIME = 1_600_000_000


def entry(
    name: str,
    content: bytes | None = None,
    *,
    kind: bytes = tarfile.REGTYPE,
    mode: int = 0o644,
    owner: tuple[str, int, str, int] = ("root", 0, "root", 0),
    target: str = "",
    time: int = TIME,
) -> tuple[tarfile.TarInfo, bytes]:
    """One entry of a tar: a regular file, or what `kind` says."""
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.mtime, info.linkname = kind, mode, time, target
    info.uname, info.uid, info.gname, info.gid = owner
    info.size = len(content or b"")
    return info, content or b""


def directory(name: str, mode: int = 0o755, **more: object) -> tuple[tarfile.TarInfo, bytes]:
    """A directory."""
    return entry(name, kind=tarfile.DIRTYPE, mode=mode, **more)  # type: ignore[arg-type]


def directories(path: str) -> list[tuple[tarfile.TarInfo, bytes]]:
    """The root and every directory on the way to a path, as packages have them."""
    parts = path.strip("/").split("/")[:-1]
    return [directory("./")] + [directory("./" + "/".join(parts[: n + 1]) + "/") for n in range(len(parts))]


def symlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    """A symbolic link."""
    return entry(name, kind=tarfile.SYMTYPE, mode=0o777, target=target)


def link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    """A hard link."""
    return entry(name, kind=tarfile.LNKTYPE, target=target)


def tree(*paths: str) -> list[tuple[tarfile.TarInfo, bytes]]:
    """Files that hold their own names, with all directories on the way, once each."""
    found: dict[str, tuple[tarfile.TarInfo, bytes]] = {}
    for path in paths:
        for info, content in [*directories(path), entry("." + path, path.encode())]:
            found.setdefault(info.name, (info, content))
    return list(found.values())


@dataclass(frozen=True)
class Package:
    """A package that is to be made. `content` is what its data archive holds, in order."""

    name: str
    content: Sequence[tuple[tarfile.TarInfo, bytes]]
    version: str = "1.0"
    arch: str = "all"
    fields: Mapping[str, str] = field(default_factory=dict)
    scripts: Mapping[str, str] = field(default_factory=dict)
    conffiles: str = ""
    triggers: str = ""
    compression: str = "xz"

    def bytes(self) -> bytes:
        """The package."""
        control = {
            "Package": self.name,
            "Version": self.version,
            "Architecture": self.arch,
            "Maintainer": "nobody <nobody@example.org>",
            **self.fields,
            "Description": "a package for a test\n of two lines",
        }
        sums = "".join(
            f"{hashlib.md5(data).hexdigest()}  {info.name.removeprefix('./')}\n"
            for info, data in self.content
            if info.isreg()
        )
        files: dict[str, tuple[str, int]] = {
            "control": ("".join(f"{name}: {value}\n" for name, value in control.items()), 0o644),
            "md5sums": (sums, 0o644),
        }
        files |= {name: (text, 0o755) for name, text in self.scripts.items()}
        files |= {name: (text, 0o644) for name in ("conffiles", "triggers") if (text := getattr(self, name))}
        members = [entry(f"./{name}", text.encode(), mode=mode) for name, (text, mode) in files.items()]
        return ar(
            ("debian-binary", b"2.0\n"),
            ("control.tar.xz", tar([directory("./"), *members], "xz")),
            (f"data.tar.{self.compression}".rstrip("."), tar(self.content, self.compression)),
        )

    def write(self, where: Path) -> tuple[PackagePin, Path]:
        """Write the package to a directory: what a layer says of it, and its file."""
        content = self.bytes()
        pin = PackagePin(self.name, self.version, self.arch, hashlib.sha256(content).hexdigest())
        path = where / deb_name(pin)
        path.write_bytes(content)
        return pin, path


def tar(content: Sequence[tuple[tarfile.TarInfo, bytes]], compression: str) -> bytes:
    """A tar archive in GNU's format."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=f"w:{compression}", format=tarfile.GNU_FORMAT) as archive:  # type: ignore[call-overload]
        for info, data in content:
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def ar(*members: tuple[str, bytes]) -> bytes:
    """An ar archive."""
    text = b"!<arch>\n"
    for name, content in members:
        text += f"{name:<16}{TIME:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
        text += content + b"\n" * (len(content) % 2)
    return text
