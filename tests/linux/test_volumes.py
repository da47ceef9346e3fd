"""Volumes of the linux engine: what is written stays, one sandbox at a time, frozen by a rename."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from linux_bench import Bench, Place

from sandboxfile.core.layer import LayerKey, VolumeLayer, layer_key
from sandboxfile.engine.base import Capability, SandboxOptions
from sandboxfile.engines.linux import disk
from sandboxfile.engines.linux.engine import LinuxEngine
from sandboxfile.errors import EngineError, LimitNotEnforceable, NoSuchVolume, UsageError, VolumeInUse

pytestmark = pytest.mark.host

SIZE = 24 << 20
BACKENDS = [
    pytest.param(None, id="dir"),
    pytest.param(SIZE, id="image", marks=pytest.mark.root),
]


class Volumes:
    """Volumes that are removed after the test, and definitions for what they become."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.engine = bench.engine
        self.names: list[str] = []
        self.keys: list[LayerKey] = []

    async def make(self, capacity: int | None = None, stack: tuple[LayerKey, ...] | None = None) -> str:
        name = f"v-{uuid.uuid4().hex[:12]}"
        await self.engine.create_volume(name, capacity, self.bench.base if stack is None else stack)
        self.names.append(name)
        return name

    async def start(self, volume: str | None = None, **options: Any) -> Place:
        return Place(
            await self.engine.start(self.bench.base, options=SandboxOptions(volume=volume, **options))
        )

    async def definition(self) -> tuple[VolumeLayer, LayerKey]:
        definition = VolumeLayer(self.bench.base, uuid.uuid4().hex)
        self.keys.append(layer_key(definition))
        return definition, layer_key(definition)

    def trial(self, body: Callable[[], Awaitable[Any]]) -> Any:
        async def run() -> Any:
            try:
                return await body()
            finally:
                await self.engine.close()
                for name in self.names:
                    await self.engine.remove_volume(name)
                await self.engine.remove(self.keys)

        return self.bench.trial(run)


@pytest.fixture
def volumes(bench: Bench) -> Volumes:
    return Volumes(bench)


@pytest.mark.parametrize("capacity", BACKENDS)
def test_what_is_written_to_a_volume_stays(volumes: Volumes, capacity: int | None) -> None:
    async def body() -> None:
        name = await volumes.make(capacity)
        first = await volumes.start(name)
        await first.sh("echo kept > /opt/file; rm /etc/hostname; chmod 700 /opt; chown 5:6 /opt/file")
        await first.where.close()
        second = await volumes.start(name)
        shown = await second.sh("cat /opt/file; ls /etc/hostname 2>&1 || stat -c '%a %u:%g' /opt /opt/file")
        assert shown.stdout.splitlines()[0] == "kept"
        assert shown.stdout.splitlines()[2:] == ["700 0:0", "644 5:6"]
        other = await volumes.start()
        assert (await other.sh("ls /opt")).stdout == ""

    volumes.trial(body)


@pytest.mark.parametrize("capacity", BACKENDS)
def test_nothing_of_the_sandbox_itself_stays_in_a_volume(volumes: Volumes, capacity: int | None) -> None:
    async def body() -> None:
        name = await volumes.make(capacity)
        place = await volumes.start(name)
        await place.sh("test -e /run/sandboxfile/init")
        await place.where.close()
        definition, key = await volumes.definition()
        await volumes.engine.freeze_volume(name, definition, key)
        directory = (await volumes.engine.stacks.directories([key]))[0]
        found = await seen(volumes.engine, directory)
        assert found == []

    volumes.trial(body)


async def seen(engine: LinuxEngine, directory: str) -> list[str]:
    """The names in a directory that the helper sees."""
    from sandboxfile.engines.linux.operations import ReadModes
    from sandboxfile.engines.linux.work import work

    wanted = ["/run/sandboxfile", "/run/secrets"]
    (modes,) = await engine.helper.do(ReadModes(directory, wanted))
    counted = await work(engine.helper, "measure", {}, {"root": directory})
    left = [path for path, mode in zip(wanted, modes, strict=True) if mode is not None]
    # /run itself may have been copied up to hold a mountpoint.
    return left if counted["entries"] <= 1 else [*left, f"{counted['entries']} entries"]


