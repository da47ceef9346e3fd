"""Layers: typed definitions, and the key that hashes each.

A definition holds everything that shapes the layer's content and nothing else; it is stored beside the
built layer, so that `explain` can compare two of them. A layer that runs something in its parent names
the keys below it in `parents`; a detached layer names none and can be placed on any chain.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NewType

from sandboxfile.core.digest import Digest, canonical, digest_bytes, identity, metadata
from sandboxfile.declared import dataclass

LAYER_TAG = "sandboxfile.layer/v1"
SNAPSHOT_TAG = "sandboxfile.snapshot/v1"
NORMALISATION = "normalise/v2"
"""The version of the rules by which a layer's content is made equal (see `core.normalise`)."""

LayerKey = NewType("LayerKey", Digest)
"""Digest of a layer's definition: known before it is built."""


@dataclass(frozen=True, order=True)
class PackagePin:
    """A Debian package as a layer needs it: `name` is without its architecture."""

    name: str = identity()
    version: str = identity()
    arch: str = identity()
    sha256: str = identity()
    size: int = metadata(default=0)


@dataclass(frozen=True, order=True)
class WheelPin:
    """A wheel as a layer needs it. `filename` is the wheel's, which names version and tags."""

    filename: str = identity()
    sha256: str = identity()
    name: str = metadata(default="")
    version: str = metadata(default="")
    size: int = metadata(default=0)


@dataclass(frozen=True)
class TreeEntry:
    """One entry of a file tree, by absolute POSIX path without a trailing slash.

    type:   `file`, `dir` or `symlink`
    mode:   permission bits, 0 for symlinks
    owner:  `uid:gid` in decimal, or `user:group` names that the parent's passwd resolves
    sha256: content digest (hex) of a file, empty otherwise
    target: where a symlink points, empty otherwise
    origin: where the bytes of a file are on this machine; never part of a key
    """

    path: str = identity()
    type: str = identity()
    mode: int = identity()
    owner: str = identity(default="0:0")
    sha256: str = identity(default="")
    target: str = identity(default="")
    size: int = metadata(default=0)
    origin: str = metadata(default="")


@dataclass(frozen=True)
class DebianBase:
    """A Debian base made from exactly these packages. `epoch` is SOURCE_DATE_EPOCH, seconds."""

    kind: ClassVar[str] = "base"
    suite: str = identity()
    architecture: str = identity()
    packages: tuple[PackagePin, ...] = identity()
    epoch: int = identity()
    components: tuple[str, ...] = identity(default=("main",))
    method: str = identity(default="mmdebstrap/minbase")
    normalisation: str = identity(default=NORMALISATION)
    parents: tuple[LayerKey, ...] = identity(default=())


@dataclass(frozen=True)
class RootfsBase:
    """A root filesystem tar, by the sha256 of the file."""

    kind: ClassVar[str] = "base"
    rootfs: str = identity()
    epoch: int = identity()
    normalisation: str = identity(default=NORMALISATION)
    parents: tuple[LayerKey, ...] = identity(default=())
    origin: str = metadata(default="")


@dataclass(frozen=True)
class ScratchBase:
    """Nothing at all."""

    kind: ClassVar[str] = "base"
    scratch: bool = identity(default=True)
    parents: tuple[LayerKey, ...] = identity(default=())


@dataclass(frozen=True)
class AptLayer:
    """A transition of the installed Debian packages.

    install: packages unpacked (new ones and replacements), sorted
    remove:  names (`name:arch`) that are removed
    auto:    names that apt is to see as installed automatically, of those in `install`
    manual:  names of packages below that apt is to see as asked for from here on
    """

    kind: ClassVar[str] = "apt"
    parents: tuple[LayerKey, ...] = identity()
    install: tuple[PackagePin, ...] = identity()
    remove: tuple[str, ...] = identity()
    auto: tuple[str, ...] = identity()
    epoch: int = identity()
    manual: tuple[str, ...] = identity(default=())
    normalisation: str = identity(default=NORMALISATION)


@dataclass(frozen=True)
class PipLayer:
    """Wheels installed by uv. `target` is `system` or the absolute path of a virtual environment."""

    kind: ClassVar[str] = "pip"
    parents: tuple[LayerKey, ...] = identity()
    wheels: tuple[WheelPin, ...] = identity()
    python: str = identity()
    target: str = identity()
    epoch: int = identity()
    installer: str = identity(default="uv/0.13")
    normalisation: str = identity(default=NORMALISATION)


@dataclass(frozen=True)
class FilesLayer:
    """Files from the build context. Detached (no parents) unless an owner is given by name."""

    kind: ClassVar[str] = "files"
    entries: tuple[TreeEntry, ...] = identity()
    epoch: int = identity()
    parents: tuple[LayerKey, ...] = identity(default=())


@dataclass(frozen=True)
class RunLayer:
    """A build step: `command` is given to `/bin/sh -ec`. `secrets` are names, never values."""

    kind: ClassVar[str] = "run"
    parents: tuple[LayerKey, ...] = identity()
    command: str = identity()
    env: Mapping[str, str] = identity()
    cwd: str = identity()
    user: str = identity()
    network: str = identity()
    secrets: tuple[str, ...] = identity()
    epoch: int = identity()
    normalisation: str = identity(default=NORMALISATION)
    timeout: float | None = metadata(default=None)


@dataclass(frozen=True)
class VolumeLayer:
    """What a volume or a running sandbox held when a snapshot was made of it. It cannot be made again from
    what it was made of, so nothing but a random id tells one from another."""

    kind: ClassVar[str] = "volume"
    parents: tuple[LayerKey, ...] = identity()
    id: str = identity()


Definition = DebianBase | RootfsBase | ScratchBase | AptLayer | PipLayer | FilesLayer | RunLayer | VolumeLayer


def preimage(definition: Definition) -> bytes:
    """The canonical document that is hashed for a layer."""
    return canonical(LAYER_TAG, {"kind": definition.kind, "definition": definition})


def layer_key(definition: Definition) -> LayerKey:
    """The key of a layer, from its definition alone."""
    return LayerKey(digest_bytes(preimage(definition)))


@dataclass(frozen=True)
class StartCommand:
    """The long-running command of an environment. `timeout` is in seconds."""

    command: str = identity()
    port: int | None = identity(default=None)
    timeout: float | None = metadata(default=None)


@dataclass(frozen=True)
class SnapshotConfig:
    """What a snapshot's sandboxes start with, beside its layers."""

    env: Mapping[str, str] = identity(default_factory=dict)
    workdir: str = identity(default="/")
    user: str = identity(default="root")
    start: StartCommand | None = identity(default=None)
    network: str = identity(default="none")
    secrets: tuple[str, ...] = identity(default=())
    resources: Mapping[str, str] = metadata(default_factory=dict)
    labels: Mapping[str, str] = metadata(default_factory=dict)


def snapshot_key(layers: tuple[LayerKey, ...], config: SnapshotConfig) -> Digest:
    """The key of a snapshot: its layers in order, lowest first, and its configuration."""
    return digest_bytes(canonical(SNAPSHOT_TAG, {"layers": layers, "config": config}))
