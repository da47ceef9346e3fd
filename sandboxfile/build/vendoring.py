"""Writing vendored packages: a lock and every file that it names, in a directory or a tar.

The bytes are a function of the lock. Each file is hashed as it is written; a directory that is there already
keeps what is right in it, loses what its list of files names and the lock does not, and is whole at any
moment: files are renamed in, the list comes last.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Protocol

from sandboxfile.build.result import VendorResult
from sandboxfile.build.wanted import WantedFiles
from sandboxfile.errors import UsageError
from sandboxfile.inputs.download import Wanted
from sandboxfile.inputs.vendored import LOCK, SUMS, Entry, dump_sums, open_vendored, pieces

CHUNK = 1 << 20


class Blobs(Protocol):
    """What is needed of the blob store."""

    def path(self, sha256: str) -> Path:
        """Where a blob is."""

    def verify(self, sha256: str) -> None:
        """Hash a blob again; one that is damaged is removed. IntegrityError."""


@dataclass(frozen=True)
class Vendoring:
    """What is to be vendored: the lock's text, and each file by its path."""

    lock: str
    files: Mapping[str, Wanted]
    epoch: int

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Every file, the lock included, in the order of their paths."""
        found = [Entry(path, item.sha256) for path, item in self.files.items()]
        found.append(Entry(LOCK, hashlib.sha256(self.lock.encode()).hexdigest()))
        return tuple(sorted(found, key=lambda entry: entry.path))


def vendoring_of(files: WantedFiles, lock: str) -> Vendoring:
    """What a lock needs. Raises UsageError for a base that is no file: a snapshot of the store's."""
    if files.lock.base.kind == "snapshot":
        raise UsageError(
            "the base is a snapshot of the store, which is no package that could be vendored",
            span=files.spec.base.span,
            hint="vendor the environment that the snapshot was built from, and build it first",
        )
    found: dict[str, Wanted] = {}
    for row, item in files.debs():
        found[f"apt/{row.archive}/{row.path}"] = item
    for _, item in (*files.wheels(), *files.sources()):
        found[_free(f"pip/{item.name}", item, found)] = item
    if (rootfs := files.rootfs()) is not None:
        found[f"rootfs/{rootfs.name.rpartition('/')[2]}"] = rootfs
    return Vendoring(lock, found, files.lock.base.epoch)


def _free(path: str, item: Wanted, taken: Mapping[str, Wanted]) -> str:
    """The path, or one beside it when another file of that name is there."""
    if path not in taken or taken[path].sha256 == item.sha256:
        return path
    return f"pip/{item.sha256[:16]}/{item.name}"


def compare(place: Path, wanted: Vendoring) -> VendorResult:
    """How what is at a place differs from what is wanted. Every file is hashed."""
    size = sum(item.size for item in wanted.files.values())
    entries = wanted.entries
    if not os.path.lexists(place):
        return VendorResult(str(place), tuple(e.path for e in entries), files=len(entries), size=size)
    there = open_vendored(place)
    before = {entry.path: entry.sha256 for entry in there.entries}
    added, damaged = [], []
    for entry in entries:
        digest = _digest_of(there.urls.get(entry.path))
        if digest is None or (digest != entry.sha256 and before.get(entry.path) != entry.sha256):
            added.append(entry.path)
        elif digest != entry.sha256:
            damaged.append(entry.path)
    now = {entry.path for entry in entries}
    removed = tuple(path for path in before if path not in now)
    return VendorResult(str(place), tuple(added), removed, tuple(damaged), len(entries), size)


