"""Snapshots of running sandboxes: everything stands still for a copy, and goes on."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from linux_bench import Bench, Place

from sandboxfile.core.layer import LayerKey, VolumeLayer, layer_key
from sandboxfile.engine.base import Command, Limits, SandboxOptions, Stdio
from sandboxfile.engines.linux.cgroups import Cgroups
from sandboxfile.engines.linux.freeze import Freezer, members
from sandboxfile.engines.linux.operations import Freeze, Thaw
from sandboxfile.errors import EngineError

pytestmark = pytest.mark.host

COUNTER = (
    "perl",
    "-e",
    "while (1) { open(F, '>', '/tmp/now') or die; print F $n++; close F; rename '/tmp/now', '/tmp/count' }",
)


def defined(stack: tuple[LayerKey, ...]) -> tuple[VolumeLayer, LayerKey]:
    definition = VolumeLayer(stack, uuid.uuid4().hex)
    return definition, layer_key(definition)


async def counting(bench: Bench, **options: Any) -> Place:
    """A sandbox in which a process counts in a file, as fast as it can."""
    place = Place(await bench.engine.start(bench.base, options=SandboxOptions(**options)))
    await place.where.spawn(Command(COUNTER, place.env), Stdio())
    await place.sh("until [ -s /tmp/count ]; do sleep 0.01; done")
    return place


async def snapshot(bench: Bench, place: Place) -> tuple[tuple[LayerKey, ...], Any, float]:
    definition, key = defined(place.where.stack)
    committed, pause = await place.where.snapshot(definition, key)
    return (*place.where.stack, key), committed, pause


SCRIPT = """
cd /opt
echo text > file; ln file hard; ln -s file soft; mkfifo pipe; mkdir -p deep/er
chown 12:34 file; chmod 4711 deep/er; touch -d @1000000000 deep/er
truncate -s 100M sparse; echo end >> sparse
rm /etc/hostname; rm -r /usr/share/doc; mkdir /usr/share/doc; echo new > /usr/share/doc/new
"""
LOOK = """
cd /opt
cat file hard soft; stat -c '%h %u:%g' file; stat -c '%a %Y' deep/er; stat -c %F pipe; tail -c 4 sparse
test $(stat -c %b sparse) -lt 1000; ls /etc/hostname 2>/dev/null || echo gone; ls -A /usr/share/doc
"""


@pytest.mark.parametrize("limits", [Limits(), pytest.param(Limits(memory=512 << 20), marks=pytest.mark.root)])
def test_a_snapshot_is_what_was_there_and_the_sandbox_goes_on(bench: Bench, limits: Limits) -> None:
    async def body() -> None:
        place = await counting(bench, limits=limits)
        await place.sh(SCRIPT)
        before = (await place.sh(LOOK)).stdout
        stack, committed, pause = await snapshot(bench, place)
        try:
            assert committed.key == stack[-1]
            assert committed.size > 100_000_000
            assert 0 < pause < 30
            fork = Place(await bench.engine.start(stack))
            assert (await fork.sh(LOOK)).stdout == before
            # It went on counting, and what it writes now is not in the snapshot.
            taken = int((await fork.sh("cat /tmp/count")).stdout)
            await place.sh(
                f"until [ $(cat /tmp/count) -gt {taken} ]; do sleep 0.01; done; echo later > /opt/file"
            )
            assert (await fork.sh("cat /opt/file")).stdout == "text\n"
            assert (await Place(await bench.engine.start(stack)).sh("cat /opt/file")).stdout == "text\n"
        finally:
            await bench.engine.close()
            await bench.engine.remove(stack[-1:])

    bench.trial(body)


def test_no_mountpoint_of_the_sandbox_is_in_its_snapshot(bench: Bench) -> None:
    async def body() -> None:
        place = Place(await bench.engine.start(bench.base))
        stack, committed, _ = await snapshot(bench, place)
        try:
            # At most /run, which was copied up to hold them.
            assert committed.entries <= 1
            assert committed.size == 0
        finally:
            await bench.engine.close()
            await bench.engine.remove(stack[-1:])

    bench.trial(body)


def test_a_snapshot_of_an_attached_volume_is_a_copy(bench: Bench) -> None:
    async def body() -> None:
        name = f"v-{uuid.uuid4().hex[:12]}"
        await bench.engine.create_volume(name, None, bench.base)
        stack: tuple[LayerKey, ...] = ()
        try:
            place = Place(await bench.engine.start((), options=SandboxOptions(volume=name)))
            await place.sh("echo one > /opt/file")
            stack, _, _ = await snapshot(bench, place)
            await place.sh("echo two > /opt/file")
            assert (await Place(await bench.engine.start(stack)).sh("cat /opt/file")).stdout == "one\n"
            assert bench.engine.volumes.get(name).stack == bench.base
        finally:
            await bench.engine.close()
            await bench.engine.remove_volume(name)
            await bench.engine.remove(stack[-1:])

    bench.trial(body)


def test_commands_that_are_started_during_a_snapshot_wait_for_it(bench: Bench) -> None:
    async def body() -> None:
        place = await counting(bench)
        taking = asyncio.ensure_future(snapshot(bench, place))
        said = await asyncio.gather(*(place.sh("echo after") for _ in range(3)))
        stack, _, _ = await taking
        assert [each.stdout for each in said] == ["after\n"] * 3
        await bench.engine.close()
        await bench.engine.remove(stack[-1:])

    bench.trial(body)


def test_a_sandbox_can_be_closed_while_it_is_frozen(bench: Bench) -> None:
    async def body() -> None:
        place = await counting(bench)
        await bench.engine.helper.do(Freeze(place.where.id, place.where._state.init_pid))
        await place.where.close()
        await bench.engine.helper.do(Thaw(place.where.id))
        with pytest.raises(EngineError, match="ended"):
            await snapshot(bench, place)

    bench.trial(body)


@pytest.fixture
def guests() -> Iterator[int]:
    """A pid namespace with a process that counts and one that was stopped; the init's process id here."""
    script = "sleep 1000 & kill -STOP $!; echo $!; while :; do echo x; done"
    argv = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "sh", "-c", script]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as outer:
        assert outer.stdout is not None
        outer.stdout.readline()
        outer.stdout.readline()
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
        init = int(children[0])
        while b"T" not in states(init):
            # The signal is on its way.
            os.sched_yield()
        yield init
        outer.send_signal(signal.SIGKILL)
        outer.stdout.close()


