"""Making a layer of what a running sandbox has written: freeze, copy, go on."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sandboxfile.core.layer import Definition, LayerKey
from sandboxfile.engine.base import Committed
from sandboxfile.engines.linux.helper_client import HelperClient
from sandboxfile.engines.linux.layers import Owned, Sealed
from sandboxfile.engines.linux.operations import Freeze, MakeDirectory, Thaw
from sandboxfile.engines.linux.streams import readable
from sandboxfile.engines.linux.work import work

if TYPE_CHECKING:
    from sandboxfile.engines.linux.engine import LinuxEngine


async def commit_running(
    engine: LinuxEngine,
    name: str,
    init: int,
    upper: str,
    points: Sequence[str],
    definition: Definition,
    key: LayerKey,
) -> tuple[Committed, float]:
    """Copy `upper` into a new layer while the processes of the sandbox are stopped; for how many seconds
    they were. A layer is never the upper directory of a mounted overlay, so it is always a copy.

    points: mountpoints that were made for the sandbox, and are nothing it has written
    """
    owned = Owned(engine.layers.workspaces)
    try:
        target = str(owned.path / "layer" / "fs")
        await engine.helper.do(MakeDirectory(target, guest=True))
        found, pause = await _copy_frozen(engine.helper, name, init, upper, target, points)
        # The sandbox goes on already.
        await work(engine.helper, "sync", {}, {"root": target})
        committed = Committed(key, None, found["size"], found["entries"])
        published = engine.layers.publish(owned.path, definition, key, Sealed(committed))
    finally:
        left = engine.layers.to_trash(owned.path)
        owned.release()
        if left and engine.helper.running:
            await engine.empty_trash([left])
    return published.committed, pause


async def _copy_frozen(
    helper: HelperClient, name: str, init: int, source: str, target: str, points: Sequence[str]
) -> tuple[dict[str, int], float]:
    """Copy while everything stands still. The worker is made ready before that."""
    ready, said_ready = os.pipe2(os.O_CLOEXEC)
    told, go = os.pipe2(os.O_CLOEXEC)
    dirs = {"source": source, "target": target}
    args = {"drop": list(points)}
    copying = asyncio.ensure_future(work(helper, "copy", args, dirs, descriptors=(said_ready, told)))
    waiting = asyncio.ensure_future(readable(ready))
    try:
        await asyncio.wait({copying, waiting}, return_when=asyncio.FIRST_COMPLETED)
        started = time.monotonic()
        try:
            await helper.do(Freeze(name, init))
            os.write(go, b"g")
            found = await copying
        finally:
            if helper.running:
                await asyncio.shield(helper.do(Thaw(name)))
        return found, time.monotonic() - started
    finally:
        waiting.cancel()
        copying.cancel()
        await asyncio.gather(copying, waiting, return_exceptions=True)
        for descriptor in (ready, said_ready, told, go):
            os.close(descriptor)
