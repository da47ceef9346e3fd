"""The store: one directory that holds everything sandboxfile keeps on this machine.

    blobs/sha256/<2>/<62>   packages, wheels and archives by content
    blobs/incoming/         blobs on their way in
    layers/<hex of key>/    built layers: `fs/`, which only the engine can look into, and `layer.json`
    snapshots/<slug>.json   published snapshots, for when the index is lost
    volumes/<slug>.json     volumes, for when the index is lost; beside them what the engine keeps of them
    sandboxes/<id>.json     sandboxes that run, each file locked by its client
    workspaces/ kept/       writable states, alive and kept for `debug`
    placements/             detached layers as the engine placed them on a stack
    indexes/ logs/          archive indexes by digest, full logs by layer
    suites/                 the newest date seen of each archive's suites, which gc leaves alone
    staging/                directories of files made for one command
    memos/                  what finished builds were made from, to recognise them again
    locks/ trash/           locks between processes; what gc has taken out and not deleted yet
    index.sqlite VERSION    the index; the version of this layout

Everything is prepared beside its place and renamed in: a kill at any point leaves the old state or the new
one, and garbage that gc removes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from sandboxfile.errors import StoreError
from sandboxfile.store.atomic import write_atomically
from sandboxfile.store.failure import reported
from sandboxfile.store.faults import point

if TYPE_CHECKING:
    from sandboxfile.core.digest import Digest
    from sandboxfile.core.layer import LayerKey
    from sandboxfile.store.blobs import BlobStore
    from sandboxfile.store.index import Index
    from sandboxfile.store.locks import Locks
    from sandboxfile.store.uses import Hold, Uses

STORE_VERSION = 1

_DIRECTORIES = (
    "blobs",
    "blobs/sha256",
    "blobs/incoming",
    "layers",
    "snapshots",
    "volumes",
    "sandboxes",
    "workspaces",
    "kept",
    "placements",
    "indexes",
    "logs",
    "staging",
    "memos",
    "locks",
    "locks/uses",
    "trash",
)
_FILES = ("index.", "idmap.json", ".VERSION.", ".trial.")
"""How the names of files that may be there before `VERSION` begin."""


class Store:
    """An open store. Use `Store.open`; close it, or use it as a context manager."""

    def __init__(self, home: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.home = home
        self.clock = clock
        self.read_only = not os.access(home, os.W_OK)
        """Whether nothing can be written: what is there can be looked at and run."""

    @classmethod
    def open(cls, home: Path, *, clock: Callable[[], float] = time.time) -> Store:
        """Open the store in a directory, which is made when it does not exist.

        Raises StoreError when the directory holds something else, belongs to another user or to a newer
        version of sandboxfile, or cannot be written to. `clock` gives seconds since the epoch.
        """
        home = Path(os.path.abspath(home))
        with reported("opening the store"):
            if not _is_ready(home):
                _make(home)
        return cls(home, clock=clock)

    # A build that finds nothing changed needs none of these, nor what they import.

    @cached_property
    def locks(self) -> Locks:
        """Locks between processes."""
        from sandboxfile.store.locks import Locks

        return Locks(self.home / "locks")

    @cached_property
    def blobs(self) -> BlobStore:
        """Packages, wheels and archives by content."""
        from sandboxfile.store.blobs import BlobStore

        return BlobStore(self.home / "blobs")

    @cached_property
    def uses(self) -> Uses:
        """What this client keeps from gc."""
        from sandboxfile.store.uses import Uses

        return Uses(self.locks, read_only=self.read_only)

    @cached_property
    def index(self) -> Index:
        """The index, opened when first used."""
        from sandboxfile.store.index import Index

        return Index(
            self.home,
            guard=lambda: self.locks.lock("index"),
            clock=self.clock,
            read_only=self.read_only,
        )

    @property
    def notices(self) -> tuple[str, ...]:
        """What the user should know of the store, once the index was used."""
        return self.index.notices if "index" in self.__dict__ else ()

    @property
    def layers(self) -> Path:
        """Where layers are."""
        return self.home / "layers"

    @property
    def workspaces(self) -> Path:
        """Where writable states are; each directory holds an `owner` file locked by its client."""
        return self.home / "workspaces"

    @property
    def kept(self) -> Path:
        """Where the workspaces of failed steps are."""
        return self.home / "kept"

    @property
    def placements(self) -> Path:
        """Where the engine keeps detached layers as placed on a stack."""
        return self.home / "placements"

    @property
    def indexes(self) -> Path:
        """Where archive indexes are."""
        return self.home / "indexes"

    @property
    def suites(self) -> Path:
        """Where the newest date of each suite is remembered, made when it is first needed."""
        return self.home / "suites"

    @property
    def logs(self) -> Path:
        """Where layers' logs are."""
        return self.home / "logs"

    @property
    def staging(self) -> Path:
        """Where directories of files are made for one command, and removed after it."""
        return self.home / "staging"

    @property
    def memos(self) -> Path:
        """Where finished builds leave what they were made from; a memo's time of modification says when it
        was last used."""
        return self.home / "memos"

    @property
    def trash(self) -> Path:
        """Where gc puts directories before they are deleted."""
        return self.home / "trash"

    @property
    def snapshots(self) -> Path:
        """Where the files of published snapshots are."""
        return self.home / "snapshots"

    @property
    def volumes(self) -> Path:
        """Where the files of volumes are, and what the engine keeps of them."""
        return self.home / "volumes"

    @property
    def sandboxes(self) -> Path:
        """Where the files of running sandboxes are."""
        return self.home / "sandboxes"

    def layer_dir(self, key: LayerKey) -> Path:
        """The directory of a layer, whether or not it exists."""
        return self.layers / key.partition(":")[2]

    def log_path(self, key: LayerKey) -> Path:
        """The full log of a layer's build, whether or not it exists."""
        return self.logs / f"{key.partition(':')[2]}.log"

    def index_dir(self, digest: Digest) -> Path:
        """The directory of an archive's index, by the digest of its signed file. The directory's time of
        modification says when it was last used."""
        return self.indexes / digest.partition(":")[2]

    def in_use(self, layers: Iterable[LayerKey] = ()) -> Hold:
        """Keep layers, there or still to be built, from gc while a `with` block runs. See `Uses.hold`."""
        return self.uses.hold(layers=layers)

    def close(self) -> None:
        """Release what this client holds and close the index."""
        if "uses" in self.__dict__:
            self.uses.close()
        if "index" in self.__dict__:
            self.index.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _is_ready(home: Path) -> bool:
    """Whether a store of this version is there. Raises StoreError for one of a newer version."""
    try:
        text = (home / "VERSION").read_text(encoding="ascii").strip()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except UnicodeDecodeError:
        text = ""
    if not text.isdecimal():
        raise StoreError(
            f"the store's VERSION file is not readable ({home / 'VERSION'})",
            hint="set SANDBOXFILE_HOME to another directory, or remove this one",
        )
    if int(text) > STORE_VERSION:
        raise StoreError(
            f"the store in {home} was written by a newer version of sandboxfile "
            f"(layout {text}; this one knows layout {STORE_VERSION})",
            hint="upgrade sandboxfile, or set SANDBOXFILE_HOME to another directory",
        )
    if _check_owner(home).st_mode & 0o077 and os.access(home, os.W_OK):
        # Layers hold setuid programs, and files that only their owners may read.
        home.chmod(0o700)
    return all((home / name).is_dir() for name in _DIRECTORIES)


