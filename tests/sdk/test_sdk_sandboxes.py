"""Sandboxes as programs use them, on every engine."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest
from sdk_world import World

from sandboxfile.errors import (
    CommandFailed,
    MissingCapability,
    NoSuchSandbox,
    NoSuchSnapshot,
    SandboxElsewhere,
    SandboxGone,
    UsageError,
    VolumeInUse,
)
from sandboxfile.testing.sandboxes import PORT, SERVER


def test_a_script_gives_what_it_wrote(world: World) -> None:
    async def main() -> None:
        async with world.client() as client, await client.sandboxes.create("base") as sandbox:
            done = await sandbox.sh("cat; echo out; echo err >&2", stdin="in\n")
            assert (done.text, done.stderr, done.exit_code, done.success) == ("in\nout\n", b"err\n", 0, True)
            assert (await sandbox.sh("echo '{\"a\": 1}'")).json() == {"a": 1}

    asyncio.run(main())


def test_values_of_a_script_stay_single_words(world: World) -> None:
    async def main() -> None:
        async with world.client() as client, await client.sandboxes.create("base") as sandbox:
            hostile = "a b; touch /tmp/owned $(touch /tmp/owned) 'x'"
            assert (await sandbox.sh("printf %s {}", hostile)).text == hostile
            assert (await sandbox.sh("echo ${X:-{}}")).text == "{}\n"
            assert (await sandbox.sh("test -e /tmp/owned", check=False)).exit_code == 1
            with pytest.raises(UsageError, match="2 places for values, and 1 were given"):
                await sandbox.sh("echo {} {}", "one")

    asyncio.run(main())


def test_a_failing_script_is_an_error_that_shows_why(world: World) -> None:
    async def main() -> None:
        async with world.client() as client, await client.sandboxes.create("base") as sandbox:
            with pytest.raises(CommandFailed, match="`echo why >&2; exit 3` exited with 3") as caught:
                await sandbox.sh("echo why >&2; exit 3")
            assert (caught.value.exit_code, caught.value.stderr) == (3, b"why\n")
            assert caught.value.details == ("why",)
            assert (await sandbox.sh("exit 3", check=False)).exit_code == 3

    asyncio.run(main())


def test_a_script_that_runs_too_long_names_its_limit(world: World) -> None:
    async def main() -> None:
        async with world.client() as client, await client.sandboxes.create("base") as sandbox:
            with pytest.raises(CommandFailed, match="ran out of time") as caught:
                await sandbox.sh("sleep 1000", timeout="200ms")
            assert caught.value.limit == "timeout"
            assert (await sandbox.sh("sleep 1000", timeout=0.2, check=False)).limit == "timeout"

    asyncio.run(main())


def test_output_beyond_its_limit_names_it(world: World) -> None:
    async def main() -> None:
        async with world.client() as client, await client.sandboxes.create("base", output="1kB") as sandbox:
            with pytest.raises(CommandFailed) as caught:
                await sandbox.sh("while :; do echo 0123456789; done")
            assert caught.value.limit == "output"
            assert (await sandbox.sh("echo after")).text == "after\n"

    asyncio.run(main())


def test_processes_have_streams(world: World) -> None:
    async def main() -> None:
        async with world.client() as client, await client.sandboxes.create("base") as sandbox:
            process = await sandbox.spawn("cat", stdin="piped", stdout="piped", stderr="null")
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is None
            await process.stdin.write("one\ntwo\n")
            lines = process.stdout.lines()
            assert [await anext(lines), await anext(lines)] == ["one", "two"]
            await process.stdin.close()
            assert [line async for line in lines] == []
            assert (await process.wait()).success
            assert (await process.wait()).exit_code == 0

    asyncio.run(main())


def test_much_output_waits_for_its_reader(world: World) -> None:
    async def main() -> None:
        async with world.client() as client, await client.sandboxes.create("base") as sandbox:
            process = await sandbox.spawn("head", "-c", "3000000", "/dev/zero", stdout="piped")
            assert len((await process.output()).stdout) == 3_000_000

    asyncio.run(main())


def test_a_signal_ends_a_process_and_is_named(world: World) -> None:
    async def main() -> None:
        async with world.client() as client, await client.sandboxes.create("base") as sandbox:
            process = await sandbox.spawn("sleep", "1000", stdout="null", stderr="null")
            await process.kill("SIGTERM")
            status = await process.wait()
            assert (status.exit_code, status.signal, status.success) == (143, "SIGTERM", False)
            await process.kill()
            async with await sandbox.spawn("sleep", "1000", stdout="null", stderr="null") as inner:
                pass
            assert (await inner.wait()).signal == "SIGKILL"

    asyncio.run(main())


def test_variables_hold_for_later_commands(world: World) -> None:
    async def main() -> None:
        made = {"A": "1", "B": "2"}
        async with world.client() as client, await client.sandboxes.create("base", env=made) as sandbox:
            await sandbox.env.set("C", "3 x")
            await sandbox.env.delete("B")
            assert await sandbox.env.get("A") == "1"
            assert await sandbox.env.get("B") is None
            assert {"A": "1", "C": "3 x"}.items() <= (await sandbox.env.to_object()).items()
            assert (await sandbox.sh('echo "$A:$B:$C:$D"', env={"D": "4"})).text == "1::3 x:4\n"
            with pytest.raises(UsageError):
                await sandbox.env.set("A=B", "x")

    asyncio.run(main())


def test_a_sandbox_on_a_snapshot_leaves_nothing(world: World) -> None:
    async def main() -> None:
        async with world.client() as client:
            async with await client.sandboxes.create("base") as sandbox:
                await sandbox.sh("echo x > /opt/file")
            async with await client.sandboxes.create("base") as sandbox:
                assert (await sandbox.sh("ls -A /opt")).text == ""

    asyncio.run(main())


def test_running_sandboxes_are_listed_by_every_client(world: World) -> None:
    async def main() -> None:
        async with world.client() as client, world.client() as other:
            labels = {"team": world.name("team")}
            sandbox = await client.sandboxes.create("base", labels=labels, timeout="5m")
            (info,) = await other.sandboxes.list(labels=labels)
            assert (info.id, dict(info.labels), info.root) == (sandbox.id, labels, sandbox.info.root)
            assert info.ends_at == pytest.approx(info.created_at + 300)
            assert (await other.sandboxes.get(sandbox.id)).id == sandbox.id
            assert await client.sandboxes.connect(sandbox.id) is sandbox
            with pytest.raises(SandboxElsewhere, match="belongs to another client"):
                await other.sandboxes.connect(sandbox.id)
            await sandbox.kill()
            assert await other.sandboxes.list(labels=labels) == ()
            for client_of in (client, other):
                with pytest.raises(NoSuchSandbox):
                    await client_of.sandboxes.connect(sandbox.id)

    asyncio.run(main())


def test_sandboxes_of_the_command_line_are_listed_while_they_run(world: World) -> None:
    async def main() -> None:
        async with world.client() as client, world.client() as other:
            snapshot = await client.snapshots.get("base")
            before = {info.id for info in other.running_sandboxes()}
            sandbox = await client.start(snapshot)
            (info,) = [info for info in other.running_sandboxes() if info.id not in before]
            assert (info.root, info.client, info.url) == (snapshot.slug, os.getpid(), None)
            client.announce(sandbox, "http://127.0.0.1:1")
            assert (await other.sandboxes.get(info.id)).url == "http://127.0.0.1:1"
            await sandbox.close()
            assert {info.id for info in other.running_sandboxes()} == before

    asyncio.run(main())


def test_what_only_detached_sandboxes_have_is_refused(memory: World) -> None:
    async def main() -> None:
        async with memory.client() as client:
            with pytest.raises(MissingCapability, match="keeps no sandbox without its client"):
                await client.sandboxes.create("base", detached=True)
            with pytest.raises(UsageError, match="`command` is for a detached sandbox"):
                await client.sandboxes.create("base", command=["true"])
            async with await client.sandboxes.create("base") as sandbox:
                with pytest.raises(UsageError, match="only a detached sandbox has logs"):
                    await sandbox.logs()

    asyncio.run(main())


def test_a_sandbox_that_ended_is_gone(world: World) -> None:
    async def main() -> None:
        async with world.client() as client:
            sandbox = await client.sandboxes.create("base")
            await sandbox.kill()
            await sandbox.kill()
            await sandbox.close()
            assert not sandbox.alive
            calls = (
                lambda: sandbox.sh("true"),
                lambda: sandbox.spawn("true"),
                lambda: sandbox.expose_http(80),
                lambda: sandbox.extend_timeout(10),
                lambda: sandbox.snapshot("not-made"),
                sandbox.fork,
            )
            for call in calls:
                with pytest.raises(SandboxGone, match="it was killed"):
                    await call()
            with pytest.raises(SandboxGone):
                _ = sandbox.fs

    asyncio.run(main())


def test_killing_a_sandbox_ends_what_waits_for_it(world: World) -> None:
    async def main() -> None:
        async with world.client() as client:
            sandbox = await client.sandboxes.create("base")
            process = await sandbox.spawn("sleep", "1000", stdout="piped", stderr="null")
            script = asyncio.ensure_future(sandbox.sh("echo began; sleep 1000"))
            reading = asyncio.ensure_future(process.output())
            await sandbox.sh("true")
            await sandbox.kill()
            with pytest.raises(SandboxGone):
                await script
            assert not (await reading).success

    asyncio.run(main())


def test_a_sandbox_ends_when_its_time_is_over(world: World) -> None:
    async def main() -> None:
        async with world.client() as client:
            name = world.name("timed")
            await client.volumes.create(name, from_="base")
            sandbox = await client.sandboxes.create(name, timeout=0.5)
            with pytest.raises(SandboxGone, match="its time was over"):
                await sandbox.sh("sleep 1000")
            # What it had is free again.
            async with await client.sandboxes.create(name) as second:
                assert second.ends_at is None

    asyncio.run(main())


def test_time_can_be_extended_and_is_never_cut(world: World) -> None:
    async def main() -> None:
        async with world.client() as client:
            async with await client.sandboxes.create("base", timeout=0.6) as sandbox:
                ends_at = await sandbox.extend_timeout("10m")
                assert ends_at == sandbox.ends_at
                assert ends_at > time.time() + 590
                assert await sandbox.extend_timeout(1) == ends_at
                (info,) = [i for i in await client.sandboxes.list() if i.id == sandbox.id]
                assert info.ends_at == ends_at
                assert (await sandbox.sh("sleep 1; echo lives")).text == "lives\n"
            async with await client.sandboxes.create("base") as sandbox:
                with pytest.raises(UsageError, match="no timeout to extend"):
                    await sandbox.extend_timeout(10)

    asyncio.run(main())


def test_a_port_is_reached_at_a_url(world: World) -> None:
    async def main() -> None:
        async with world.client() as client:
            async with await client.sandboxes.create("base", port=PORT) as sandbox:
                assert sandbox.url is not None
                assert (await client.sandboxes.get(sandbox)).url == sandbox.url
                place, _, port = sandbox.url.removeprefix("http://").rpartition(":")
                # Nobody listens yet: the connection ends without a byte.
                reader, writer = await asyncio.open_connection(place, int(port))
                assert await reader.read() == b""
                writer.close()
                await sandbox.spawn(*SERVER, stdout="null", stderr="null")
                answer = b""
                while not answer:
                    reader, writer = await asyncio.open_connection(place, int(port))
                    try:
                        writer.write(b"ping")
                        answer = await reader.read(4)
                    except ConnectionError:
                        continue
                    finally:
                        writer.close()
                assert answer == b"ping"
            with pytest.raises(OSError, match=r"refused|Connect call failed"):
                await asyncio.open_connection(place, int(port))

    asyncio.run(main())


def test_a_fork_has_what_was_written_and_goes_its_own_way(world: World) -> None:
    async def main() -> None:
        async with world.client() as client, await client.sandboxes.create("base", env={"A": "1"}) as sandbox:
            await sandbox.sh("echo before > /opt/file; rm /etc/hostname")
            async with await sandbox.fork() as fork:
                assert fork.id != sandbox.id
                assert fork.pause >= 0
                seen = await fork.sh("cat /opt/file; echo $A; test -e /etc/hostname || echo removed")
                assert seen.text == "before\n1\nremoved\n"
                await fork.sh("echo fork > /opt/file")
                await sandbox.sh("echo parent >> /opt/file")
                assert (await fork.sh("cat /opt/file")).text == "fork\n"
                async with await fork.fork() as second:
                    assert (await second.sh("cat /opt/file")).text == "fork\n"
            assert (await sandbox.sh("cat /opt/file")).text == "before\nparent\n"

    asyncio.run(main())


def test_a_snapshot_of_a_running_sandbox_boots(world: World) -> None:
    async def main() -> None:
        async with world.client() as client:
            name = world.name("live")
            async with await client.sandboxes.create("base") as sandbox:
                await sandbox.sh("echo kept > /opt/file")
                made = await sandbox.snapshot(name)
                assert (made.slug, made.pause >= 0) == (name, True)
                await sandbox.sh("echo later > /opt/file")
            async with await client.sandboxes.create(made) as sandbox:
                assert (await sandbox.sh("cat /opt/file")).text == "kept\n"
                # Deleted, the snapshot still serves those who run on it.
                await client.snapshots.delete(made)
                assert (await sandbox.sh("cat /opt/file")).text == "kept\n"
            with pytest.raises(NoSuchSnapshot):
                await client.sandboxes.create(name)

    asyncio.run(main())


def test_files_are_read_and_written_from_outside(world: World) -> None:
    async def main() -> None:
        async with world.client() as client, await client.sandboxes.create("base") as sandbox:
            await sandbox.fs.write_text_file("/opt/file", "héllo\n")
            assert (await sandbox.sh("cat /opt/file")).text == "héllo\n"
            assert await sandbox.fs.read_file("/opt/file") == "héllo\n".encode()
            with pytest.raises(FileNotFoundError):
                await sandbox.fs.read_file("/opt/none")

    asyncio.run(main())


def test_closing_a_client_ends_its_sandboxes(world: World) -> None:
    async def main() -> None:
        async with world.client() as other:
            async with world.client() as client:
                name = world.name("left")
                await client.volumes.create(name, from_="base")
                sandbox = await client.sandboxes.create(name, labels={"left": name})
            assert not sandbox.alive
            assert await other.sandboxes.list(labels={"left": name}) == ()
            assert (await other.volumes.get(name)).sandbox is None

    asyncio.run(main())


def test_a_create_that_fails_gives_everything_back(world: World) -> None:
    async def main() -> None:
        async with world.client() as client:
            root, data = world.name("root"), world.name("data")
            await client.volumes.create(root, from_="base")
            await client.volumes.create(data)
            async with await client.sandboxes.create("base", volumes={"/data": data}):
                with pytest.raises(VolumeInUse):
                    await client.sandboxes.create(root, volumes={"/data": data})
            with pytest.raises(UsageError, match="a second time"):
                await client.sandboxes.create(root, volumes={"/a": data, "/b": data})
            async with await client.sandboxes.create(root, volumes={"/data": data}) as sandbox:
                assert [info.id for info in await client.sandboxes.list() if info.root == root] == [
                    sandbox.id
                ]

    asyncio.run(main())


def test_a_sandbox_whose_init_dies_is_gone(world: World) -> None:
    async def main() -> None:
        async with world.client() as client:
            name = world.name("dying")
            await client.volumes.create(name, from_="base")
            sandbox = await client.sandboxes.create(name)
            if world.engine == "memory":
                await sandbox._sandbox.close()
            else:
                pid = sandbox._sandbox.pid
                assert pid is not None
                script = asyncio.ensure_future(sandbox.sh("sleep 1000", check=False))
                os.kill(pid, signal.SIGKILL)
                try:
                    assert not (await script).success
                except SandboxGone:
                    pass
            with pytest.raises(SandboxGone, match="it ended by itself"):
                await sandbox.sh("true")
            assert name not in [info.root for info in await client.sandboxes.list()]
            async with await client.sandboxes.create(name) as second:
                await second.sh("true")

    asyncio.run(main())


def test_many_sandboxes_leave_no_descriptor(world: World) -> None:
    async def main() -> None:
        async with world.client() as client:

            async def cycle() -> None:
                async with await client.sandboxes.create("base", labels={"a": "b"}) as sandbox:
                    await sandbox.sh("true")
                    process = await sandbox.spawn("cat", stdin="piped", stdout="piped", stderr="piped")
                    await process.kill("SIGKILL")
                    await process.wait()

            await cycle()
            before = len(os.listdir("/proc/self/fd"))
            for _ in range(20):
                await cycle()
            assert len(os.listdir("/proc/self/fd")) == before
            assert len(asyncio.all_tasks()) < 10

    asyncio.run(main())