def test_one_sandbox_at_a_time_uses_a_volume(volumes: Volumes) -> None:
    async def body() -> None:
        name = await volumes.make()
        place = await volumes.start(name)
        for again in (
            lambda: volumes.start(name),
            lambda: volumes.start(mounts={"/mnt": name}),
            lambda: volumes.engine.remove_volume(name),
        ):
            with pytest.raises(VolumeInUse, match=name):
                await again()
        definition, key = await volumes.definition()
        with pytest.raises(VolumeInUse, match=name):
            await volumes.engine.freeze_volume(name, definition, key)
        await place.where.close()
        await (await volumes.start(name)).where.close()

    volumes.trial(body)


def test_unknown_volumes_are_named(volumes: Volumes) -> None:
    async def body() -> None:
        for name in ("v-none", "../up", "", "a/b"):
            with pytest.raises(NoSuchVolume, match="volume"):
                await volumes.start(name)
        definition, key = await volumes.definition()
        with pytest.raises(NoSuchVolume, match="v-none"):
            await volumes.engine.freeze_volume("v-none", definition, key)
        await volumes.engine.remove_volume("v-none")
        name = await volumes.make()
        with pytest.raises(EngineError, match="there already"):
            await volumes.engine.create_volume(name, None, ())
        assert volumes.engine.volumes.get(name).stack == volumes.bench.base

    volumes.trial(body)


@pytest.mark.parametrize("capacity", BACKENDS)
def test_freezing_a_detached_volume_makes_a_layer_and_an_empty_volume_above_it(
    volumes: Volumes, capacity: int | None
) -> None:
    async def body() -> None:
        name = await volumes.make(capacity)
        place = await volumes.start(name)
        await place.sh("echo one > /opt/file; rm /etc/hostname; mkdir /srv/d; ln /opt/file /srv/d/link")
        await place.where.close()
        definition, key = await volumes.definition()
        committed = await volumes.engine.freeze_volume(name, definition, key)
        assert (committed.key, committed.diff_id) == (key, None)
        assert await volumes.engine.freeze_volume(name, definition, key) == committed

        stack = (*volumes.bench.base, key)
        fresh = Place(await volumes.engine.start(stack))
        script = "cat /opt/file /srv/d/link; stat -c %h /opt/file; ls /etc/hostname || echo gone"
        assert (await fresh.sh(script)).stdout == "one\none\n2\ngone\n"
        await fresh.sh("echo changed > /opt/file")

        again = await volumes.start(name)
        assert again.where.stack == stack
        await again.sh("test $(cat /opt/file) = one; echo two > /opt/file")
        await again.where.close()
        assert (await Place(await volumes.engine.start(stack)).sh("cat /opt/file")).stdout == "one\n"
        assert (await (await volumes.start(name)).sh("cat /opt/file")).stdout == "two\n"

    volumes.trial(body)


@pytest.mark.parametrize("capacity", BACKENDS)
def test_volumes_are_mounted_at_paths_and_kept(volumes: Volumes, capacity: int | None) -> None:
    async def body() -> None:
        empty, full = await volumes.make(capacity, ()), await volumes.make(capacity)
        mounts = {"/data/deep": empty, "/other": full}
        place = await volumes.start(mounts=mounts)
        await place.sh("ls -A /data/deep; echo x > /data/deep/x; echo y > /other/etc/y; echo z > /opt/z")
        with pytest.raises(VolumeInUse):
            await volumes.start(empty)
        await place.where.close()
        again = await volumes.start(mounts={"/elsewhere": empty, "/z": full})
        shown = await again.sh("ls /elsewhere /opt; cat /elsewhere/x /z/etc/y; ls /z/etc/passwd")
        assert shown.stdout == "/elsewhere:\nx\n\n/opt:\nx\ny\n/z/etc/passwd\n"

    volumes.trial(body)


@pytest.mark.root
def test_a_full_volume_says_so_inside_and_nothing_outside_is_harmed(volumes: Volumes) -> None:
    async def body() -> None:
        assert Capability.VOLUME_CAPACITY in volumes.engine.capabilities
        name = await volumes.make(SIZE)
        place = await volumes.start(name)
        said = await place.sh("head -c 40000000 /dev/zero > /opt/big || true; stat -c %s /opt/big")
        assert "No space left" in said.stderr
        assert int(said.stdout) <= SIZE
        await place.sh("rm /opt/big; echo again > /opt/small; cat /opt/small")
        image = volumes.engine.layers.volumes / name / "layer" / "image"
        assert image.stat().st_size == SIZE
        await place.where.close()
        assert disk.is_clean(image)

    volumes.trial(body)


