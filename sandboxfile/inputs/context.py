"""The build context: the files that a Sandboxfile copies, found, checked and hashed.

Nothing is copied here. The result says what goes where; the bytes are read from `origin` when a layer is
built, or come with the tree when the Sandboxfile holds them itself.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path

from sandboxfile.core.digest import Digest, digest_of
from sandboxfile.core.layer import TreeEntry
from sandboxfile.declared import dataclass
from sandboxfile.errors import Issue, SpecError
from sandboxfile.inputs.contextroot import IGNORE_FILE, ContextRoot, RefusedError, is_text, shown
from sandboxfile.inputs.filehash import FileHasher, NotAFileError, StatCache
from sandboxfile.spec.model import FileRequest

TREE_TAG = "sandboxfile.tree/v1"

_OWNER = re.compile(r"(?:[0-9]{1,10}|[A-Za-z_][A-Za-z0-9_.-]*\$?)")
_GLOB = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class ContextTree:
    """What the `files` entries place, one tuple for each, sorted by path by code point.

    inline: bytes by sha256 (hex) of the files that come from `content:`; those have no origin
    """

    entries: tuple[tuple[TreeEntry, ...], ...]
    inline: Mapping[str, bytes] = field(default_factory=dict, repr=False)


def tree_digest(entries: Sequence[TreeEntry]) -> Digest:
    """The digest of a file tree: paths, types, modes, owners, content; not where it came from."""
    return digest_of(TREE_TAG, tuple(entries))


def scan(
    directory: Path,
    files: Sequence[FileRequest],
    *,
    hasher: FileHasher | None = None,
    cache: StatCache | None = None,
) -> ContextTree:
    """Find what each `files` entry copies from `directory`, or from the entry's own `root` below or
    outside it. Raises SpecError with every problem found. `cache` is for a hasher made here."""
    scanner = _Scanner(directory, hasher or FileHasher(cache))
    entries = tuple(scanner.scan(number, request) for number, request in enumerate(files))
    if scanner.issues:
        raise SpecError(tuple(scanner.issues))
    return ContextTree(entries, scanner.inline)


class _Scanner:
    def __init__(self, directory: Path, hasher: FileHasher) -> None:
        self._directory = directory
        self._hasher = hasher
        self._roots: dict[str, ContextRoot] = {}
        self._number = 0
        self.issues: list[Issue] = []
        self.inline: dict[str, bytes] = {}

    def scan(self, number: int, request: FileRequest) -> tuple[TreeEntry, ...]:
        self._number = number
        try:
            placement = _Placement(request)
            if request.content is not None:
                return (self._inline(request.content, placement),)
            found = list(self._from_context(request.source or "", request, placement))
        except RefusedError as refusal:
            self._refuse(request, refusal)
            return ()
        return tuple(sorted(found, key=lambda entry: entry.path))

    def _inline(self, content: str, placement: _Placement) -> TreeEntry:
        if placement.into:
            raise RefusedError(
                "bad-destination", f"`to: {placement.shown}` names a directory, and `content` is one file"
            )
        if not is_text(content):
            raise RefusedError("content-not-utf8", "`content` holds half a character (a lone surrogate)")
        data = content.encode("utf-8")
        sha256 = hashlib.sha256(data).hexdigest()
        self.inline[sha256] = data
        return placement.file("", sha256, len(data), executable=False, origin="")

    def _from_context(self, source: str, request: FileRequest, placement: _Placement) -> Iterator[TreeEntry]:
        root = self._roots.get(request.root)
        if root is None:
            root = self._roots[request.root] = ContextRoot(self._directory / request.root)
        if source.startswith("/") or ".." in source.split("/") or "\0" in source or not is_text(source):
            raise RefusedError(
                "path-outside-context",
                f"`from: {shown(source)}` is outside the build context",
                "give a path relative to the Sandboxfile, below its directory",
            )
        source = "/".join(part for part in source.split("/") if part not in ("", "."))
        if _GLOB.search(source) and not os.path.lexists(root.path / source):
            yield from self._matches(source, request, root, placement)
            return
        found = root.resolve(source)
        if stat.S_ISDIR(found.status.st_mode):
            yield from placement.top()
            yield from self._content(root, found.relative, "", request, placement)
        else:
            name = source.rpartition("/")[2] if placement.into else ""
            entry = self._entry(root, found.relative, name, request, placement)
            if entry is not None:
                yield entry

    def _matches(
        self, pattern: str, request: FileRequest, root: ContextRoot, placement: _Placement
    ) -> Iterator[TreeEntry]:
        placed: dict[str, str] = {}
        for relative in root.glob(pattern):
            name = relative.rpartition("/")[2]
            if name in placed:
                raise RefusedError(
                    "same-destination",
                    f"both {shown(placed[name])} and {shown(relative)} would become "
                    f"{placement.path_of(name)}",
                    "copy the directory instead, or use a narrower pattern",
                )
            placed[name] = relative
            entry = self._entry(root, relative, name, request, placement)
            if entry is not None:
                yield entry
                if entry.type == "dir":
                    yield from self._content(root, relative, name, request, placement)
        if not placed:
            raise RefusedError("missing-file", f"nothing in the build context matches `{shown(pattern)}`")
        yield from placement.top()

    def _content(
        self, root: ContextRoot, top: str, place: str, request: FileRequest, placement: _Placement
    ) -> Iterator[TreeEntry]:
        pending = [(top, place)]
        while pending:
            relative, place = pending.pop()
            try:
                names = root.names(relative)
            except RefusedError as refusal:
                self._refuse(request, refusal)
                continue
            for name in names:
                inner, inner_place = _join(relative, name), _join(place, name)
                entry = self._entry(root, inner, inner_place, request, placement)
                if entry is not None:
                    yield entry
                    if entry.type == "dir":
                        pending.append((inner, inner_place))

    def _entry(
        self, root: ContextRoot, relative: str, place: str, request: FileRequest, placement: _Placement
    ) -> TreeEntry | None:
        """The entry for what stands at `relative`; None when it is ignored or refused (and reported)."""
        origin = os.path.join(root.path, relative)
        try:
            status = os.lstat(origin)
            if root.ignores(relative, directory=stat.S_ISDIR(status.st_mode)):
                return None
            if not is_text(relative):
                raise RefusedError(
                    "name-not-utf8",
                    f"the name of {shown(relative)} is not UTF-8 text",
                    f"rename it, or list it in {IGNORE_FILE}",
                )
            if stat.S_ISDIR(status.st_mode):
                return placement.directory(place)
            if stat.S_ISLNK(status.st_mode):
                target = os.readlink(origin)
                if not is_text(target):
                    raise RefusedError("name-not-utf8", f"the target of {shown(relative)} is not UTF-8 text")
                return placement.symlink(place, target)
            sha256, status = self._hasher.digest(origin)
            return placement.file(place, sha256, status.st_size, bool(status.st_mode & 0o111), origin)
        except RefusedError as refusal:
            self._refuse(request, refusal)
        except NotAFileError:
            self._refuse(
                request,
                RefusedError(
                    "special-file",
                    f"{shown(relative)} is {_kind(origin)}, which cannot be copied",
                    f"list it in {IGNORE_FILE}",
                ),
            )
        except OSError as error:
            reason = error.strerror or "it changes while it is read"
            self._refuse(
                request, RefusedError("unreadable-file", f"{shown(relative)} cannot be read: {reason}")
            )
        return None

    def _refuse(self, request: FileRequest, refusal: RefusedError) -> None:
        self.issues.append(
            Issue(refusal.code, refusal.message, request.span, f"files[{self._number}]", refusal.hint)
        )


class _Placement:
    """Where one `files` entry puts things, with its modes and owner."""

    def __init__(self, request: FileRequest) -> None:
        self.shown = shown(request.to)
        parts = request.to.split("/")
        if not request.to.startswith("/") or ".." in parts or "\0" in request.to or not is_text(request.to):
            raise RefusedError(
                "bad-destination",
                f"`to: {self.shown}` is not an absolute path without `..`",
                "write the whole path in the environment, as in /app/app.py",
            )
        self.into = request.to.endswith("/")
        self._to = "/" + "/".join(part for part in parts if part not in ("", "."))
        self._mode = request.mode
        self._owner = _owner(request.owner)

    def path_of(self, place: str) -> str:
        if not place:
            return self._to
        return f"{self._to.rstrip('/')}/{place}"

    def top(self) -> Iterator[TreeEntry]:
        """The directory that everything goes into; the root directory is there and stays as it is."""
        if self._to != "/":
            yield self.directory("")

    def directory(self, place: str) -> TreeEntry:
        mode = 0o755
        if self._mode is not None:
            mode = self._mode & 0o777
            mode |= (mode & 0o444) >> 2
        return TreeEntry(self.path_of(place), "dir", mode, self._owner)

    def symlink(self, place: str, target: str) -> TreeEntry:
        return TreeEntry(self.path_of(place), "symlink", 0, self._owner, target=target)

    def file(self, place: str, sha256: str, size: int, executable: bool, origin: str) -> TreeEntry:
        mode = self._mode if self._mode is not None else (0o755 if executable else 0o644)
        return TreeEntry(self.path_of(place), "file", mode, self._owner, sha256, size=size, origin=origin)


def _join(directory: str, name: str) -> str:
    return f"{directory}/{name}" if directory else name


def _owner(owner: str | None) -> str:
    if owner is None:
        return "0:0"
    user, colon, group = owner.partition(":")
    if not colon:
        group = user
    if not _OWNER.fullmatch(user) or not _OWNER.fullmatch(group):
        raise RefusedError(
            "bad-owner",
            f"`owner: {shown(owner)}` is not `user`, `uid`, `user:group` or `uid:gid`",
        )
    return f"{_id(user)}:{_id(group)}"


def _id(text: str) -> str:
    return str(int(text)) if text.isdigit() else text


def _kind(path: str) -> str:
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        # Gone again since it was looked at.
        mode = 0
    if stat.S_ISSOCK(mode):
        return "a socket"
    if stat.S_ISFIFO(mode):
        return "a named pipe"
    if stat.S_ISBLK(mode) or stat.S_ISCHR(mode):
        return "a device"
    return "no regular file"