def states(init: int) -> list[bytes]:
    return sorted(state for _, state in members(os.stat(f"/proc/{init}/ns/pid").st_ino))


def test_without_control_groups_signals_stop_everything_and_nothing_else_goes_on(
    guests: int, tmp_path: Path
) -> None:
    frozen = Freezer(Cgroups(str(tmp_path)))
    assert frozen.freeze("s-test", guests) == 1
    assert states(guests) == [b"T", b"T"]
    frozen.thaw("s-test")
    # What the guest had stopped itself is still stopped.
    assert states(guests).count(b"T") == 1
    frozen.thaw("s-test")


class Foreign(Cgroups):
    """Groups that can be frozen, but processes that cannot be moved there."""

    can_freeze = True

    def gather(self, name: str, pid: int) -> None:
        raise PermissionError(errno.EACCES, "not ours to move")

    def freeze(self, name: str, *, frozen: bool) -> None:
        raise FileNotFoundError(errno.ENOENT, "no such group")


def test_processes_that_cannot_be_moved_to_a_group_are_stopped_by_signals(
    guests: int, tmp_path: Path
) -> None:
    frozen = Freezer(Foreign(str(tmp_path)))
    assert frozen.freeze("s-test", guests) == 1
    assert states(guests) == [b"T", b"T"]
    frozen.thaw("s-test")
    assert states(guests).count(b"T") == 1
