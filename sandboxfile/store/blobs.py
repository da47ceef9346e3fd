"""Content-addressed files: packages, wheels and archives by sha256.

A blob is under its name only when every byte of it was hashed. Blobs are read-only files; their time of
modification says when they were last used.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sandboxfile.errors import IntegrityError, StoreError
from sandboxfile.store.atomic import sync_directory, unique
from sandboxfile.store.failure import reported
from sandboxfile.store.faults import point
from sandboxfile.store.locks import acquire, try_acquire

CHUNK = 1 << 20
WORTH_KEEPING = 1 << 20
"""Bytes of an unfinished blob that are kept for whoever goes on with it; fewer are quickly had again."""


class BlobStore:
    """The blobs below one directory. A sha256 is 64 lower-case hexadecimal digits, without a prefix."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.incoming = directory / "incoming"

    def path(self, sha256: str) -> Path:
        """Where a blob is, or would be. ValueError for a text that is no sha256."""
        if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
            raise ValueError(f"not a sha256: {sha256!r}")
        return self.directory / "sha256" / sha256[:2] / sha256[2:]

    def has(self, sha256: str) -> bool:
        """Whether a blob is there."""
        return os.path.exists(self.path(sha256))

    def missing(self, sha256s: Iterable[str]) -> tuple[str, ...]:
        """Those that are not there, each once, in the order given."""
        return tuple(sha256 for sha256 in dict.fromkeys(sha256s) if not self.has(sha256))

    def touch(self, sha256s: Iterable[str]) -> None:
        """Note that blobs are used now, which keeps them from gc a while. Missing ones are passed over."""
        with reported("noting the use of a package"):
            for sha256 in sha256s:
                try:
                    os.utime(self.path(sha256))
                except FileNotFoundError:
                    continue

    @contextmanager
    def writer(
        self,
        expected_sha256: str | None = None,
        expected_size: int | None = None,
        *,
        name: str = "",
        resume: bool = False,
    ) -> Iterator[BlobWriter]:
        """Stream a blob in. It is there, durably, when the block ends, and nothing is left when it fails.

        With `resume` (and an expected digest) a megabyte or more of an unfinished blob stays among the
        incoming ones until gc, and the next writer of the same begins with it. `name` is what people call the
        file, for messages. Raises IntegrityError when digest or size differ from what was expected (as soon
        as there are too many bytes), StoreError when it cannot be written.
        """
        if expected_sha256 is not None:
            self.path(expected_sha256)
        name = name or expected_sha256 or "blob"
        with reported("making a file in the package store"):
            writer = BlobWriter(self, expected_sha256, expected_size, name, resume=resume)
        try:
            yield writer
            writer.finish()
        finally:
            writer.discard()

    def put_bytes(self, content: bytes) -> str:
        """Keep bytes; their sha256."""
        with self.writer() as writer:
            writer.write(content)
        return writer.sha256

    def put_file(self, path: Path, sha256: str | None = None, *, move: bool = False) -> str:
        """Keep the bytes of a file, checked against `sha256` when given; their sha256. With `move` the file
        itself goes, once the blob is there. Raises FileNotFoundError, IntegrityError, StoreError."""
        with open(path, "rb") as stream, self.writer(sha256, name=path.name) as writer:
            while chunk := stream.read(CHUNK):
                writer.write(chunk)
        if move:
            path.unlink(missing_ok=True)
        return writer.sha256

    def copy_to(self, sha256: str, path: Path, *, mode: int = 0o644) -> None:
        """Copy a blob to a new file. A link would let whoever writes to that file change the blob."""
        with reported("copying a package"), open(self._existing(sha256), "rb") as source:
            with open(path, "xb") as target:
                shutil.copyfileobj(source, target, CHUNK)
            path.chmod(mode)

    def share(self, sha256s: Iterable[str], other: BlobStore) -> None:
        """Have blobs in another store too, as further names of the same files; those that are not here, or
        cannot be linked there, are passed over."""
        for sha256 in sha256s:
            target = other.path(sha256)
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                os.link(self.path(sha256), target)
            except OSError:
                continue

    def verify(self, sha256: str, *, remove: bool = True) -> None:
        """Hash a blob again. One that is damaged is removed (if it may be), so that the next build fetches it
        anew. Raises IntegrityError, or StoreError when it is not there."""
        import hashlib  # loads OpenSSL

        path = self._existing(sha256)
        with reported("reading the package store"), open(path, "rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != sha256:
            if remove:
                with reported("removing a damaged package"):
                    path.unlink(missing_ok=True)
            raise IntegrityError(
                f"a file of the package store was damaged: its sha256 is {found}, not {sha256}",
                hint="it was removed; the next build fetches it again" if remove else None,
            )

    def _existing(self, sha256: str) -> Path:
        path = self.path(sha256)
        if not path.exists():
            raise StoreError(
                f"the package store has no file of sha256 {sha256}", hint="build without `--offline`"
            )
        return path


class BlobWriter:
    """A blob on its way in: hashed as it is written, in a locked file that gc leaves alone."""

    def __init__(
        self,
        blobs: BlobStore,
        expected_sha256: str | None,
        expected_size: int | None,
        name: str,
        *,
        resume: bool = False,
    ) -> None:
        import hashlib  # loads OpenSSL

        self._blobs = blobs
        self._expected_sha256 = expected_sha256
        self._expected_size = expected_size
        self._name = name
        self._hash = hashlib.sha256()
        self._path = blobs.incoming / unique()
        self._keep = False
        self._spoilt = False
        self._finished = False
        self.size = 0
        held = None
        if resume and expected_sha256 is not None:
            part = blobs.incoming / f"{expected_sha256}.part"
            # Another process may be at it: then this one begins a file of its own.
            held = try_acquire(part, fcntl.LOCK_EX, sign=False)
            if held is not None:
                self._path, self._keep = part, True
        self._descriptor = acquire(self._path, fcntl.LOCK_EX) if held is None else held
        try:
            if self._keep:
                self._take_up()
            else:
                os.ftruncate(self._descriptor, 0)
            point("blob:created")
        except BaseException:
            self.discard()
            raise

    def _take_up(self) -> None:
        """Begin with what an earlier writer left."""
        while chunk := os.pread(self._descriptor, CHUNK, self.size):
            self._hash.update(chunk)
            self.size += len(chunk)
        if self._expected_size is not None and self.size > self._expected_size:
            self.restart()

    @property
    def sha256(self) -> str:
        """The digest of what was written so far."""
        return self._hash.hexdigest()

    def write(self, chunk: bytes) -> None:
        """Add bytes. IntegrityError when there are more than expected, StoreError when they do not fit."""
        self.size += len(chunk)
        if self._expected_size is not None and self.size > self._expected_size:
            self._spoilt = True
            raise IntegrityError(f"{self._name} is longer than the {self._expected_size} bytes promised")
        self._hash.update(chunk)
        with reported(f"writing {self._name} into the package store"):
            rest = memoryview(chunk)
            position = self.size - len(chunk)
            while rest:
                count = os.pwrite(self._descriptor, rest, position)
                rest, position = rest[count:], position + count

    def restart(self) -> None:
        """Forget all bytes."""
        import hashlib

        with reported(f"writing {self._name} into the package store"):
            os.ftruncate(self._descriptor, 0)
        self._hash = hashlib.sha256()
        self._spoilt = False
        self.size = 0

    def finish(self) -> None:
        """Check the whole and put it under its name. May be called twice."""
        if self._finished:
            return
        self._spoilt = True
        if self._expected_size is not None and self.size != self._expected_size:
            raise IntegrityError(
                f"{self._name} has {self.size} bytes, not the {self._expected_size} promised"
            )
        if self._expected_sha256 is not None and self.sha256 != self._expected_sha256:
            raise IntegrityError(
                f"the bytes of {self._name} are not what was promised: "
                f"their sha256 is {self.sha256}, not {self._expected_sha256}"
            )
        self._spoilt = False
        target = self._blobs.path(self.sha256)
        with reported(f"writing {self._name} into the package store"):
            point("blob:written")
            if target.exists():
                self._blobs.touch((self.sha256,))
                self._finished = True
                return
            os.ftruncate(self._descriptor, self.size)
            os.fchmod(self._descriptor, 0o444)
            os.fsync(self._descriptor)
            point("blob:synced")
            target.parent.mkdir(mode=0o700, exist_ok=True)
            os.replace(self._path, target)
            self._finished = True
            point("blob:renamed")
            sync_directory(target.parent)

    def discard(self) -> None:
        """Remove what was not put under its name, unless it can be gone on with. May be called twice."""
        if self._descriptor >= 0:
            if self._finished or self._spoilt or not self._keep or self.size < WORTH_KEEPING:
                self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = -1
