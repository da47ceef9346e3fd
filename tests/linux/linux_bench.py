"""What the linux engine's tests are written with: an engine on a base, and a shell in its sandboxes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from sandboxfile.core.layer import LayerKey, RunLayer, layer_key
from sandboxfile.engine.base import Command, Completed
from sandboxfile.engines.linux.engine import LinuxEngine

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
EPOCH = 1_700_000_000


@dataclass
class Said:
    """How a command ended and what it said."""

    completed: Completed
    stdout: str = ""
    stderr: str = ""


@dataclass
class Place:
    """A workspace or sandbox that shell scripts are run in."""

    where: Any
    env: Mapping[str, str] = field(default_factory=lambda: {"PATH": PATH, "LC_ALL": "C.UTF-8"})

    async def sh(self, script: str, **options: Any) -> Said:
        return await self.run("sh", "-ec", script, **options)

    async def run(self, *argv: str, **options: Any) -> Said:
        said: dict[str, bytes] = {"stdout": b"", "stderr": b""}

        def take(stream: str, data: bytes) -> None:
            said[stream] += data

        stdin = options.pop("stdin", b"")
        completed = await self.where.execute(Command(argv, self.env, **options), take, stdin=stdin)
        return Said(completed, *(said[name].decode() for name in ("stdout", "stderr")))


@dataclass
class Bench:
    """An engine and a base to try things on. `trial` runs a coroutine and closes the engine after it."""

    engine: LinuxEngine
    base: tuple[LayerKey, ...]

    def trial(self, body: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        async def run() -> Any:
            try:
                return await body()
            finally:
                await self.engine.close()

        return asyncio.run(run())

    async def layer(self, name: str, prepare: Callable[[Place], Awaitable[Any]]) -> tuple[LayerKey, Any]:
        """Commit what `prepare` does in a workspace on the base, under a key of its own."""
        definition = RunLayer(self.base, name, {}, "/", "root", "none", (), EPOCH)
        workspace = await self.engine.prepare(self.base)
        await prepare(Place(workspace))
        key = layer_key(definition)
        return key, await workspace.commit(definition, key)
