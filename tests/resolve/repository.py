"""A small signed archive: real packages made by dpkg-deb, a real key and real signatures by gpg."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import subprocess
import time
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path


@dataclass
class Signer:
    """An OpenPGP key of its own."""

    home: Path
    name: str = "archive@sandboxfile.test"
    expires: str = "never"
    options: tuple[str, ...] = ()
    """More options of gpg, such as another time."""

    def __post_init__(self) -> None:
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._gpg("--quick-generate-key", "--passphrase", "", self.name, "rsa2048", "sign", self.expires)

    def _gpg(self, *arguments: str, stdin: bytes = b"") -> bytes:
        argv = [
            "gpg",
            *self.options,
            "--homedir",
            str(self.home),
            "--batch",
            "--yes",
            "--quiet",
            "--pinentry-mode",
            "loopback",
        ]
        return subprocess.run([*argv, *arguments], input=stdin, capture_output=True, check=True).stdout

    def public(self, *, armoured: bool = False) -> bytes:
        return self._gpg(*(["--armor"] if armoured else []), "--export", self.name)

    def clearsigned(self, text: bytes) -> bytes:
        return self._gpg("--clearsign", "--digest-algo", "SHA256", stdin=text)

    def detached(self, text: bytes) -> bytes:
        return self._gpg("--detach-sign", "--armor", stdin=text)

    def close(self) -> None:
        subprocess.run(["gpgconf", "--homedir", str(self.home), "--kill", "all"], check=False)


def make_deb(directory: Path, name: str, version: str = "1.0", **fields: str) -> Path:
    """A package that holds one file, with more control fields (`depends="other (>= 2)"`)."""
    tree = directory / f"{name}-{version}"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "usr/share" / name).mkdir(parents=True)
    (tree / "usr/share" / name / "version").write_text(version + "\n")
    control = {
        "Package": name,
        "Version": version,
        "Architecture": "all",
        "Maintainer": "nobody <nobody@sandboxfile.test>",
        "Description": "a package for a test",
        **{key.replace("_", "-").title(): value for key, value in fields.items()},
    }
    (tree / "DEBIAN/control").write_text("".join(f"{k}: {v}\n" for k, v in control.items()))
    path = directory / f"{name}_{version}_all.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Zxz", "--build", str(tree), str(path)],
        check=True, capture_output=True,
    )  # fmt: skip
    return path


@dataclass
class Repository:
    """An archive in `root`; change it, then `publish` it again."""

    root: Path
    signer: Signer
    suite: str = "stable"
    architecture: str = "amd64"
    release: dict[str, str] = field(default_factory=dict)
    debs: list[Path] = field(default_factory=list)

    def add(self, name: str, version: str = "1.0", **fields: str) -> None:
        pool = self.root / "pool"
        pool.mkdir(parents=True, exist_ok=True)
        self.debs.append(make_deb(pool, name, version, **fields))

    @property
    def top(self) -> Path:
        return self.root / "dists" / self.suite

    def packages(self) -> bytes:
        stanzas = []
        for deb in self.debs:
            control = subprocess.run(["dpkg-deb", "-f", str(deb)], capture_output=True, check=True).stdout
            content = deb.read_bytes()
            stanzas.append(
                control
                + f"Filename: pool/{deb.name}\nSize: {len(content)}\n".encode()
                + f"SHA256: {hashlib.sha256(content).hexdigest()}\n".encode()
            )
        return b"\n".join(stanzas)

    def publish(self, *, inline: bool = True, compression: str = "xz") -> None:
        plain = self.packages()
        packed = lzma.compress(plain) if compression == "xz" else gzip.compress(plain)
        name = f"main/binary-{self.architecture}/Packages"
        files = {name: plain, f"{name}.{compression}": packed}
        for path, content in files.items():
            (self.top / path).parent.mkdir(parents=True, exist_ok=True)
            (self.top / path).write_bytes(content)
        listed = "".join(
            f" {hashlib.sha256(content).hexdigest()} {len(content)} {path}\n"
            for path, content in files.items()
        )
        fields = {
            "Suite": self.suite,
            "Codename": self.suite,
            "Date": formatdate(time.time() - 60, usegmt=True),
            "Architectures": self.architecture,
            "Components": "main",
            **self.release,
        }
        text = "".join(f"{k}: {v}\n" for k, v in fields.items()) + "SHA256:\n" + listed
        for old in ("InRelease", "Release", "Release.gpg"):
            (self.top / old).unlink(missing_ok=True)
        if inline:
            (self.top / "InRelease").write_bytes(self.signer.clearsigned(text.encode()))
        else:
            (self.top / "Release").write_text(text)
            (self.top / "Release.gpg").write_bytes(self.signer.detached(text.encode()))
        os.unlink(self.top / name)
