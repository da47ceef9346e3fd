"""What is known of one sandbox while it runs."""

from __future__ import annotations

import asyncio
import time

from sandboxfile.engine.base import SandboxOptions
from sandboxfile.engines.linux.helper_client import HelperClient
from sandboxfile.engines.linux.limits import Enforcement
from sandboxfile.errors import EngineError

_ENDED = {
    "timeout": "the sandbox has ended: its time was over",
    "memory": "the sandbox has ended: it took more memory than it may",
    "disk": "the sandbox has ended: it took more disk than it may",
    "init": "the sandbox has ended: its init was ended",
}


class State:
    """Where a sandbox is, what its boot made, and how far it has come.

    here:     its directory in the helper's memory
    net:      the directory of its namespaces
    cgroup:   the name of its control groups, empty when it has none
    warnings: what is not strictly enforced or lacking, one sentence each
    env:      variables that every command gets
    points:   mountpoints that the boot made
    init_job: the job of its init; `init_pid` is the process as the helper knows it, 0 before it runs
    reason:   why it has ended or is being ended, when that was not asked for
    closing:  the task that ends it
    thawed:   done when its processes, which stand still, go on; None while they run
    """

    def __init__(
        self, sandbox: str, helper: HelperClient, options: SandboxOptions, enforcement: Enforcement
    ) -> None:
        self.id = sandbox
        self.helper = helper
        self.options = options
        self.enforcement = enforcement
        self.here = f"{helper.base}/sandboxes/{sandbox}"
        self.net = f"{self.here}/net"
        self.cgroup = sandbox if enforcement.grouped else ""
        self.warnings = enforcement.warnings
        self.env: dict[str, str] = {}
        self.points: list[str] = []
        self.init_job = 0
        self.init_pid = 0
        self.init_end: asyncio.Future[int] | None = None
        self.ends_at: float | None = None
        self.reason = ""
        self.closing: asyncio.Task[None] | None = None
        self.thawed: asyncio.Future[None] | None = None

    @property
    def root(self) -> str:
        """Where its root directory is mounted."""
        return f"{self.here}/root"

    @property
    def over(self) -> bool:
        """Whether its time is over."""
        return self.ends_at is not None and time.monotonic() >= self.ends_at

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.closing is None and not self.over and self.helper.running

    def ended(self) -> EngineError:
        """What is said to whoever uses it afterwards."""
        return EngineError(_ENDED.get(self.reason, "the sandbox has ended"))

    async def moving(self) -> None:
        """Wait until its processes do not stand still for a snapshot."""
        while self.thawed is not None:
            await asyncio.shield(self.thawed)
