"""Clients whose stores have a snapshot called `base`."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sandboxfile import AsyncClient
from sandboxfile.core.layer import DebianBase, layer_key
from sandboxfile.engines.memory.engine import MemoryEngine
from sandboxfile.engines.memory.programs import echo_server
from sandboxfile.errors import NoSuchSnapshot, NoSuchVolume
from sandboxfile.store.records import SnapshotRecord, layer_record


class World:
    """Clients of one engine and one store.

    name: a slug nobody else uses, for a test's own things; they are deleted when the test is over
    """

    def __init__(self, engine: str, home: Path) -> None:
        self.engine = engine
        self.home = home
        self._names: list[str] = []

    def name(self, text: str) -> str:
        made = f"{text}-{os.urandom(4).hex()}"
        self._names.append(made)
        return made

    @asynccontextmanager
    async def client(self) -> AsyncIterator[AsyncClient]:
        async with AsyncClient(home=self.home, engine=self.engine) as client:
            if self.engine == "memory":
                await make_base(client)
            yield client

    async def clean(self) -> None:
        async with AsyncClient(home=self.home, engine=self.engine) as client:
            for name in self._names:
                for delete in (client.volumes.delete, client.snapshots.delete):
                    try:
                        await delete(name)
                    except (NoSuchVolume, NoSuchSnapshot):
                        continue


async def make_base(client: AsyncClient, name: str = "base") -> None:
    """A Debian-like base in a memory engine of its own, published under a name."""
    client._opened = MemoryEngine(programs={"perl": echo_server})
    base = DebianBase(suite="trixie", architecture="amd64", packages=(), epoch=0)
    workspace = await client.engine.bootstrap(base, {}, lambda stream, data: None)
    made = await workspace.commit(base, layer_key(base))
    index = client.store.index
    index.record_layer(
        layer_record(base, name="base", diff_id=made.diff_id, size=made.size, entries=made.entries, now=0)
    )
    config = {"env": {"LANG": "C.UTF-8", "GREETING": "hello"}, "workdir": "/opt", "user": "root"}
    index.publish(SnapshotRecord(name, made.key, name, (made.key,), config, 0.0, 0.0))
