"""Control stanzas of locked packages, which the solver needs even when no index holds them any more."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from sandboxfile.errors import HostError, IntegrityError
from sandboxfile.inputs.archive import Suite
from sandboxfile.inputs.control import fields
from sandboxfile.inputs.download import Blobs, Downloader
from sandboxfile.inputs.origins import Origins
from sandboxfile.inputs.rows import stanza_of
from sandboxfile.spec.lock import DebRow


class ControlCache:
    """Stanzas by the sha256 of their package: from a verified index, from what was kept, else from the
    package itself, which is then fetched."""

    def __init__(self, directory: Path, blobs: Blobs, downloader: Downloader, origins: Origins) -> None:
        self._directory = directory
        self._blobs = blobs
        self._downloader = downloader
        self._origins = origins

    def keep(self, rows: Sequence[DebRow], suites: Sequence[Suite]) -> None:
        """Keep the stanzas of rows that were just locked."""
        self._directory.mkdir(parents=True, exist_ok=True)
        for row in rows:
            path = self._directory / row.sha256
            if not path.exists() and (found := stanza_of(suites, row.name, row.version, row.arch)):
                self._write(path, found[1])

    async def stanzas(
        self, rows: Sequence[DebRow], suites: Sequence[Suite], *, offline: bool
    ) -> dict[str, str]:
        """The stanza of each row, by sha256. Raises FetchError when a package is needed and not to be had,
        IntegrityError when it is not the package the lock says it is."""
        found: dict[str, str] = {}
        for row in rows:
            path = self._directory / row.sha256
            if path.exists():
                found[row.sha256] = path.read_text("utf-8")
                continue
            at = stanza_of(suites, row.name, row.version, row.arch)
            if at and fields(at[1]).get("SHA256") == row.sha256:
                found[row.sha256] = at[1]
        missing = [row for row in rows if row.sha256 not in found]
        if missing:
            wanted = [self._origins.deb(row) for row in missing]
            await self._downloader.fetch(wanted, task="fetch:locked", offline=offline)
            self._directory.mkdir(parents=True, exist_ok=True)
            for row in missing:
                found[row.sha256] = text = self._unpacked(row)
                self._write(self._directory / row.sha256, text)
        return found

    def _unpacked(self, row: DebRow) -> str:
        try:
            done = subprocess.run(
                ("dpkg-deb", "--field", str(self._blobs.path(row.sha256))), capture_output=True, check=False
            )
        except FileNotFoundError:
            raise HostError("dpkg-deb is missing", hint="apt-get install dpkg") from None
        text = done.stdout.decode("utf-8", "replace").strip("\n")
        stanza = fields(text)
        if done.returncode != 0 or (stanza.get("Package"), stanza.get("Version")) != (row.name, row.version):
            raise IntegrityError(f"{row.path} is not the package {row.name} {row.version}")
        return text

    def _write(self, path: Path, text: str) -> None:
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        beside.write_text(text, "utf-8")
        os.replace(beside, path)
