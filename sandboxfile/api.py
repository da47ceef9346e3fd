"""The one place that wires the adapters together, and what programs import.

A Client holds a store, an engine and a reporter. Everything it does is a coroutine; `sandboxfile.cli`
runs them with asyncio.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sandboxfile.core.event import NullReporter, Reporter
from sandboxfile.engine.base import Sandbox
from sandboxfile.plan.model import Reconciled
from sandboxfile.spec.lock import Lockfile
from sandboxfile.spec.model import ParamValue, Sandboxfile


@dataclass(frozen=True)
class Project:
    """A Sandboxfile on this machine: the file, its directory (the build context), the parsed document."""

    file: Path
    directory: Path
    sandboxfile: Sandboxfile

    @property
    def lock_path(self) -> Path:
        """Where its lock is: `sandboxfile.lock` beside it."""
        return self.directory / "sandboxfile.lock"


@dataclass(frozen=True)
class BuildResult:
    """What a build did. `slug` is the snapshot's; `built` and `reused` are names of layers; `checked`
    names of checks that ran (the others were remembered)."""

    slug: str
    built: tuple[str, ...]
    reused: tuple[str, ...]
    checked: tuple[str, ...]
    seconds: float
    lock_written: bool = False


@dataclass(frozen=True)
class SnapshotInfo:
    """A snapshot in the store. Times are seconds since the epoch, sizes bytes."""

    slug: str
    name: str
    key: str
    layers: tuple[str, ...]
    config: Mapping[str, object]
    size: int
    created: float
    used: float


class Client:
    """A store, an engine and a reporter.

    home:   the store's directory; None is SANDBOXFILE_HOME, else $XDG_DATA_HOME/sandboxfile
    engine: `linux` or `memory`
    """

    def __init__(
        self, *, home: Path | None = None, engine: str = "linux", reporter: Reporter | None = None
    ) -> None:
        self.reporter = reporter or NullReporter()

    def load(
        self, file: Path | None = None, *, directory: Path | None = None, params: Mapping[str, str] | None = None
    ) -> Project:
        """Find and read a Sandboxfile. Raises SpecError with every issue, UsageError when there is none."""
        raise NotImplementedError

    async def lock(
        self, project: Project, *, update: Sequence[str] | None = None, refresh: bool = False, offline: bool = False
    ) -> tuple[Lockfile, tuple[str, ...]]:
        """Make the lock answer the Sandboxfile, and write it. `update=()` renews everything, names renew
        those. Returns the lock and what changed, one line each (empty: it was already right)."""
        raise NotImplementedError

    def check_lock(self, project: Project) -> None:
        """Raise LockStale when the lock does not answer the Sandboxfile (or is missing)."""
        raise NotImplementedError

    async def plan(self, project: Project, *, locked: bool = False) -> Reconciled:
        """What a build would do, and why. Makes no lock: requests it lacks are reported as LockStale."""
        raise NotImplementedError

    async def build(
        self, project: Project, *, locked: bool = False, offline: bool = False, force: Sequence[str] = ()
    ) -> BuildResult:
        """Build what is missing, verify, publish. `force` names layers to build again."""
        raise NotImplementedError

    async def verify(self, project: Project) -> tuple[str, ...]:
        """Run every check of a built project again, remembered or not; names of the checks."""
        raise NotImplementedError

    async def resolve_snapshot(self, target: str, project: Project | None = None) -> SnapshotInfo:
        """The snapshot that a slug, a name (its newest snapshot) or `.` (this project's, built if needed)
        stands for. NoSuchSnapshot, with near misses as hint."""
        raise NotImplementedError

    async def start(self, snapshot: SnapshotInfo, *, network: str | None = None) -> Sandbox:
        """Boot a sandbox from a snapshot, with its configuration's limits."""
        raise NotImplementedError

    async def debug(self, project: Project) -> tuple[Sandbox, object]:
        """A sandbox on the kept workspace of this project's last failed step, and the Command that failed
        (`engine.base.Command`; same env and cwd)."""
        raise NotImplementedError

    def snapshots(self) -> tuple[SnapshotInfo, ...]:
        """Every snapshot, newest first."""
        raise NotImplementedError

    def snapshot(self, slug: str) -> SnapshotInfo:
        """One snapshot by slug or name. NoSuchSnapshot."""
        raise NotImplementedError

    async def remove_snapshot(self, slug: str) -> None:
        """Forget a snapshot; its layers go with the next gc."""
        raise NotImplementedError

    def layer_log(self, key: str) -> str | None:
        """The full log kept for a layer, None when there is none."""
        raise NotImplementedError

    def layer_definition(self, key: str) -> Mapping[str, object] | None:
        """The stored preimage's record of a built layer."""
        raise NotImplementedError

    async def disk_usage(self) -> Mapping[str, int]:
        """Bytes by kind: `layers`, `packages`, `indexes`, `logs`, `kept`, `garbage`, and `total`."""
        raise NotImplementedError

    async def gc(self, *, keep_days: float | None = None, dry_run: bool = False) -> Mapping[str, int]:
        """Remove what no snapshot and no recent build needs, and what killed builds left. Bytes by kind."""
        raise NotImplementedError

    async def close(self) -> None:
        """Release everything: sandboxes end, mounts go."""
        raise NotImplementedError

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()
