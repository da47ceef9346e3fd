"""Bombs, set off only after the kernel has said that the limit is there. Each stops by itself as well, at a
number the host can bear, and has five seconds. Then it has to go off where the limit is out of reach."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from escape_arena import BIN, DEADLINE, Arena, Said, execute

from sandboxfile.engine.base import Limits, Sandbox

pytestmark = pytest.mark.host
MB = 1 << 20
PROBES = f"{BIN}/probes"


@dataclass(frozen=True)
class Kept:
    """Limits as the kernel states them inside: bytes and files of the disk, processes, open files."""

    disk: int
    inodes: int
    processes: int
    open_files: int


async def kept(sandbox: Sandbox, path: str = "/") -> Kept:
    said = await execute(sandbox, PROBES, "limits", path)
    return Kept(*map(int, said.stdout.split()[:4]))


async def bomb(sandbox: Sandbox, *words: object) -> Said:
    return await execute(sandbox, PROBES, *map(str, words), timeout=DEADLINE)


def processes_of_probes() -> list[str]:
    """Processes on this machine that run a probe."""
    found = []
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and Path(f"/proc/{name}/cmdline").read_bytes().startswith(PROBES.encode()):
                found.append(name)
        except OSError:
            continue
    return found


def gone_off(arena: Arena, outer: Limits, *words: object) -> None:
    """The same bomb where its limit is out of reach: it has to go off, or its refusal has shown nothing."""

    async def body(sandbox: Sandbox) -> str:
        return (await bomb(sandbox, *words)).stdout

    said = arena.sandboxed(body, limits=outer)
    if said != "open\n":
        pytest.skip(f"vacuous on this kernel: under {outer}, {said.strip() or 'nothing'}")


@pytest.mark.parametrize("kind", [(), ("zombies",)], ids=["fork bomb", "zombie flood"])
def test_processes_run_out(arena: Arena, kind: tuple[str, ...]) -> None:
    async def stated(sandbox: Sandbox) -> bool:
        if (await kept(sandbox)).processes == 40:
            return True
        if await group_limit(sandbox, "pids", "pids.max", "pids.max") == 40:
            return True
        # The ceiling of a user namespace is stated nowhere: a number that is no bomb finds it out.
        return (await bomb(sandbox, "forks", 60)).stdout == "refused EAGAIN\n"

    async def body(sandbox: Sandbox) -> str:
        return (await bomb(sandbox, "forks", 400, *kind)).stdout

    assert arena.sandboxed(stated, limits=Limits(pids=40))
    assert arena.sandboxed(body, limits=Limits(pids=40)) == "refused EAGAIN\n"
    assert processes_of_probes() == []
    gone_off(arena, Limits(pids=500), "forks", 400, *kind)
    assert processes_of_probes() == []


def test_the_disk_runs_out(arena: Arena) -> None:
    async def body(sandbox: Sandbox) -> str:
        limits = await kept(sandbox)
        assert 0 < limits.disk <= 8 * MB, limits
        return (await bomb(sandbox, "fill", "/tmp/bomb", 32 * MB)).stdout

    assert arena.sandboxed(body, limits=Limits(disk=8 * MB)) == "refused ENOSPC\n"
    gone_off(arena, Limits(disk=64 * MB), "fill", "/tmp/bomb", 32 * MB)


def test_files_run_out(arena: Arena) -> None:
    async def body(sandbox: Sandbox) -> str:
        limits = await kept(sandbox)
        assert 0 < limits.inodes <= 10_000, limits
        return (await bomb(sandbox, "inodes", "/tmp", 20_000)).stdout

    assert arena.sandboxed(body, limits=Limits(disk=8 * MB)) == "refused ENOSPC\n"
    gone_off(arena, Limits(disk=128 * MB), "inodes", "/tmp", 20_000)


def test_shared_memory_runs_out(arena: Arena) -> None:
    async def body(sandbox: Sandbox) -> str:
        limits = await kept(sandbox, "/dev/shm")
        assert 0 < limits.disk <= 64 * MB, limits
        return (await bomb(sandbox, "fill", "/dev/shm/bomb", 80 * MB)).stdout

    assert arena.sandboxed(body) == "refused ENOSPC\n"
    # The size of /dev/shm is no limit that can be lifted: the same bomb in memory that is larger.
    gone_off(arena, Limits(disk=128 * MB), "fill", "/tmp/bomb", 80 * MB)


def test_open_files_run_out(arena: Arena) -> None:
    async def body(sandbox: Sandbox) -> str:
        limits = await kept(sandbox)
        assert limits.open_files == 64, limits
        return (await bomb(sandbox, "files", 100)).stdout

    assert arena.sandboxed(body, limits=Limits(open_files=64)) == "refused EMFILE\n"
    gone_off(arena, Limits(open_files=256), "files", 100)


@pytest.mark.root
def test_memory_runs_out(arena: Arena) -> None:
    async def body(sandbox: Sandbox) -> Said:
        names = ("memory", "memory.limit_in_bytes", "memory.max")
        assert await group_limit(sandbox, *names) == 64 * MB
        return await bomb(sandbox, "memory", 256 * MB)

    said = arena.sandboxed(body, limits=Limits(memory=64 * MB))
    assert said.completed.out_of_memory
    assert said.stdout == ""
    gone_off(arena, Limits(memory=512 * MB), "memory", 256 * MB)


async def group_limit(sandbox: Sandbox, controller: str, v1_file: str, v2_file: str) -> int | None:
    """A limit of the control group that a sandbox's commands are in, as the kernel states it on the host."""
    mark = f"{os.getpid()}4242"
    sleeper = asyncio.ensure_future(execute(sandbox, "sleep", mark))
    try:
        while (groups := _groups_of(mark)) is None:
            assert not sleeper.done()
            await asyncio.sleep(0)
    finally:
        sleeper.cancel()
        await asyncio.wait([sleeper])
    for line in groups.splitlines():
        _, controllers, path = line.split(":", 2)
        top = "/sys/fs/cgroup" if not controllers else f"/sys/fs/cgroup/{controller}"
        file = Path(f"{top}{path}/{v1_file if controllers else v2_file}")
        if controller in (controllers or controller).split(",") and file.exists():
            text = file.read_text().strip()
            return None if text == "max" else int(text)
    return None


def _groups_of(mark: str) -> str | None:
    """The control groups of the process `sleep MARK`, None while there is none."""
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and Path(f"/proc/{name}/cmdline").read_bytes() == f"sleep\0{mark}\0".encode():
                return Path(f"/proc/{name}/cgroup").read_text()
        except OSError:
            continue
    return None


@pytest.mark.parametrize("most", [MB, 8 * MB], ids=["the limit", "a larger one"])
def test_output_runs_out(arena: Arena, most: int) -> None:
    async def body(sandbox: Sandbox) -> Said:
        return await execute(sandbox, "yes", timeout=DEADLINE)

    said = arena.sandboxed(body, limits=Limits(output=most))
    assert said.completed.limit == "output"
    assert len(said.stdout) == most
