"""A small archive of real Debian packages, signed with a key of our own: the suites of a release as a test
wants them, with versions moved to where they were or will be.

Index entries are those of the real archive; bytes come from it as well (it stands behind this one as a second
mirror), but for packages that were given an older version, which are packed again.
"""

from __future__ import annotations

import hashlib
import lzma
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path

from sandboxfile.inputs.control import fields, names_in
from sandboxfile.inputs.debian_index import PackagesIndex
from sandboxfile.inputs.environment import default_mirrors
from tests.resolve.repository import Signer, make_deb
from tests.resolve.server import Server

RELEASE, UPDATES, SECURITY = "trixie", "trixie-updates", "trixie-security"


@dataclass
class RealArchive:
    """Stanzas by suite and name; change them, then `publish`. `index` is the real archive's, `behind` its
    address."""

    server: Server
    signer: Signer
    index: PackagesIndex
    behind: str
    suites: dict[str, dict[str, str]] = field(
        default_factory=lambda: {RELEASE: {}, UPDATES: {}, SECURITY: {}}
    )

    @classmethod
    def of_store(cls, indexes: Path, server: Server, signer: Signer) -> RealArchive:
        """On the verified indexes that a store holds; archives of tests in it are small."""
        files = sorted(indexes.glob(f"*/dists/{RELEASE}/main/binary-*/Packages"), key=_size)
        behind = next(each.url for each in default_mirrors(RELEASE) if each.suite == RELEASE)
        return cls(server, signer, PackagesIndex(files[-1:]), behind)

    def take(self, *names: str) -> None:
        """Put packages with all they may need into the release."""
        ahead = list(names)
        while ahead:
            name = ahead.pop()
            if name in self.suites[RELEASE]:
                continue
            texts = self.index.texts(name)
            if not texts:
                providers = self.index.providers(name)
                if not any(each in self.suites[RELEASE] for each in providers):
                    ahead.extend(providers[:3])
                continue
            self.suites[RELEASE][name] = texts[-1]
            stanza = fields(texts[-1])
            for relation in ("Depends", "Pre-Depends"):
                ahead.extend(names_in(stanza.get(relation, "")))

    def take_base(self) -> None:
        """Put what a minimal system holds into the release."""
        self.take(*self.index.marked(), "apt")

    def secure(self, name: str, older: str) -> None:
        """Give the release an older version of a package; the real one is for the security suite."""
        self._secure[name] = self.suites[RELEASE][name]
        self.age(name, older)

    def age(self, name: str, version: str) -> None:
        """Give the release an older version of a package."""
        self.suites[RELEASE][name] = self._packed_again(self.suites[RELEASE][name], version)

    _secure: dict[str, str] = field(default_factory=dict)

    def release_security(self) -> None:
        """Put the security updates into their suite."""
        self.suites[SECURITY].update(self._secure)

    def restore(self, name: str) -> None:
        """Give the release the real archive's version again."""
        self.suites[RELEASE][name] = self.index.texts(name)[-1]

    def add(self, name: str, version: str = "1.0", **more: str) -> None:
        """Add a package of our own to the release, with one file."""
        pool = self.server.directory / "pool"
        pool.mkdir(parents=True, exist_ok=True)
        deb = make_deb(pool, name, version, **more)
        control = subprocess.run(["dpkg-deb", "-f", deb], capture_output=True, check=True, text=True).stdout
        self.suites[RELEASE][name] = control.strip("\n") + self._where(deb)

    def _packed_again(self, stanza: str, version: str) -> str:
        found = fields(stanza)
        pool = self.server.directory / "pool"
        pool.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch:
            original, tree = Path(scratch, "original.deb"), Path(scratch, "tree")
            with urllib.request.urlopen(f"{self.behind}/{found['Filename']}") as answer:
                original.write_bytes(answer.read())
            assert hashlib.sha256(original.read_bytes()).hexdigest() == found["SHA256"]
            subprocess.run(["dpkg-deb", "-R", original, tree], check=True)
            control = tree / "DEBIAN/control"
            control.write_text(
                control.read_text().replace(f"\nVersion: {found['Version']}", f"\nVersion: {version}")
            )
            name = f"{found['Package']}_{version.replace(':', '%3a')}_{found['Architecture']}.deb"
            subprocess.run(
                ["dpkg-deb", "--root-owner-group", "-Zxz", "-z1", "-b", tree, pool / name],
                check=True,
                capture_output=True,
            )
        kept = [
            line
            for line in stanza.replace(f"\nVersion: {found['Version']}", f"\nVersion: {version}").splitlines()
            if not line.startswith(("Filename:", "Size:", "SHA256:", "MD5sum:", "SHA1:"))
        ]
        return "\n".join(kept) + self._where(pool / name)

    def _where(self, deb: Path) -> str:
        content = deb.read_bytes()
        path = deb.name.replace("%", "%25")
        return f"\nFilename: pool/{path}\nSize: {len(content)}\nSHA256: {hashlib.sha256(content).hexdigest()}"

    def publish(self) -> None:
        """Write and sign every suite."""
        for suite, stanzas in self.suites.items():
            self._publish(suite, stanzas.values())

    def _publish(self, suite: str, stanzas: Iterable[str]) -> None:
        plain = "".join(f"{text}\n\n" for text in stanzas).encode()
        packed = lzma.compress(plain, preset=1)
        name = "main/binary-amd64/Packages"
        top = self.server.directory / "dists" / suite
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / f"{name}.xz").write_bytes(packed)
        listed = "".join(
            f" {hashlib.sha256(content).hexdigest()} {len(content)} {path}\n"
            for path, content in ((name, plain), (f"{name}.xz", packed))
        )
        text = (
            f"Origin: Test\nSuite: {suite}\nCodename: {suite}\nDate: {formatdate(time.time(), usegmt=True)}\n"
            f"Architectures: amd64\nComponents: main\nSHA256:\n{listed}"
        )
        (top / "InRelease").write_bytes(self.signer.clearsigned(text.encode()))

    def settings(self, path: Path) -> Path:
        """A settings file for this archive, with the real one behind it for bytes."""
        keyring = path.with_name("archive.gpg")
        keyring.write_bytes(self.signer.public())
        mirrors = f'["{self.server.url}", "{self.behind}"]'
        path.write_text(
            f'[apt]\nkeyring = "{keyring}"\n[apt.mirrors]\ndebian = {mirrors}\ndebian-security = {mirrors}\n'
        )
        return path


def _size(path: Path) -> int:
    return path.stat().st_size
