"""Reading Debian packages: the archive's members, its control files, and its content as a stream of entries.

A package is a file whose digest is known, and still nobody's friend: every length, name and number in it is
checked here, and what dpkg would not take, or only in a way that deb(5) does not describe, is a DebError.
Nothing here writes; names are bytes, as in the archive.
"""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple, Protocol

_MAGIC = b"!<arch>\n"
_BLOCK = 512
_PIECE = 1 << 18
_OUTPUT = 1 << 20
_MEMORY = 256 << 20
_MOST_CONTROL = 64 << 20
_LONGEST_NAME = 1 << 16
_LONG = {b"L": "name", b"K": "target"}
_KINDS = {b"0": "file", b"\0": "file", b"1": "link", b"2": "symlink", b"5": "dir"}


class DebError(ValueError):
    """The file is no package, or one with something that has no place in one."""


class _Finished(DebError):
    """There is nothing more, and what there was is whole."""


class Member(NamedTuple):
    """A member of the package: where its bytes are in the file, and how they are compressed (a suffix)."""

    offset: int
    size: int
    compression: str


class Entry(NamedTuple):
    """One entry of the content.

    path:   absolute and without `.`, `..` or empty parts; `/` is the root itself
    kind:   `file`, `link` (a hard link), `symlink` or `dir`
    mode:   permission bits
    user:   the owner's name, empty when only its number is known; group likewise
    target: of a symlink as it is written there, of a hard link a path like `path`
    time:   of last modification, in whole seconds
    """

    path: bytes
    kind: str
    mode: int
    user: bytes
    uid: int
    group: bytes
    gid: int
    size: int
    time: int
    target: bytes


class ControlFile(NamedTuple):
    """A file of the control archive. `time` is when it was modified, in whole seconds."""

    mode: int
    time: int
    content: bytes


class Deb:
    """A package of format 2.0, opened: its control files by name, and where its content is."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        control, self.data = _members(file)
        self.control = _control(Content(file, control))

    def content(self) -> Content:
        """The content from its beginning."""
        return Content(self._file, self.data)


def _members(file: BinaryIO) -> tuple[Member, Member]:
    file.seek(0)
    if file.read(len(_MAGIC)) != _MAGIC:
        raise DebError("it is no ar archive")
    found: list[tuple[str, Member]] = []
    while header := file.read(60):
        if len(header) != 60 or header[58:] != b"`\n":
            raise DebError("a member's header is damaged")
        name = header[:16].decode("ascii", "replace").rstrip(" ").removesuffix("/")
        size = header[48:58].strip()
        if not size.isdigit():
            raise DebError("a member's size is no number")
        if not name.startswith("_"):
            found.append((name, Member(file.tell(), int(size), "")))
        file.seek(int(size) + int(size) % 2, 1)
    names = [name for name, _ in found]
    if len(names) < 3 or names[0] != "debian-binary":
        raise DebError("it has not the members of a package")
    file.seek(found[0][1].offset)
    if not file.read(min(found[0][1].size, 16)).startswith(b"2."):
        raise DebError("its format is not 2.0")
    if not (names[1].startswith("control.tar") and names[2].startswith("data.tar")):
        raise DebError("its members are not in order")
    first, second = (
        member._replace(compression=name.partition(".tar")[2].removeprefix("."))
        for name, member in found[1:3]
    )
    return first, second


class _Decompressor(Protocol):
    """What lzma's and bz2's objects have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Gzip:
    """zlib's object with the interface of the others."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(31)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max(max_length, 0))


class _Plain:
    """No compression."""

    eof = False
    needs_input = True
    unused_data = b""

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:  # noqa: ARG002
        return data


def _decompressor(compression: str) -> _Decompressor:
    if compression == "xz":
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY)
    if compression == "gz":
        return _Gzip()
    if compression == "":
        return _Plain()
    if compression == "zst":
        try:
            from compression import zstd  # type: ignore[import-not-found,unused-ignore]
        except ImportError:
            raise DebError("this Python has no zstd") from None
        return zstd.ZstdDecompressor()  # type: ignore[no-any-return,unused-ignore]
    raise DebError(f"it is compressed as .{compression}")


class Content:
    """A tar archive inside of a package, read once from front to back.

    `entries` gives one entry after the other; the bytes of a `file` are to be taken by `pieces` before the
    next one is asked for, else they are passed over.
    """

    def __init__(self, file: BinaryIO, member: Member) -> None:
        self._file = file
        self._position, self._end = member.offset, member.offset + member.size
        self._kind = member.compression
        self._decompressor = _decompressor(member.compression)
        self._ready = memoryview(b"")
        self._left = 0

    def entries(self) -> Iterator[Entry]:
        """Every entry in the archive's order. Raises DebError where it is damaged, or unlike a package's."""
        long: dict[str, bytes] = {}
        while True:
            self._skip(self._left)
            block = bytes(self._take(_BLOCK))
            if block == bytes(_BLOCK):
                self._finish()
                return
            size = _checked(block)
            kind = block[156:157]
            if kind in _LONG:
                if size > _LONGEST_NAME:
                    raise DebError("a name is too long")
                text = b"".join(self._pieces(size))
                self._skip(-size % _BLOCK)
                long[_LONG[kind]] = text.partition(b"\0")[0]
                continue
            entry = _entry(block, size, long)
            long = {}
            self._left = size + -size % _BLOCK
            yield entry

    def pieces(self, entry: Entry) -> Iterator[memoryview]:
        """The bytes of the file that `entries` gave last."""
        self._left -= entry.size
        return self._pieces(entry.size)

    def _pieces(self, size: int) -> Iterator[memoryview]:
        while size:
            if not self._ready:
                self._fill()
            piece = self._ready[:size]
            self._ready = self._ready[len(piece) :]
            size -= len(piece)
            yield piece

    def _take(self, size: int) -> memoryview:
        if len(self._ready) >= size:
            piece, self._ready = self._ready[:size], self._ready[size:]
            return piece
        return memoryview(b"".join(self._pieces(size)))

    def _skip(self, size: int) -> None:
        self._left = 0
        for _ in self._pieces(size):
            pass

    def _fill(self) -> None:
        """Have at least one more byte. Raises DebError at the end."""
        try:
            while not self._ready:
                data = b""
                if self._decompressor.eof:
                    # Several streams in a row are one; zeros after one are padding.
                    data = self._decompressor.unused_data.lstrip(b"\0")
                    while not data:
                        data = self._read().lstrip(b"\0")
                    self._decompressor = _decompressor(self._kind)
                elif self._decompressor.needs_input:
                    data = self._read()
                self._ready = memoryview(self._decompressor.decompress(data, _OUTPUT))
        except (lzma.LZMAError, zlib.error, OSError) as error:
            if isinstance(error, OSError) and error.errno:
                raise
            raise DebError(f"its compressed data is damaged: {error}") from None

    def _finish(self) -> None:
        """Read to the end, so that what checks the whole (a checksum, a length) has been looked at."""
        try:
            while True:
                self._ready = memoryview(b"")
                self._fill()
        except _Finished:
            return

    def _read(self) -> bytes:
        if self._position >= self._end:
            if self._decompressor.eof or not self._kind:
                raise _Finished("it ends too early")
            raise DebError("it ends in the middle")
        self._file.seek(self._position)
        data = self._file.read(min(_PIECE, self._end - self._position))
        if not data:
            raise DebError("it ends in the middle")
        self._position += len(data)
        return data


def _checked(block: bytes) -> int:
    """The size of a header's content, when the header is in order."""
    expected = _number(block[148:156])
    if sum(block) - sum(block[148:156]) + 8 * 32 != expected:
        raise DebError("a tar header's checksum is wrong")
    size = _number(block[124:136])
    return size if block[156:157] in (b"0", b"\0", *_LONG) else 0