def write(place: Path, wanted: Vendoring, blobs: Blobs) -> VendorResult:
    """Make a place hold what is wanted, every file of which is in the store; what was changed.

    A place whose name ends in `.tar` is a tar, any other a directory. Raises UsageError when something else
    is there, IntegrityError when the store's bytes are not what the lock names.
    """
    tar = place.suffix == ".tar"
    if os.path.lexists(place) and place.is_dir() == tar:
        kind = "a directory" if tar else "no directory"
        raise UsageError(
            f"{place} is {kind}", hint="a name that ends in .tar is a tar, any other a directory"
        )
    if not tar and place.is_dir() and not (place / SUMS).exists() and any(place.iterdir()):
        raise UsageError(
            f"{place} holds something else than vendored packages", hint="name a new or an empty directory"
        )
    if not tar and place.is_dir() and not (place / SUMS).exists():
        (place / SUMS).write_text(dump_sums(()), "utf-8")
    changes = compare(place, wanted)
    if changes.changed:
        try:
            if tar:
                _write_tar(place, wanted, blobs)
            else:
                _write_directory(place, wanted, blobs, changes)
        except OSError as error:
            raise UsageError(f"{place} cannot be written: {error.strerror}") from None
    return changes


def _write_directory(place: Path, wanted: Vendoring, blobs: Blobs, changes: VendorResult) -> None:
    place.mkdir(parents=True, exist_ok=True)
    for path in (*changes.added, *changes.damaged):
        target = place / path
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            with beside.open("wb") as out:
                _copy(wanted, path, blobs, out)
            beside.chmod(0o644)
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)
    beside = place / f".{SUMS}.{os.getpid()}"
    beside.write_text(dump_sums(wanted.entries), "utf-8")
    beside.replace(place / SUMS)
    for path in changes.removed:
        (place / path).unlink(missing_ok=True)
        for parent in (place / path).parents:
            if parent == place or any(parent.iterdir()):
                break
            parent.rmdir()


def _write_tar(place: Path, wanted: Vendoring, blobs: Blobs) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    beside = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        with tarfile.open(beside, "w", format=tarfile.PAX_FORMAT) as archive:
            sums = dump_sums(wanted.entries).encode()
            archive.addfile(_member(SUMS, len(sums), wanted.epoch), BytesIO(sums))
            for entry in wanted.entries:
                if entry.path == LOCK:
                    text = wanted.lock.encode()
                    archive.addfile(_member(LOCK, len(text), wanted.epoch), BytesIO(text))
                    continue
                source = blobs.path(entry.sha256)
                with source.open("rb") as stream:
                    checked = _Checked(stream)
                    archive.addfile(_member(entry.path, source.stat().st_size, wanted.epoch), checked)
                if checked.sha256 != entry.sha256:
                    blobs.verify(entry.sha256)
        beside.chmod(0o644)
        beside.replace(place)
    finally:
        beside.unlink(missing_ok=True)


def _member(path: str, size: int, epoch: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(path)
    member.size, member.mtime, member.mode = size, epoch, 0o644
    return member


class _Checked(BytesIO):
    """A stream that hashes what is read from it."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self._stream = stream
        self._hash = hashlib.sha256()

    def read(self, size: int | None = -1, /) -> bytes:
        piece = self._stream.read(-1 if size is None else size)
        self._hash.update(piece)
        return piece

    @property
    def sha256(self) -> str:
        """The digest of what was read."""
        return self._hash.hexdigest()


def _copy(wanted: Vendoring, path: str, blobs: Blobs, out: BinaryIO) -> None:
    if path == LOCK:
        out.write(wanted.lock.encode())
        return
    item = wanted.files[path]
    with blobs.path(item.sha256).open("rb") as stream:
        checked = _Checked(stream)
        while piece := checked.read(CHUNK):
            out.write(piece)
    if checked.sha256 != item.sha256:
        blobs.verify(item.sha256)


def _digest_of(url: str | None) -> str | None:
    """The sha256 of what is behind a URL of vendored packages, None when nothing is."""
    if url is None:
        return None
    digest = hashlib.sha256()
    try:
        for piece in pieces(url):
            digest.update(piece)
    except OSError:
        return None
    return digest.hexdigest()
