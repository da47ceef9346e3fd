from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sandboxfile.api import AsyncClient
from sandboxfile.errors import MissingCapability
from sandboxfile.store.locks import Locks
from sandboxfile.store.uses import used_by_the_living


def test_a_start_that_fails_lets_go_of_the_layers(tmp_path: Path) -> None:
    (tmp_path / "Sandboxfile").write_text("name: bare\nbase: scratch\nfiles:\n  - {content: x, to: /x}\n")

    async def attempt() -> None:
        async with AsyncClient(home=tmp_path / "store", engine="memory") as client:
            built = await client.build(client.load(directory=tmp_path))
            with pytest.raises(MissingCapability):
                await client.start(client.snapshot(built.slug), network="filtered:data.example")
            assert used_by_the_living(Locks(client.store.home / "locks")).layers == frozenset()

    asyncio.run(attempt())