def _make(home: Path) -> None:
    """Make the directories; `VERSION` comes last, so that a store is whole once it is there."""
    if home.exists() and not home.is_dir():
        raise StoreError(
            f"{home} is not a directory", hint="set SANDBOXFILE_HOME to the directory of the store"
        )
    home.parent.mkdir(parents=True, exist_ok=True)
    home.mkdir(mode=0o700, exist_ok=True)
    _check_owner(home)
    if not (home / "VERSION").exists():
        ours = {name.partition("/")[0] for name in _DIRECTORIES}
        foreign = sorted(
            name
            for name in os.listdir(home)
            if name not in ours and not name.startswith((*_FILES, "VERSION"))
        )
        if foreign:
            raise StoreError(
                f"{home} is no store of sandboxfile: it holds `{foreign[0]}`",
                hint="set SANDBOXFILE_HOME to an empty directory or to one that does not exist",
            )
    home.chmod(0o700)
    if not (home / "VERSION").exists():
        from sandboxfile.store.filesystem import FOR_STORE, require

        require(home, FOR_STORE)
    for name in _DIRECTORIES:
        (home / name).mkdir(mode=0o700, exist_ok=True)
        point("store:directory")
    if not (home / "VERSION").exists():
        write_atomically(home / "VERSION", f"{STORE_VERSION}\n".encode())


def _check_owner(home: Path) -> os.stat_result:
    found = home.stat()
    if found.st_uid != os.geteuid():
        raise StoreError(
            f"the store in {home} belongs to another user",
            hint="set SANDBOXFILE_HOME to a directory of your own",
        )
    return found
