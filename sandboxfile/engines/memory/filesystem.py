"""A filesystem in a dict: absolute paths to frozen nodes, with symlinks, owners and permission bits."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from pathlib import Path

from sandboxfile.declared import dataclass, replace

MOST_SYMLINKS = 40


@dataclass(frozen=True)
class Node:
    """One entry. `type` is `file`, `dir`, `symlink` or `device` (whose `target` is its name)."""

    type: str
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    content: bytes = field(default=b"", repr=False)
    target: str = ""

    @property
    def is_dir(self) -> bool:
        """Whether it is a directory."""
        return self.type == "dir"


ROOT_DIRECTORY = Node("dir", 0o755)
DEVICES = {f"/dev/{name}": Node("device", 0o666, target=name) for name in ("null", "zero")}


@dataclass(frozen=True)
class Credentials:
    """Who asks. Root may do everything."""

    uid: int = 0
    gid: int = 0


ROOT = Credentials()


def failure(code: int, path: str) -> OSError:
    """The OSError of an errno for a path."""
    return OSError(code, os.strerror(code), path)


class Filesystem:
    """`nodes` is what is kept; what is mounted over it (`mounted`) is seen, and never kept.

    live:      entries that come and go by themselves (/proc), seen first and never written
    read_only: mounted directories that cannot be written
    volatile:  mounted directories that can, until the command ends
    on_write:  called before the bytes of a file are taken; may raise
    """

    def __init__(
        self,
        nodes: dict[str, Node],
        *,
        mounted: dict[str, Node] | None = None,
        live: Mapping[str, Node] | None = None,
        read_only: tuple[str, ...] = (),
        volatile: tuple[str, ...] = (),
        on_write: Callable[[], None] | None = None,
    ) -> None:
        nodes.setdefault("/", ROOT_DIRECTORY)
        self.nodes = nodes
        self.mounted = mounted or {}
        self._live = live or {}
        self._on_write = on_write
        self._read_only = read_only
        self._volatile = volatile

    def resolve(self, path: str, *, cwd: str = "/", follow: bool = True) -> str:
        """The real path; its last part need not exist. FileNotFoundError, NotADirectoryError, ELOOP."""
        real = "/"
        parts = [part for part in (path if path.startswith("/") else f"{cwd}/{path}").split("/") if part]
        links = 0
        while parts:
            part = parts.pop(0)
            if part == ".":
                continue
            if part == "..":
                real = real.rpartition("/")[0] or "/"
                continue
            here = f"{real.rstrip('/')}/{part}"
            node = self._get(here)
            if node is not None and node.type == "symlink" and (parts or follow):
                links += 1
                if links > MOST_SYMLINKS:
                    raise failure(errno.ELOOP, path)
                if node.target.startswith("/"):
                    real = "/"
                parts = [part for part in node.target.split("/") if part] + parts
                continue
            if parts and node is None:
                raise failure(errno.ENOENT, path)
            if parts and node is not None and not node.is_dir:
                raise failure(errno.ENOTDIR, path)
            real = here
        return real

    def stat(self, path: str, *, cwd: str = "/", follow: bool = True) -> Node:
        """The node at a path. FileNotFoundError."""
        node = self._get(self.resolve(path, cwd=cwd, follow=follow))
        if node is None:
            raise failure(errno.ENOENT, path)
        return node

    def exists(self, path: str, *, cwd: str = "/", follow: bool = True) -> bool:
        """Whether something is at a path."""
        try:
            self.stat(path, cwd=cwd, follow=follow)
        except OSError:
            return False
        return True

    def read(self, path: str, *, cwd: str = "/", who: Credentials = ROOT) -> bytes:
        """The bytes of a regular file."""
        node = self.stat(path, cwd=cwd)
        if node.is_dir:
            raise failure(errno.EISDIR, path)
        self._permit(node, 4, who, path)
        return node.content

    def write(
        self,
        path: str,
        content: bytes,
        *,
        cwd: str = "/",
        who: Credentials = ROOT,
        mode: int = 0o644,
        append: bool = False,
    ) -> None:
        """Write a regular file, in place when it exists."""
        real = self.resolve(path, cwd=cwd)
        node = self._get(real)
        if node is None:
            self._permit_in(real, who, path)
            self._put(real, Node("file", mode, who.uid, who.gid, content))
            return
        if node.is_dir:
            raise failure(errno.EISDIR, path)
        self._permit(node, 2, who, path)
        if node.type != "device":
            self._put(real, replace(node, content=node.content + content if append else content))

    def list(self, path: str, *, cwd: str = "/", who: Credentials = ROOT) -> tuple[str, ...]:
        """Names in a directory, sorted."""
        real = self.resolve(path, cwd=cwd)
        node = self._get(real)
        if node is None:
            raise failure(errno.ENOENT, path)
        if not node.is_dir:
            raise failure(errno.ENOTDIR, path)
        self._permit(node, 4, who, path)
        prefix = real.rstrip("/") + "/"
        names = {p[len(prefix) :].partition("/")[0] for p in self._paths() if p.startswith(prefix)}
        return tuple(sorted(name for name in names - {""} if self._get(prefix + name) is not None))

    def add(self, path: str, node: Node, *, cwd: str = "/", who: Credentials = ROOT) -> None:
        """Make a new entry. FileExistsError, and FileNotFoundError without its directory."""
        real = self.resolve(path, cwd=cwd, follow=False)
        if self._get(real) is not None:
            raise failure(errno.EEXIST, path)
        self._permit_in(real, who, path)
        self._put(real, node)

    def change(self, path: str, *, cwd: str = "/", who: Credentials = ROOT, **changes: int) -> None:
        """Change `mode`, `uid` or `gid` of an entry."""
        real = self.resolve(path, cwd=cwd)
        node = self._get(real)
        if node is None:
            raise failure(errno.ENOENT, path)
        if who.uid not in (0, node.uid):
            raise failure(errno.EPERM, path)
        self._put(real, replace(node, **changes))  # type: ignore[arg-type]

    def remove(self, path: str, *, cwd: str = "/", who: Credentials = ROOT) -> None:
        """Remove an entry and everything below it."""
        real = self.resolve(path, cwd=cwd, follow=False)
        if self._get(real) is None:
            raise failure(errno.ENOENT, path)
        self._permit_in(real, who, path)
        for each in [p for p in self._paths() if p == real or p.startswith(real.rstrip("/") + "/")]:
            self._writable(each)
            self.nodes.pop(each, None)
            self.mounted.pop(each, None)

    def move(self, source: str, target: str, *, cwd: str = "/", who: Credentials = ROOT) -> None:
        """Rename an entry, in place of what is at `target`."""
        old = self.resolve(source, cwd=cwd, follow=False)
        new = self.resolve(target, cwd=cwd, follow=False)
        if self._get(old) is None:
            raise failure(errno.ENOENT, source)
        moved = {p[len(old) :]: n for p, n in self.nodes.items() if p == old or p.startswith(old + "/")}
        if self._get(new) is not None:
            self.remove(new, who=who)
        self.remove(old, who=who)
        self._permit_in(new, who, target)
        for rest, node in moved.items():
            self._put(new + rest, node)

    def make_parents(self, path: str) -> tuple[str, ...]:
        """Make the directories above a path, 0755 and root's; the real paths of those that were missing."""
        made = []
        above = ""
        for part in [part for part in path.split("/") if part][:-1]:
            above = f"{above}/{part}"
            real = self.resolve(above)
            if self._get(real) is None:
                self._put(real, ROOT_DIRECTORY)
                made.append(real)
        return tuple(made)

    def place(self, path: str, node: Node) -> str:
        """Put an entry, in place of whatever is there; a directory keeps what is in it. The real path."""
        self.make_parents(path)
        real = self.resolve(path, follow=node.is_dir)
        old = self._get(real)
        if old is not None and not (old.is_dir and node.is_dir):
            self.remove(real)
        self._put(real, node)
        return real

    def _get(self, path: str) -> Node | None:
        if path in self._live:
            return self._live[path]
        if path in self.mounted:
            return self.mounted[path]
        if any(path.startswith(top + "/") for top in (*self._read_only, *self._volatile)):
            return None
        return self.nodes.get(path)

    def _put(self, path: str, node: Node) -> None:
        self._writable(path)
        if self._on_write is not None and node.type == "file":
            self._on_write()
        if any(path.startswith(top + "/") for top in self._volatile):
            self.mounted[path] = node
        else:
            self.nodes[path] = node

    def _writable(self, path: str) -> None:
        below = any(path == top or path.startswith(top + "/") for top in self._read_only)
        if below or path in self._live or path in self._volatile:
            raise failure(errno.EROFS, path)

    def _paths(self) -> Iterator[str]:
        yield from list(self.nodes)
        yield from list(self.mounted)
        yield from list(self._live)

    def _permit(self, node: Node, bits: int, who: Credentials, path: str) -> None:
        if who.uid == 0:
            return
        shift = 6 if who.uid == node.uid else 3 if who.gid == node.gid else 0
        if (node.mode >> shift) & bits != bits:
            raise failure(errno.EACCES, path)

    def _permit_in(self, real: str, who: Credentials, path: str) -> None:
        """Whether an entry may be made in, or taken from, the directory of a real path."""
        parent = self._get(real.rpartition("/")[0] or "/")
        if parent is None:
            raise failure(errno.ENOENT, path)
        if not parent.is_dir:
            raise failure(errno.ENOTDIR, path)
        self._permit(parent, 3, who, path)


