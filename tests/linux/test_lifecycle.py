"""Nothing is left of a thousand sandboxes, of killed clients, of sandboxes that end by themselves."""

from __future__ import annotations

import asyncio
import gc
import os
import select
import signal
import subprocess
import sys
import uuid
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from linux_bench import Bench, Place

from sandboxfile.core.layer import VolumeLayer, layer_key
from sandboxfile.engine.base import Capability, Command, Limits, SandboxOptions, Stdio
from sandboxfile.engines.linux.cgroups import freezer, hierarchies
from sandboxfile.errors import EngineError

pytestmark = pytest.mark.host

CYCLES = 1000


@dataclass(frozen=True)
class Held:
    """What a client, its helper and its store hold at a moment."""

    descriptors: int
    helper_descriptors: int
    mounts: int
    processes: int
    groups: frozenset[str]
    entries: int
    memory: int
    loops: int


def children(pid: int) -> list[int]:
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def tree(pid: int) -> list[int]:
    found = [pid]
    for each in found:
        found += children(each)
    return found


def groups(names: Iterable[str]) -> frozenset[str]:
    """The control groups of those sandboxes. (Other clients of this machine may have some, too.)"""
    tops = {*hierarchies().values(), *([freezer()] if freezer() else [])}
    return frozenset(
        path for top in tops for name in names if os.path.exists(path := f"{top}/sandboxfile/{name}")
    )


def held(bench: Bench, names: Iterable[str]) -> Held:
    gc.collect()
    waiter = bench.engine.helper.pid
    assert waiter is not None
    (helper,) = children(waiter)
    base = bench.engine.helper.base
    home = bench.engine.layers.home
    loops = Path("/sys/block").glob("loop*/loop/backing_file")
    mine = [path for path in loops if str(home) in path.read_text()]
    counted = ("workspaces", "trash", "volumes", "layers", "placements")
    return Held(
        len(os.listdir("/proc/self/fd")),
        len(os.listdir(f"/proc/{helper}/fd")),
        len(Path(f"/proc/{helper}/mountinfo").read_text().splitlines()),
        len(tree(waiter)),
        groups(names),
        sum(len(os.listdir(home / name)) for name in counted),
        sum(1 for _ in os.walk(f"/proc/{helper}/root{base}/sandboxes")),
        len(mine),
    )


async def settle(bench: Bench, wanted: Held, names: Iterable[str]) -> Held:
    """What is held once the helper has come to rest: it makes namespaces ahead, and reaps, when idle."""
    found = held(bench, names)
    for _ in range(200):
        if found == wanted:
            break
        await asyncio.sleep(0.02)
        found = held(bench, names)
    return found


async def resting(bench: Bench) -> Held:
    """What is held when it has stayed the same for a while."""
    found, same = held(bench, ()), 0
    while same < 10:
        await asyncio.sleep(0.02)
        now = held(bench, ())
        found, same = now, same + 1 if now == found else 0
    return found


def trial(bench: Bench, body: Callable[[], Awaitable[Any]]) -> None:
    """Warm up, do something, and compare what is held before and after."""

    names: set[str] = set()
    start = bench.engine.start

    async def noted(*given: Any, **options: Any) -> Any:
        sandbox = await start(*given, **options)
        names.add(sandbox.id)
        return sandbox

    async def run() -> None:
        for _ in range(3):
            await (await start(bench.base)).close()
        before = await resting(bench)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bench.engine, "start", noted)
            await body()
        assert await settle(bench, before, names) == before

    bench.trial(run)


