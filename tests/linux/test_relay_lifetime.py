"""A relay lasts as long as what it relays, whatever ends that."""

from __future__ import annotations

import asyncio
import os
import select
from pathlib import Path
from typing import Any

import pytest
from linux_bench import Place

from sandboxfile.engine.base import SandboxOptions
from sandboxfile.engines.linux.engine import LinuxEngine

pytestmark = [pytest.mark.host]
NAME = b"sandbox-relay"


def relays(helper: int) -> list[int]:
    """Descriptors of the relays that run below a helper's parent."""
    parents: dict[int, int] = {}
    named: list[int] = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                text = Path(f"/proc/{entry}/stat").read_bytes()
            except OSError:
                continue
            state, parent, *_ = text.rpartition(b")")[2].split()
            parents[int(entry)] = int(parent)
            if text.partition(b"(")[2].rpartition(b")")[0] == NAME and state != b"Z":
                named.append(int(entry))
    return [
        os.pidfd_open(each) for each in named if helper in (parents.get(each), parents.get(parents[each]))
    ]


def ended(relay: int) -> bool:
    try:
        return bool(select.select([relay], [], [], 30)[0])
    finally:
        os.close(relay)


def trial(home: Path, body: Any) -> None:
    async def run() -> None:
        engine = LinuxEngine(home, full_network="relay")
        try:
            await body(engine)
        finally:
            await engine.close()

    asyncio.run(run())


def test_it_ends_with_its_sandbox_and_no_other(shared_home: Path, linux_base: Any) -> None:
    async def body(engine: LinuxEngine) -> None:
        options = SandboxOptions(network="full")
        first = await engine.start(linux_base[1], options=options)
        helper = engine.helper.pid
        assert helper is not None
        (one,) = relays(helper)
        second = await engine.start(linux_base[1], options=options)
        both = relays(helper)
        assert len(both) == 2
        await first.close()
        assert ended(one)
        (left,) = relays(helper)
        await second.close()
        assert ended(left)
        for each in both:
            os.close(each)

    trial(shared_home, body)


def test_it_ends_with_a_step_and_its_workspace(shared_home: Path, linux_base: Any) -> None:
    async def body(engine: LinuxEngine) -> None:
        workspace = await engine.prepare(linux_base[1])
        await Place(workspace).sh("true", network="full")
        helper = engine.helper.pid
        assert helper is not None
        (one,) = relays(helper)
        await workspace.abort()
        assert ended(one)

    trial(shared_home, body)


def test_it_ends_with_its_helper(shared_home: Path, linux_base: Any) -> None:
    found: list[int] = []

    async def body(engine: LinuxEngine) -> None:
        await engine.start(linux_base[1], options=SandboxOptions(network="full"))
        helper = engine.helper.pid
        assert helper is not None
        found.extend(relays(helper))

    trial(shared_home, body)
    (one,) = found
    assert ended(one)


def test_it_holds_no_capability_and_none_of_its_helpers_descriptors(
    shared_home: Path, linux_base: Any
) -> None:
    async def body(engine: LinuxEngine) -> None:
        await engine.start(linux_base[1], options=SandboxOptions(network="full"))
        helper = engine.helper.pid
        assert helper is not None
        (one,) = relays(helper)
        about = Path(f"/proc/self/fdinfo/{one}").read_text()
        os.close(one)
        pid = next(line.split()[1] for line in about.splitlines() if line.startswith("Pid:"))
        status = dict(
            line.split(":\t", 1)
            for line in Path(f"/proc/{pid}/status").read_text().splitlines()
            if "\t" in line
        )
        assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
        assert status["NoNewPrivs"] == "1"
        if os.geteuid() == 0:
            assert set(status["Uid"].split()) == {"65534"}
            # stdin, stdout, stderr, the poll, the watch on its place, and sockets of the sandbox.
            kinds = [os.readlink(f"/proc/{pid}/fd/{each}") for each in os.listdir(f"/proc/{pid}/fd")]
            assert len([kind for kind in kinds if kind.startswith("socket:")]) <= 4
            assert len(kinds) <= 9

    trial(shared_home, body)
