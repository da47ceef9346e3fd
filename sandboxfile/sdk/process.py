"""Commands in a sandbox: how they end, what they wrote, and those that run."""

from __future__ import annotations

import asyncio
import json
import signal as signals
from dataclasses import field
from typing import TYPE_CHECKING, Any

from sandboxfile.declared import dataclass
from sandboxfile.engine.base import Completed
from sandboxfile.errors import CommandFailed
from sandboxfile.sdk import arguments
from sandboxfile.sdk.pipes import AsyncReader, AsyncWriter

if TYPE_CHECKING:
    from sandboxfile.engine.base import Process

_SHOWN_LINES = 20
_LIMIT_WORDS = {
    "timeout": "ran out of time",
    "memory": "ran out of memory",
    "output": "wrote more than it may",
    "disk": "ran out of disk space",
    "pids": "made more processes than it may",
}


@dataclass(frozen=True)
class Status:
    """How a command ended.

    exit_code: its own, 128 + signal when a signal ended it
    limit:     the limit that stopped it (`timeout`, `memory`, `output`), None when none did
    seconds:   how long it ran
    """

    exit_code: int
    limit: str | None = None
    seconds: float = 0.0

    @property
    def success(self) -> bool:
        """Whether its exit code is 0."""
        return self.exit_code == 0

    @property
    def signal(self) -> str | None:
        """The name of the signal that ended it (`SIGKILL`), as far as the exit code tells."""
        try:
            return signals.Signals(self.exit_code - 128).name if self.exit_code > 128 else None
        except ValueError:
            return None


@dataclass(frozen=True)
class CommandOutput(Status):
    """How a command ended and what it wrote, where that was piped."""

    stdout: bytes = field(default=b"", repr=False)
    stderr: bytes = field(default=b"", repr=False)

    @property
    def text(self) -> str:
        """stdout as UTF-8; what is none is replaced."""
        return self.stdout.decode("utf-8", "replace")

    def json(self) -> Any:
        """stdout as JSON. ValueError when it is none."""
        return json.loads(self.stdout)

    def check(self, command: str) -> None:
        """Raise CommandFailed unless the exit code is 0."""
        if self.success and self.limit is None:
            return
        shown = command if len(command) <= 80 else f"{command[:77]}..."
        if self.limit is not None:
            how = _LIMIT_WORDS.get(self.limit, f"met its limit of {self.limit}")
        else:
            how = f"was ended by {self.signal}" if self.signal else f"exited with {self.exit_code}"
        said = (self.stderr.strip() or self.stdout.strip()).decode("utf-8", "replace")
        raise CommandFailed(
            f"`{' '.join(shown.split())}` {how}",
            exit_code=self.exit_code,
            stdout=self.stdout,
            stderr=self.stderr,
            limit=self.limit,
            details=tuple(said.splitlines()[-_SHOWN_LINES:]),
        )


class AsyncProcess:
    """A command that runs in a sandbox. `stdin`, `stdout` and `stderr` are None unless piped."""

    def __init__(
        self,
        argv: tuple[str, ...],
        process: Process,
        stdin: AsyncWriter | None,
        stdout: AsyncReader | None,
        stderr: AsyncReader | None,
    ) -> None:
        self.argv = argv
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self._process = process

    async def wait(self) -> Status:
        """Wait for its end. May be called again, with the same answer. A process whose piped output nobody
        reads may never end: see `output`."""
        return status_of(await self._process.wait())

    async def output(self) -> CommandOutput:
        """Close its stdin, read what it writes, and wait for its end."""
        if self.stdin is not None:
            await self.stdin.close()
        stdout, stderr = await asyncio.gather(_all_of(self.stdout), _all_of(self.stderr))
        status = await self.wait()
        return CommandOutput(status.exit_code, status.limit, status.seconds, stdout, stderr)

    async def kill(self, signal: str | int = "SIGTERM") -> None:
        """Send a signal; nothing happens when it has ended."""
        await self._process.kill(arguments.signal(signal))

    async def __aenter__(self) -> AsyncProcess:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.kill("SIGKILL")
        await self.close_streams()
        await self.wait()

    @property
    def has_open_streams(self) -> bool:
        """Whether something that is piped was neither closed nor read to its end."""
        return any(s is not None and not s.closed for s in (self.stdin, self.stdout, self.stderr))

    async def close_streams(self) -> None:
        """Close what is piped."""
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                await stream.close()


def status_of(completed: Completed) -> Status:
    """How the engine said that a command ended."""
    return Status(completed.exit_code, limit_of(completed), completed.seconds)


def limit_of(completed: Completed) -> str | None:
    """The limit that stopped a command."""
    if completed.limit is not None:
        return completed.limit
    if completed.out_of_memory:
        return "memory"
    return "timeout" if completed.timed_out else None


async def _all_of(stream: AsyncReader | None) -> bytes:
    return await stream.read_all() if stream is not None else b""
