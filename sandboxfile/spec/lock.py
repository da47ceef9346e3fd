"""The lockfile's values: an append-only history of package groups (docs/reference/lockfile.md).

A group is a transition from the state that the groups before it leave. Its rows say what is installed,
replaced or removed, so that the plan is a pure function of the Sandboxfile and this document.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field

from sandboxfile.core.digest import Digest, digest_of, identity, metadata
from sandboxfile.declared import dataclass

LOCK_VERSION = 1
GROUP_TAG = "sandboxfile.lock.group/v1"


@dataclass(frozen=True)
class Archive:
    """One signed suite of an archive as it was when the lock was made.

    name:      `debian`, `debian-security`, or the name of a source of the Sandboxfile
    inrelease: digest of the InRelease (or Release) file that was verified
    date:      its Date field, seconds since the epoch
    """

    name: str = identity()
    suite: str = identity()
    components: tuple[str, ...] = identity()
    inrelease: Digest = identity()
    date: int = identity()


@dataclass(frozen=True)
class DebRow:
    """A package that is installed, new or in place of `replaces` (an older version).

    path:    its place in the archive's pool, relative to the archive's root
    archive: the name of the Archive it came from
    auto:    apt's mark: True when nobody asked for it by name
    because: for a replacement nobody asked for, the package that forced it
    """

    name: str = identity()
    version: str = identity()
    arch: str = identity()
    sha256: str = identity()
    size: int = identity()
    path: str = identity()
    archive: str = identity()
    auto: bool = identity(default=False)
    replaces: str | None = identity(default=None)
    because: str | None = identity(default=None)


@dataclass(frozen=True)
class RemovedRow:
    """A package that is removed, and the package that forced it."""

    name: str = identity()
    version: str = identity()
    arch: str = identity()
    because: str | None = identity(default=None)


@dataclass(frozen=True)
class WheelRow:
    """A Python distribution, as one PEP 751 package with the one wheel that was chosen."""

    name: str = identity()
    version: str = identity()
    filename: str = identity()
    sha256: str = identity()
    size: int = identity()
    url: str = metadata(default="")
    built: bool = identity(default=False)
    """Built from the sdist `url` (whose sha256 is `sdist_sha256`) in a sandbox on the apt layers."""
    sdist_sha256: str = identity(default="")


@dataclass(frozen=True)
class AptTransition:
    """What a group does to the Debian packages. `requests` are the file's apt requests it answers.

    manual: packages that are there already (`name:arch`) and are asked for by name from now on
    """

    requests: tuple[str, ...] = identity()
    rows: tuple[DebRow, ...] = identity(default=())
    removed: tuple[RemovedRow, ...] = identity(default=())
    archives: tuple[Archive, ...] = identity(default=())
    manual: tuple[str, ...] = identity(default=())


@dataclass(frozen=True)
class PipTransition:
    """What a group adds to the Python distributions, for interpreter `python` (`3.13.5`)."""

    requests: tuple[str, ...] = identity()
    python: str = identity(default="")
    rows: tuple[WheelRow, ...] = identity(default=())


@dataclass(frozen=True)
class LockedBase:
    """The base.

    request: the canonical text of the request it answers (`debian:trixie`, `rootfs:<sha256>`, …)
    kind:    `debian`, `rootfs`, `snapshot` or `scratch`
    epoch:   SOURCE_DATE_EPOCH of everything built on it, seconds
    diff_id: content digest of the base layer as first built, None before that
    layers:  for `snapshot`, the keys of the snapshot's layers
    python:  for bases that bring an interpreter, its version
    """

    request: str = identity()
    kind: str = identity()
    architecture: str = identity()
    epoch: int = identity()
    suite: str = identity(default="")
    components: tuple[str, ...] = identity(default=())
    archives: tuple[Archive, ...] = identity(default=())
    packages: tuple[DebRow, ...] = identity(default=())
    rootfs: str = identity(default="")
    snapshot: str = identity(default="")
    layers: tuple[Digest, ...] = identity(default=())
    diff_id: Digest | None = metadata(default=None)


@dataclass(frozen=True)
class Group:
    """One package group. `after` is `history_digest` of everything before it."""

    after: Digest = identity()
    apt: AptTransition | None = identity(default=None)
    pip: PipTransition | None = identity(default=None)


@dataclass(frozen=True)
class Requests:
    """What a lock answers, compared as sets: comments and order in the Sandboxfile never make it stale.

    apt, pip:    the requests, canonical text
    apt_options: sources and `recommends`, as canonical text by name
    pip_options: index settings, constraints, `build`, `venv`, likewise
    recipes:     digest of each recipe by name
    inputs:      digest of each pinned input file (a key, a constraints file) by path
    """

    base: str = identity()
    apt: frozenset[str] = field(default_factory=frozenset)
    pip: frozenset[str] = field(default_factory=frozenset)
    apt_options: Mapping[str, str] = identity(default_factory=dict)
    pip_options: Mapping[str, str] = identity(default_factory=dict)
    recipes: Mapping[str, str] = identity(default_factory=dict)
    inputs: Mapping[str, str] = identity(default_factory=dict)


@dataclass(frozen=True)
class Lockfile:
    """A whole lock. The options it was solved with are kept, so that a change of them makes it stale."""

    base: LockedBase
    groups: tuple[Group, ...] = ()
    apt_options: Mapping[str, str] = field(default_factory=dict)
    pip_options: Mapping[str, str] = field(default_factory=dict)
    recipes: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    version: int = LOCK_VERSION

    def requests(self) -> Requests:
        """The requests this lock answers."""
        return Requests(
            base=self.base.request,
            apt=frozenset(r for g in self.groups if g.apt for r in g.apt.requests),
            pip=frozenset(r for g in self.groups if g.pip for r in g.pip.requests),
            apt_options=self.apt_options,
            pip_options=self.pip_options,
            recipes=self.recipes,
            inputs=self.inputs,
        )

    def installed_debs(self) -> dict[str, DebRow]:
        """The final state: each installed package by `name:arch`, base and groups replayed."""
        state = {f"{row.name}:{row.arch}": row for row in self.base.packages}
        for group in self.groups:
            if group.apt:
                for removed in group.apt.removed:
                    state.pop(f"{removed.name}:{removed.arch}", None)
                for row in group.apt.rows:
                    if row.replaces:
                        # An `all` package may follow an architecture-dependent one, and the other way round.
                        for key in [k for k in state if k.rpartition(":")[0] == row.name]:
                            del state[key]
                    state[f"{row.name}:{row.arch}"] = row
        return state

    def installed_wheels(self) -> Iterator[WheelRow]:
        """Each Python distribution; pip never replaces in an upper group, so this is the union."""
        for group in self.groups:
            if group.pip:
                yield from group.pip.rows


def history_digest(base: LockedBase, groups: tuple[Group, ...]) -> Digest:
    """The digest of a base and the groups on it: what the next group's `after` names."""
    return digest_of(GROUP_TAG, {"base": base, "groups": groups})