def read_host(origin: Path, target: str) -> dict[str, Node]:
    """A file or directory of this machine as nodes at and below `target`."""
    if not origin.is_dir():
        return {target: Node("file", origin.stat().st_mode & 0o7777, content=origin.read_bytes())}
    found = {target: Node("dir", 0o755)}
    for path in sorted(origin.rglob("*")):
        name = f"{target}/{path.relative_to(origin).as_posix()}"
        if path.is_symlink():
            found[name] = Node("symlink", 0o777, target=str(path.readlink()))
        elif path.is_dir():
            found[name] = Node("dir", path.stat().st_mode & 0o7777)
        elif path.is_file():
            found[name] = Node("file", path.stat().st_mode & 0o7777, content=path.read_bytes())
    return found


@dataclass(frozen=True)
class Change:
    """What a layer does to the filesystem below it.

    nodes:   entries that are new or differ
    removed: paths that are gone, with everything below
    implied: directories that were only made to hold something
    follow:  whether paths are looked up through the symlinks of what is below (detached layers)
    """

    nodes: Mapping[str, Node]
    removed: frozenset[str] = frozenset()
    implied: frozenset[str] = frozenset()
    follow: bool = False


def difference(lower: Mapping[str, Node], upper: Mapping[str, Node]) -> Change:
    """What was done to `lower` to make it `upper`."""
    changed = {path: node for path, node in upper.items() if lower.get(path) != node}
    gone = {path for path in lower if path not in upper}
    tops = frozenset(path for path in gone if path.rpartition("/")[0] not in gone)
    changed.pop("/", None)
    return Change(changed, tops)


def apply(change: Change, nodes: dict[str, Node]) -> None:
    """Put a layer on top of what is there."""
    below = Filesystem(nodes)
    for path in change.removed:
        if below.exists(path, follow=False):
            below.remove(path)
    for path in sorted(change.nodes, key=lambda path: path.split("/")):
        node = change.nodes[path]
        if change.follow:
            if path in change.implied and below.exists(path):
                continue
            below.place(path, node)
            continue
        if not node.is_dir and path in nodes:
            below.remove(path)
        nodes[path] = node