def _number(field: bytes) -> int:
    """A number of a tar header: octal, or the base-256 form of GNU (not negative)."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    text = field.lstrip(b" ").partition(b"\0")[0].rstrip(b" ")
    if not text:
        return 0
    if any(digit not in b"01234567" for digit in text):
        raise DebError("a number in a tar header is none")
    return int(text, 8)


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _entry(block: bytes, size: int, long: dict[str, bytes]) -> Entry:
    try:
        kind = _KINDS[block[156:157]]
    except KeyError:
        raise DebError(f"it holds an entry of type {block[156:157]!r}") from None
    name = long.get("name")
    if name is None:
        name = _text(block[:100])
        prefix = _text(block[345:500]) if block[257:263] == b"ustar\0" else b""
        if prefix:
            name = prefix + b"/" + name
    target = long.get("target", _text(block[157:257]))
    if kind == "file" and name.endswith(b"/"):
        kind = "dir"
    path = _path(name)
    if (path == b"/") != (kind == "dir" and name.rstrip(b"/") in (b"", b".")):
        raise DebError("its root is no directory")
    if kind == "link":
        target = _path(target)
    elif kind == "symlink" and not target:
        raise DebError("a symbolic link leads nowhere")
    return Entry(
        path,
        kind,
        _number(block[100:108]) & 0o7777,
        _text(block[265:297]),
        _number(block[108:116]),
        _text(block[297:329]),
        _number(block[116:124]),
        size if kind == "file" else 0,
        _number(block[136:148]),
        target if kind in ("link", "symlink") else b"",
    )


def _path(name: bytes) -> bytes:
    """The absolute path of a name. Raises DebError for one that could lead elsewhere, or no list can hold."""
    parts = name.removeprefix(b"./").strip(b"/").split(b"/")
    if parts in ([b""], [b"."]):
        return b"/"
    if b"\n" in name or b"" in parts or b"." in parts or b".." in parts:
        raise DebError(f"it holds the path {name!r}")
    return b"/" + b"/".join(parts)


def _control(content: Content) -> dict[str, ControlFile]:
    """The regular files of a control archive, by name."""
    found: dict[str, ControlFile] = {}
    total = 0
    for entry in content.entries():
        if entry.path == b"/":
            continue
        name = entry.path[1:].decode("utf-8", "surrogateescape")
        total += entry.size
        if entry.kind != "file" or "/" in name or total > _MOST_CONTROL:
            raise DebError("its control archive holds more than plain files")
        found[name] = ControlFile(entry.mode, entry.time, b"".join(content.pieces(entry)))
    if "control" not in found:
        raise DebError("it has no control file")
    return found
