"""Every promise, of every engine."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sandboxfile.core.layer import DebianBase, layer_key
from sandboxfile.engines.memory.engine import MemoryEngine
from sandboxfile.engines.memory.programs import echo_server
from sandboxfile.testing.conformance import PROMISES, Promise

ENGINES = ["memory", pytest.param("linux", marks=pytest.mark.host)]


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.name)
@pytest.mark.parametrize("name", ENGINES)
def test_engine_keeps_the_promise(name: str, promise: Promise, request: pytest.FixtureRequest) -> None:
    if name == "memory":
        asyncio.run(on_memory(promise))
    else:
        engine, stack = request.getfixturevalue("linux_base")
        asyncio.run(on(engine, stack, promise))


async def on(engine: Any, stack: Any, promise: Promise) -> None:
    if missing := promise.needs - engine.capabilities:
        pytest.skip(f"the {engine.name} engine lacks {', '.join(sorted(missing))}")
    try:
        await promise(engine, stack)
    finally:
        await engine.close()


async def on_memory(promise: Promise) -> None:
    engine = MemoryEngine(programs={"perl": echo_server})
    base = DebianBase(suite="trixie", architecture="amd64", packages=(), epoch=0)
    workspace = await engine.bootstrap(base, {}, lambda stream, data: None)
    await workspace.commit(base, layer_key(base))
    await on(engine, (layer_key(base),), promise)
    assert engine.workspaces == ()
    assert engine.sandboxes == ()


def test_every_promise_is_said_in_words() -> None:
    assert all(promise.statement.endswith(".") for promise in PROMISES)
    assert len({promise.name for promise in PROMISES}) == len(PROMISES)