def test_a_capacity_that_nothing_enforces_is_refused(
    volumes: Volumes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandboxfile.engines.linux.volumes.images_usable", lambda: False)

    async def body() -> None:
        with pytest.raises(LimitNotEnforceable) as caught:
            await volumes.make(SIZE)
        assert caught.value.limit == "disk"
        with pytest.raises(UsageError, match="at least"):
            await volumes.make(1000)
        assert not set(volumes.names) & set(volumes.engine.volumes.names())

    volumes.trial(body)


def test_a_watched_capacity_ends_the_sandbox_that_exceeds_it(
    volumes: Volumes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandboxfile.engines.linux.volumes.images_usable", lambda: False)

    async def body() -> None:
        name = f"v-{uuid.uuid4().hex[:12]}"
        volumes.names.append(name)
        await volumes.engine.create_volume(name, SIZE, volumes.bench.base, best_effort=True)
        place = await volumes.start(name, best_effort=True)
        said = await place.sh("head -c 40000000 /dev/zero > /opt/big; sleep 1000")
        assert said.completed.limit == "disk"
        with pytest.raises(EngineError, match="more disk"):
            await place.sh("true")
        assert not place.where.alive

    volumes.trial(body)


CLIENT = """
import asyncio, sys
from pathlib import Path
from sandboxfile.engine.base import Command, SandboxOptions
from sandboxfile.engines.linux.engine import LinuxEngine

async def main():
    engine = LinuxEngine(Path(sys.argv[1]))
    sandbox = await engine.start((), options=SandboxOptions(volume=sys.argv[2]))
    await sandbox.execute(
        Command(("sh", "-c", "echo kept > /opt/file; sync /opt/file; echo up; sleep 1000"),
                {"PATH": "/usr/bin:/bin"}),
        lambda stream, data: print(engine.helper.pid, flush=True),
    )

asyncio.run(main())
"""


@pytest.mark.parametrize("capacity", BACKENDS)
def test_a_killed_client_gives_its_volume_back(volumes: Volumes, capacity: int | None) -> None:
    async def body() -> None:
        name = await volumes.make(capacity)
        argv = [sys.executable, "-c", CLIENT, str(volumes.engine.layers.home), name]
        client = await asyncio.create_subprocess_exec(*argv, stdout=subprocess.PIPE)
        assert client.stdout is not None
        helper = int(await client.stdout.readline())
        watched = os.pidfd_open(helper)
        with pytest.raises(VolumeInUse):
            await volumes.start(name)
        client.send_signal(signal.SIGKILL)
        await client.wait()
        # At once: whatever is left of the other client's mounts is waited for.
        place = await volumes.start(name)
        assert select.select([watched], [], [], 0)[0]
        os.close(watched)
        assert (await place.sh("cat /opt/file")).stdout == "kept\n"

    volumes.trial(body)


def test_a_kill_while_a_volume_is_frozen_loses_nothing(volumes: Volumes) -> None:
    """The record is written before the rename: whichever of the two was the last, the content is found."""

    async def body() -> None:
        name = await volumes.make()
        place = await volumes.start(name)
        await place.sh("echo kept > /opt/file")
        await place.where.close()
        definition, key = await volumes.definition()
        home = volumes.engine.layers.volumes / name
        await volumes.engine.freeze_volume(name, definition, key)
        # As a kill between the rename and the second write of the record leaves it.
        record = (home / "volume.json").read_text()
        before = record.replace('"freezing": null', f'"freezing": "{key}"').replace(f', "{key}"]', "]")
        assert before != record
        (home / "volume.json").write_text(before)
        assert volumes.engine.volumes.get(name).stack == (*volumes.bench.base, key)
        assert (await (await volumes.start(name)).sh("cat /opt/file")).stdout == "kept\n"

    volumes.trial(body)


@pytest.mark.root
def test_an_image_that_was_not_unmounted_is_mended_before_it_becomes_a_layer(
    volumes: Volumes, tmp_path: Path
) -> None:
    async def body() -> None:
        name = await volumes.make(SIZE)
        place = await volumes.start(name)
        await place.sh("echo kept > /opt/file; sync")
        image = volumes.engine.layers.volumes / name / "layer" / "image"
        assert not disk.is_clean(image)
        # What the disk holds while it is mounted is what a machine that loses its power leaves.
        left = image.read_bytes()
        await place.where.close()
        image.write_bytes(left)
        definition, key = await volumes.definition()
        await volumes.engine.freeze_volume(name, definition, key)
        fresh = Place(await volumes.engine.start((*volumes.bench.base, key)))
        assert (await fresh.sh("cat /opt/file")).stdout == "kept\n"

    volumes.trial(body)