def test_a_thousand_sandboxes_leave_nothing(bench: Bench) -> None:
    async def one() -> None:
        sandbox = await bench.engine.start(bench.base)
        await sandbox.close()

    async def body() -> None:
        for _ in range(CYCLES // 2):
            await asyncio.gather(one(), one())

    trial(bench, body)


def test_sandboxes_with_everything_leave_nothing(bench: Bench) -> None:
    hard = Capability.HARD_MEMORY in bench.engine.capabilities
    limits = Limits(
        memory=(128 << 20) if hard else None,
        cpus=1.0 if hard else None,
        pids=64,
        disk=(16 << 20) if Capability.HARD_DISK in bench.engine.capabilities else None,
        output=1000,
    )

    async def one(volume: str) -> None:
        options = SandboxOptions(limits=limits, mounts={"/data": volume}, timeout=1000)
        place = Place(await bench.engine.start(bench.base, options=options))
        await place.sh("echo x > /data/x; sleep 1000 >/dev/null 2>&1 &")
        assert (await place.run("sh", "-c", "yes")).completed.limit == "output"
        process = await place.where.spawn(Command(("sleep", "1000"), place.env), Stdio())
        await place.where.expose(8080)
        if hard:
            await place.sh("perl -e '$x = \"a\" x 300_000_000'")
        await place.where.close()
        assert (await process.wait()).exit_code != 0

    async def body() -> None:
        capacity = (16 << 20) if Capability.VOLUME_CAPACITY in bench.engine.capabilities else None
        names = [f"v-{uuid.uuid4().hex[:12]}" for _ in range(2)]
        for name in names:
            await bench.engine.create_volume(name, capacity, ())
        for _ in range(10):
            await asyncio.gather(*(one(name) for name in names))
        for name in names:
            await bench.engine.remove_volume(name)

    trial(bench, body)


def test_what_fails_leaves_nothing(bench: Bench) -> None:
    async def body() -> None:
        with pytest.raises(EngineError):
            await bench.engine.start(["sha256:" + "0" * 64])  # type: ignore[list-item]
        name = f"v-{uuid.uuid4().hex[:12]}"
        await bench.engine.create_volume(name, None, ())
        # The mountpoint cannot be made: a file is in the way.
        for _ in range(3):
            options = SandboxOptions(mounts={"/etc/passwd/below": name})
            with pytest.raises(EngineError):
                await bench.engine.start(bench.base, options=options)
        await bench.engine.remove_volume(name)
        for _ in range(5):
            starting = asyncio.ensure_future(bench.engine.start(bench.base))
            await asyncio.sleep(0)
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)

    trial(bench, body)


def test_sandboxes_that_end_by_themselves_leave_nothing(bench: Bench) -> None:
    async def body() -> None:
        ending = await bench.engine.start(bench.base, options=SandboxOptions(timeout=0.2))
        killed = await bench.engine.start(bench.base)
        assert killed.pid is not None
        os.kill(killed.pid, signal.SIGKILL)
        for sandbox in (ending, killed):
            assert sandbox._state.init_end is not None
            await sandbox._state.init_end
            await sandbox.close()
            with pytest.raises(EngineError, match="ended"):
                await sandbox.extend(1)

    trial(bench, body)


def test_snapshots_leave_nothing_but_the_layer(bench: Bench) -> None:
    async def body() -> None:
        place = Place(await bench.engine.start(bench.base))
        await place.sh("echo x > /opt/x")
        keys = []
        for _ in range(3):
            definition = VolumeLayer(bench.base, uuid.uuid4().hex)
            keys.append(layer_key(definition))
            await place.where.snapshot(definition, keys[-1])
        await place.where.close()
        await bench.engine.remove(keys)

    trial(bench, body)


CLIENT = """
import asyncio, sys
from pathlib import Path
from sandboxfile.engine.base import Command, Limits, SandboxOptions
from sandboxfile.engines.linux.engine import LinuxEngine
from sandboxfile.engines.linux.operations import Freeze

async def main():
    engine = LinuxEngine(Path(sys.argv[1]))
    limits = Limits(memory=256 << 20) if sys.argv[2] == "hard" else Limits(pids=50)
    sandbox = await engine.start(sys.argv[3:], options=SandboxOptions(limits=limits))
    await engine.helper.do(Freeze(sandbox.id, sandbox._state.init_pid))
    print(engine.helper.pid, sandbox.id, flush=True)
    await asyncio.sleep(1000)

asyncio.run(main())
"""


def test_a_client_killed_in_the_middle_of_a_snapshot_leaves_no_process_and_gc_takes_its_groups(
    bench: Bench,
) -> None:
    hard = "hard" if Capability.HARD_MEMORY in bench.engine.capabilities else "soft"
    argv = [sys.executable, "-c", CLIENT, str(bench.engine.layers.home), hard, *bench.base]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        helper, sandbox = client.stdout.readline().split()
        watched = os.pidfd_open(int(helper))
        if hard == "hard":
            assert groups([sandbox])
        client.send_signal(signal.SIGKILL)
    # Frozen processes are killed as well; the waiting process ends when all of them are gone.
    assert select.select([watched], [], [], 30)[0]
    os.close(watched)

    async def body() -> None:
        await bench.engine.sweep()
        assert groups([sandbox]) == frozenset()

    bench.trial(body)
