"""What a build leaves for whoever asked for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import TYPE_CHECKING

from sandboxfile.declared import dataclass

if TYPE_CHECKING:
    from sandboxfile.core.layer import LayerKey


@dataclass(frozen=True)
class BuildResult:
    """What a build did.

    slug:    the snapshot's
    built, reused: names of layers
    checked: names of checks that ran (the others were remembered)
    lock_changes: what changed in the lock, one line each
    """

    slug: str
    built: tuple[str, ...] = ()
    reused: tuple[str, ...] = ()
    checked: tuple[str, ...] = ()
    seconds: float = 0.0
    lock_changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class VendorResult:
    """Vendored packages, and how they differed from what the lock names: paths of the files that were
    missing, not wanted, or not what they are called. `size` is bytes of all files that the lock has sizes of.
    """

    path: str
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()
    files: int = 0
    size: int = 0

    @property
    def changed(self) -> bool:
        """Whether there was any difference."""
        return bool(self.added or self.removed or self.damaged)


@dataclass(frozen=True)
class SnapshotInfo:
    """A snapshot in the store. Times are seconds since the epoch, sizes bytes; `config` is the record of a
    SnapshotConfig, `pause` the seconds that a sandbox stood still when this was made of it just now."""

    slug: str
    name: str
    key: str
    layers: tuple[LayerKey, ...]
    config: Mapping[str, object] = field(default_factory=dict)
    size: int = 0
    created: float = 0.0
    used: float = 0.0
    pause: float = 0.0
