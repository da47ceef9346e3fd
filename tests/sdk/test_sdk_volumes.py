"""Volumes and snapshots, on every engine."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest
from sdk_world import World

from sandboxfile import AsyncClient
from sandboxfile.errors import (
    NoSuchSnapshot,
    NoSuchVolume,
    SlugTaken,
    UsageError,
    VolumeInUse,
)
from sandboxfile.store.volumes import VolumeRecord


def test_what_is_written_to_a_root_volume_stays(world: World) -> None:
    async def main() -> None:
        async with world.client() as client:
            name = world.name("root")
            volume = await client.volumes.create(name, from_="base", region="ord")
            assert (volume.slug, volume.bootable, volume.region, volume.sandbox) == (name, True, "ord", None)
            assert volume.parent == (await client.snapshots.get("base")).slug
            async with await client.sandboxes.create(volume) as sandbox:
                assert (await client.volumes.get(name)).sandbox == sandbox.id
                await sandbox.sh("echo kept > /opt/file; rm /etc/hostname")
            assert (await client.volumes.get(name)).sandbox is None
            async with await client.sandboxes.create(volume.id) as sandbox:
                assert (await sandbox.sh("cat /opt/file; ls /etc/hostname", check=False)).text == "kept\n"

    asyncio.run(main())


def test_a_mounted_volume_is_carried_from_one_sandbox_to_the_next(world: World) -> None:
    async def main() -> None:
        async with world.client() as client:
            name = world.name("data")
            volume = await client.volumes.create(name)
            assert not volume.bootable
            for text in ("one", "two"):
                async with await client.sandboxes.create("base", volumes={"/srv/data/": name}) as sandbox:
                    await sandbox.sh("echo {} >> /srv/data/log", text)
            async with await client.sandboxes.create("base", volumes={"/mnt/x": volume}) as sandbox:
                assert (await sandbox.sh("cat /mnt/x/log")).text == "one\ntwo\n"
            with pytest.raises(UsageError, match="holds no system to boot from"):
                await client.sandboxes.create(name)

    asyncio.run(main())


def test_a_volume_is_in_one_sandbox_at_a_time(world: World) -> None:
    async def main() -> None:
        async with world.client() as client, world.client() as other:
            name = world.name("mine")
            await client.volumes.create(name, from_="base")
            async with await client.sandboxes.create(name) as sandbox:
                refused = (
                    lambda: client.sandboxes.create(name),
                    lambda: client.sandboxes.create("base", volumes={"/data": name}),
                    lambda: client.volumes.delete(name),
                    lambda: other.sandboxes.create(name),
                    lambda: other.volumes.delete(name),
                    lambda: other.volumes.snapshot(name, world.name("no")),
                )
                for verb in refused:
                    with pytest.raises(VolumeInUse, match=sandbox.id):
                        await verb()
                assert (await other.volumes.get(name)).sandbox == sandbox.id
            await client.volumes.delete(name)
            with pytest.raises(NoSuchVolume):
                await client.volumes.get(name)

    asyncio.run(main())


def test_snapshots_of_a_detached_volume_are_its_states(world: World) -> None:
    async def main() -> None:
        async with world.client() as client:
            name, first, second = world.name("vol"), world.name("one"), world.name("two")
            await client.volumes.create(name, from_="base")
            for slug in (first, second):
                async with await client.sandboxes.create(name) as sandbox:
                    await sandbox.sh("echo {} >> /opt/log", slug)
                made = await client.volumes.snapshot(name, slug)
                assert (made.slug, made.pause) == (slug, 0.0)
            for slug, text in ((first, f"{first}\n"), (second, f"{first}\n{second}\n")):
                async with await client.sandboxes.create(slug) as sandbox:
                    assert (await sandbox.sh("cat /opt/log")).text == text
            async with await client.sandboxes.create(name) as sandbox:
                assert (await sandbox.sh("cat /opt/log")).text == f"{first}\n{second}\n"
            # A snapshot lives without the volume, and a volume without its parent.
            await client.volumes.delete(name)
            copy = world.name("copy")
            await client.volumes.create(copy, from_=first)
            await client.snapshots.delete(first)
            await client.gc(keep_days=0)
            for root, text in ((copy, f"{first}\n"), (second, f"{first}\n{second}\n")):
                async with await client.sandboxes.create(root) as sandbox:
                    assert (await sandbox.sh("cat /opt/log")).text == text

    asyncio.run(main())


def test_a_snapshot_of_an_attached_root_volume_leaves_the_sandbox_running(world: World) -> None:
    async def main() -> None:
        async with world.client() as client:
            name, slug = world.name("vol"), world.name("live")
            await client.volumes.create(name, from_="base")
            async with await client.sandboxes.create(name) as sandbox:
                await sandbox.sh("echo before > /opt/log")
                made = await client.volumes.snapshot(name, slug)
                assert made.pause >= 0
                await sandbox.sh("echo after >> /opt/log")
            async with await client.sandboxes.create(made) as sandbox:
                assert (await sandbox.sh("cat /opt/log")).text == "before\n"
            async with await client.sandboxes.create(name) as sandbox:
                assert (await sandbox.sh("cat /opt/log")).text == "before\nafter\n"

    asyncio.run(main())


def test_a_snapshot_of_a_mounted_volume_has_what_it_holds(world: World) -> None:
    async def main() -> None:
        async with world.client() as client:
            name, first, second = world.name("data"), world.name("one"), world.name("two")
            await client.volumes.create(name)
            async with await client.sandboxes.create("base", volumes={"/data": name}) as sandbox:
                await sandbox.sh("echo before > /data/log; echo elsewhere > /opt/log")
                assert (await client.volumes.snapshot(name, first)).pause >= 0
                await sandbox.sh("echo after >> /data/log")
            await client.volumes.snapshot(name, second)
            for slug, text in ((first, "before\n"), (second, "before\nafter\n")):
                copy = world.name("copy")
                assert not (await client.volumes.create(copy, from_=slug)).bootable
                async with await client.sandboxes.create("base", volumes={"/mnt/copy": copy}) as sandbox:
                    assert (await sandbox.sh("cat /mnt/copy/log; ls -A /mnt/copy")).text == f"{text}log\n"

    asyncio.run(main())


def test_a_fork_needs_to_be_told_about_volumes(world: World) -> None:
    async def main() -> None:
        async with world.client() as client:
            name = world.name("data")
            await client.volumes.create(name)
            async with await client.sandboxes.create("base", volumes={"/data": name}) as sandbox:
                await sandbox.sh("echo x > /data/file; echo y > /opt/file")
                with pytest.raises(VolumeInUse, match="cannot be in its fork"):
                    await sandbox.fork()
                async with await sandbox.fork(volumes={}) as fork:
                    seen = await fork.sh("cat /opt/file; test -e /data/file || echo not here")
                    assert seen.text == "y\nnot here\n"

    asyncio.run(main())


def test_a_sandbox_that_ends_by_itself_gives_its_volume_back_at_once(world: World) -> None:
    async def main() -> None:
        async with world.client() as client:
            name = world.name("free")
            await client.volumes.create(name)
            sandbox = await client.sandboxes.create("base", volumes={"/srv": name})
            assert (await client.volumes.get(name)).sandbox == sandbox.id
            ended = asyncio.Event()
            sandbox._sandbox.when_ended(ended.set)
            if sandbox._sandbox.pid is not None:
                os.kill(sandbox._sandbox.pid, signal.SIGKILL)
            else:
                await sandbox._sandbox.close()
            await ended.wait()
            # What follows is the client's own, and nobody has asked it for anything.
            assert sandbox._closing is not None
            await sandbox._closing
            assert (await client.volumes.get(name)).sandbox is None

    asyncio.run(main())


def test_of_many_who_want_a_volume_one_gets_it(world: World) -> None:
    async def main() -> None:
        async with world.client() as client, world.client() as other:
            name = world.name("wanted")
            await client.volumes.create(name, from_="base")
            # What is in a memory engine is its client's alone.
            clients = (client, other) if world.engine == "linux" else (client,)
            tries = [clients[number % len(clients)].sandboxes.create(name) for number in range(8)]
            found = await asyncio.gather(*tries, return_exceptions=True)
            won = [each for each in found if not isinstance(each, BaseException)]
            assert len(won) == 1
            assert {type(each) for each in found if each is not won[0]} == {VolumeInUse}
            await won[0].kill()

    asyncio.run(main())


def test_volumes_and_snapshots_share_their_slugs(world: World) -> None:
    async def main() -> None:
        async with world.client() as client:
            volume, snapshot = world.name("vol"), world.name("snap")
            await client.volumes.create(volume, from_="base")
            await client.volumes.snapshot(volume, snapshot)
            for taken in (volume, snapshot):
                with pytest.raises(SlugTaken):
                    await client.volumes.create(taken)
                with pytest.raises(SlugTaken):
                    await client.volumes.snapshot(volume, taken)
                async with await client.sandboxes.create("base") as sandbox:
                    with pytest.raises(SlugTaken):
                        await sandbox.snapshot(taken)
            listed = [each.slug for each in await client.volumes.list()]
            assert volume in listed
            assert snapshot not in listed
            assert snapshot in [each.slug for each in await client.snapshots.list()]

    asyncio.run(main())


def test_unknown_names_are_typed_errors_with_near_misses(world: World) -> None:
    async def main() -> None:
        async with world.client() as client:
            name = world.name("known")
            await client.volumes.create(name)
            for verb in (client.volumes.get, client.volumes.delete):
                with pytest.raises(NoSuchVolume) as caught:
                    await verb(f"{name}x")
                assert caught.value.hint == f"did you mean `{name}`?"
            with pytest.raises(NoSuchVolume):
                await client.volumes.snapshot("no-such-volume", "slug")
            for verb in (client.snapshots.get, client.snapshots.delete, client.sandboxes.create):
                with pytest.raises(NoSuchSnapshot):
                    await verb("no-such-thing")
            with pytest.raises(NoSuchSnapshot):
                await client.volumes.create(world.name("x"), from_="no-such-thing")
            with pytest.raises(NoSuchVolume):
                await client.sandboxes.create("base", volumes={"/data": "no-such-volume"})

    asyncio.run(main())


def test_a_volume_takes_no_more_than_its_capacity(memory: World) -> None:
    async def main() -> None:
        async with memory.client() as client:
            name = memory.name("small")
            volume = await client.volumes.create(name, "8MiB", from_="base")
            assert volume.capacity == 8 << 20
            async with await client.sandboxes.create(name) as sandbox:
                await sandbox.sh("head -c 7000000 /dev/zero > /opt/most")
                done = await sandbox.sh("head -c 7000000 /dev/zero > /opt/more", check=False)
                assert not done.success
                assert b"No space left" in done.stderr
                await sandbox.sh("rm -f /opt/more /opt/most; head -c 7000000 /dev/zero > /opt/again")

    asyncio.run(main())


def test_the_index_can_be_lost(memory: World) -> None:
    async def main() -> None:
        async with memory.client() as client:
            name = memory.name("vol")
            made = await client.volumes.create(name, 10_000_000, from_="base")
        for path in memory.home.glob("index.sqlite*"):
            path.unlink()
        async with AsyncClient(home=memory.home, engine="memory") as client:
            assert await client.volumes.list() == (made,)

    asyncio.run(main())


@pytest.mark.parametrize("committed", [True, False])
def test_a_snapshot_that_was_cut_short_is_settled_by_the_next_who_takes_the_volume(
    memory: World, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    async def main() -> None:
        async with memory.client() as client:
            name = memory.name("vol")
            await client.volumes.create(name, from_="base")
            async with await client.sandboxes.create(name) as sandbox:
                await sandbox.sh("echo kept > /opt/file")
            freeze = client.engine.freeze_volume

            async def dying(*given: Any) -> Any:
                if committed:
                    await freeze(*given)
                raise ConnectionResetError

            monkeypatch.setattr(client.engine, "freeze_volume", dying)
            with pytest.raises(ConnectionResetError):
                await client.volumes.snapshot(name, memory.name("cut"))
            monkeypatch.undo()
            left = client.store.index.volumes.get(name)
            assert (left.pending is not None, len(left.stack)) == (True, 1)
            await client.gc(keep_days=0)
            async with await client.sandboxes.create(name) as sandbox:
                assert (await sandbox.sh("cat /opt/file")).text == "kept\n"
            settled: VolumeRecord = client.store.index.volumes.get(name)
            assert (settled.pending, len(settled.stack)) == (None, 2 if committed else 1)

    asyncio.run(main())
