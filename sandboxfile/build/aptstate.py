"""What apt made of a set of signed suites: its lists and its binary cache, kept for the next solve.

apt reads and checks an archive once for each content. The state lies in the store's `indexes`, under a digest
of everything it was made from: the base (and so its apt), the digests of the signed InRelease files, the keys
and apt's own source lines. Another InRelease is another name; nothing is ever looked up by place or time.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from sandboxfile.core.digest import digest_bytes, digest_of, hexadecimal
from sandboxfile.core.layer import LayerKey
from sandboxfile.inputs.archive import Suite

STATE_TAG = "sandboxfile.apt-state/v1"
CACHE = "cache/srcpkgcache.bin"
MANIFEST = "manifest.json"
LIMIT = 1 << 30
"""The most bytes a state may have."""


class AptStates:
    """The kept states, in the store's directory of indexes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def path(
        self, stack: Sequence[LayerKey], architecture: str, suites: Sequence[Suite], sources: str
    ) -> Path:
        """Where the state for these suites, read by the apt of this stack, is or would be."""
        made_from = {
            "stack": [str(key) for key in stack],
            "architecture": architecture,
            "sources": sources,
            "suites": [
                {
                    "inrelease": suite.archive.inrelease,
                    "key": digest_bytes(suite.request.keyring.content),
                    "packages": list(suite.request.packages),
                }
                for suite in suites
            ],
        }
        return self._directory / f"apt-{hexadecimal(digest_of(STATE_TAG, made_from))}"

    async def find(self, path: Path) -> bool:
        """Whether a whole state is at `path`. A damaged one is removed."""
        return await asyncio.to_thread(self._find, path)

    def _find(self, path: Path) -> bool:
        try:
            manifest = json.loads((path / MANIFEST).read_text("utf-8"))
            intact = all(_digest(path / name) == digest for name, digest in manifest.items())
        except (OSError, ValueError, AttributeError):
            intact = False
        if not intact:
            if path.exists():
                shutil.rmtree(path, ignore_errors=True)
            return False
        # gc goes by the time of the directory.
        os.utime(path)
        return True

    async def keep(self, path: Path, archive: bytes) -> None:
        """Keep the state in a tar archive of `lists` and the cache, as apt left them. What does not look like
        that is not kept."""
        await asyncio.to_thread(self._keep, path, archive)

    def _keep(self, path: Path, archive: bytes) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".incoming-", dir=self._directory))
        try:
            if not _unpacked(archive, scratch):
                return
            manifest = {
                str(each.relative_to(scratch)): _digest(each)
                for each in sorted(scratch.rglob("*"))
                if not each.is_dir() or each.is_symlink()
            }
            (scratch / MANIFEST).write_text(json.dumps(manifest), "utf-8")
            scratch.chmod(0o755)
            try:
                os.rename(scratch, path)
            except OSError:
                # Another process kept the same state first.
                if not path.is_dir():
                    raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _unpacked(archive: bytes, place: Path) -> bool:
    """Unpack files and links of `lists` and the cache, with their times, which apt compares. False when the
    archive holds no cache, or anything that has no place in a state."""
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as members:
            for member in members:
                name = PurePosixPath(member.name)
                if member.isdir():
                    continue
                if len(name.parts) != 2 or ".." in name.parts or member.size > LIMIT:
                    return False
                if name.parts[0] != "lists" and str(name) != CACHE:
                    return False
                target = place / name
                target.parent.mkdir(exist_ok=True)
                if member.issym() and member.linkname.startswith("/run/sandboxfile/archive-"):
                    target.symlink_to(member.linkname)
                elif member.isfile():
                    content = members.extractfile(member)
                    target.write_bytes(content.read() if content else b"")
                    target.chmod(0o644)
                    os.utime(target, (member.mtime, member.mtime))
                else:
                    return False
    except (tarfile.TarError, OSError):
        return False
    for empty in ("lists/partial", "cache/archives/partial"):
        (place / empty).mkdir(parents=True, exist_ok=True)
    for directory in (each for each in place.rglob("*") if each.is_dir() and not each.is_symlink()):
        directory.chmod(0o755)
    return (place / CACHE).is_file()


def _digest(path: Path) -> str:
    """What a file or a link of a state holds."""
    if path.is_symlink():
        return f"-> {os.readlink(path)}"
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
