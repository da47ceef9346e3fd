"""Vendored packages: a directory or a tar that holds a lock and every file that it names.

    SHA256SUMS              what there is; `sha256sum -c` reads it
    sandboxfile.lock        the lock that it was made for
    apt/<archive>/pool/…    Debian packages
    pip/<file>              wheels, and source archives of those that were built
    rootfs/<file>           the tar of a `rootfs` base

What is read here is no more trusted than what an origin sends: whoever takes a file hashes it.
"""

from __future__ import annotations

import functools
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sandboxfile.errors import FetchError, UsageError

SUMS = "SHA256SUMS"
LOCK = "sandboxfile.lock"
CHUNK = 1 << 20
HEAD = "# sandboxfile vendor 1: every file that the lock names\n"
_LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")


@dataclass(frozen=True)
class Entry:
    """A vendored file: its path below the vendored directory, and its sha256."""

    path: str
    sha256: str


@dataclass(frozen=True)
class Vendored:
    """Vendored packages that are there. `urls` holds by path where the bytes are."""

    place: Path
    entries: tuple[Entry, ...]
    urls: Mapping[str, str]

    def url(self, sha256: str) -> str | None:
        """Where the file of a sha256 is, None when it is not vendored."""
        path = self._paths.get(sha256)
        return self.urls.get(path) if path is not None else None

    @functools.cached_property
    def _paths(self) -> Mapping[str, str]:
        return {entry.sha256: entry.path for entry in self.entries}

    def lock_text(self) -> str | None:
        """The vendored lock, None when there is none."""
        if LOCK not in self.urls:
            return None
        return b"".join(pieces(self.urls[LOCK])).decode("utf-8", "replace")


def find_vendored(directory: Path) -> Path | None:
    """The vendored packages that stand beside a lock; a directory wins over a tar."""
    beside = directory / "sandboxfile.vendor"
    if (beside / SUMS).is_file():
        return beside
    tar = directory / "sandboxfile.vendor.tar"
    return tar if tar.is_file() else None


def open_vendored(place: Path) -> Vendored:
    """The vendored packages at a place. Read once for each content and process.

    Raises UsageError when there are none, FetchError when they cannot be read.
    """
    try:
        status = (place / SUMS if place.is_dir() else place).stat()
    except OSError:
        raise UsageError(
            f"there are no vendored packages at {place}", hint=f"`sandboxfile vendor {place}` writes them"
        ) from None
    key = (place, status.st_mtime_ns, status.st_size, status.st_ino)
    found = _OPENED.get(key)
    if found is None:
        found = _OPENED[key] = _directory(place) if place.is_dir() else _tar(place)
    return found


_OPENED: dict[tuple[Path, int, int, int], Vendored] = {}


def parse_sums(text: str) -> tuple[Entry, ...]:
    """The entries of a SHA256SUMS file. Raises ValueError for a line that is none, or leads elsewhere."""
    entries = []
    for line in text.splitlines():
        if line.startswith("#") or not line:
            continue
        found = _LINE.fullmatch(line)
        if not found or found[2].startswith("/") or ".." in found[2].split("/"):
            raise ValueError(f"`{line}` is not `SHA256  PATH`")
        entries.append(Entry(found[2], found[1]))
    return tuple(entries)


def dump_sums(entries: Iterator[Entry] | tuple[Entry, ...]) -> str:
    """The text of a SHA256SUMS file."""
    ordered = sorted(entries, key=lambda entry: entry.path)
    return HEAD + "".join(f"{entry.sha256}  {entry.path}\n" for entry in ordered)


def pieces(url: str) -> Iterator[bytes]:
    """The bytes behind a URL of `Vendored.urls`, piece by piece. OSError."""
    parts = urlsplit(url)
    part = re.fullmatch(r"bytes=(\d+)-(\d+)", parts.fragment)
    with Path(unquote(parts.path)).open("rb") as file:
        file.seek(int(part[1]) if part else 0)
        left = int(part[2]) + 1 - int(part[1]) if part else -1
        while left and (piece := file.read(CHUNK if left < 0 else min(left, CHUNK))):
            left -= len(piece) if left > 0 else 0
            yield piece


def _directory(place: Path) -> Vendored:
    try:
        entries = parse_sums((place / SUMS).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(place, error) from None
    urls = {entry.path: (place.absolute() / entry.path).as_uri() for entry in entries}
    return Vendored(place, entries, urls)


def _tar(place: Path) -> Vendored:
    """A tar is read by its headers alone; files are taken from where they lie in it."""
    base = place.absolute().as_uri()
    try:
        with tarfile.open(place, "r:") as archive:
            urls = {
                member.name: f"{base}#bytes={member.offset_data}-{member.offset_data + member.size - 1}"
                for member in archive
                if member.isreg()
            }
            sums = archive.extractfile(SUMS)
            entries = parse_sums(sums.read().decode("utf-8") if sums else "")
    except (OSError, tarfile.TarError, KeyError, ValueError) as error:
        raise _damaged(place, error) from None
    return Vendored(place, entries, urls)


def _damaged(place: Path, error: Exception) -> FetchError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).strip("'\"")
    return FetchError(
        f"the vendored packages at {place} cannot be read: {reason}",
        hint=f"write them anew with `sandboxfile vendor {place}`",
    )
